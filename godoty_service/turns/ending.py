"""What a turn leaves behind: a whole history, the agent's state, a fold of all entries, and a free session."""

from dataclasses import dataclass
from typing import Any

from strands.types.content import Message, Messages

from godoty_service.errors import SessionLost
from godoty_service.metering.call import Entry
from godoty_service.metering.fold_document import fold_from_document, fold_to_document
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.meter import TurnMeter
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.totals import SessionFold
from godoty_service.sessions import repair
from godoty_service.sessions.leases import Leases
from godoty_service.sessions.manager import MongoSessionManager
from godoty_service.sessions.session import Claim, Context
from godoty_service.sessions.store import Sessions
from godoty_service.turns.projection import METRICS_KEY, projection


@dataclass(slots=True, kw_only=True)
class Ending:
    """The end of one turn.

    Attributes:
        sessions: Where the session is kept.
        leases: Releases it.
        ledger: Where its entries are kept.
        claim: The turn's claim on it.
        manager: Keeps its messages; None: the turn did not get so far.
        meter: Counted the turn's calls; None: the turn did not get so far.
        fold: What it had cost before the turn.
        state: The agent's state.
        context: What stands for the oldest messages from now on.
        partial_text: What the assistant had said when it was interrupted.
        note: Why the history ends here, where the agent did not end it itself.
        refused: The turn was refused, or the database failed, before a request left: it leaves nothing behind.
    """

    sessions: Sessions
    leases: Leases
    ledger: Ledger
    claim: Claim
    manager: MongoSessionManager | None
    meter: TurnMeter | None
    fold: SessionFold
    state: dict[str, Any]
    context: Context | None
    partial_text: str
    note: str
    refused: bool

    async def write(self) -> SessionFold:
        """Write it all, once; returns what the session has cost now.

        Raises:
            SessionLost: The claim was lost: somebody else has the session.
            StorageError: It could not be written. The lease is released without it, once the turn has ended.
        """
        if self.manager is None:
            await self.leases.release(self.claim.session)
            return self.fold
        if self.refused:
            return await self._undo()
        try:
            await self.manager.append(self._missing(self.manager))
            return await self._finish(self.manager.last_number)
        except SessionLost:
            # An entry that landed after the session had passed on stands behind what its new turn knows of.
            session = self.claim.session
            await SessionFolds(self.sessions, self.ledger).advance(session.tenant_id, session.uid)
            raise

    async def _undo(self) -> SessionFold:
        """Leave the session as it was before the turn; one that the turn made is deleted.

        A void entry of the turn keeps its number, so that the session's numbers have no gap, and the fold takes it.
        """
        session, folds = self.claim.session, SessionFolds(self.sessions, self.ledger)
        written = self.meter is not None and (bool(self.meter.entries) or self.meter.doubtful)
        self.leases.undo_begin(self.claim.turn_id, unfolded=written)
        await self.leases.release(session)
        if written:
            await folds.advance(session.tenant_id, session.uid)
        return self.fold

    async def _finish(self, message_count: int) -> SessionFold:
        """Give the session free with a fold of all its entries."""
        session = self.claim.session
        fold, revision = await self._own(), session.fold_revision
        while not await self.sessions.finish(
            session,
            message_count=message_count,
            state={**self.state, METRICS_KEY: projection(fold)},
            context=self.context,
            fold=fold_to_document(fold),
            fold_revision=revision,
            unfolded=self.meter is not None and self.meter.doubtful,
        ):
            found = await self.sessions.read_fold(session.tenant_id, session.uid)
            if found is None or not await self.sessions.holds(session):
                raise SessionLost("The session was taken over by another turn.", retry_after=1.0)
            revision = found[1]
            fold = await self._all(fold_from_document(found[0]))
        self.leases.released(self.claim.turn_id)
        return fold

    async def _own(self) -> SessionFold:
        """Take the turn's own entries, which are known; all, where one of somebody else's stands among them."""
        entries: list[Entry] = list(self.meter.entries) if self.meter is not None else []
        fold = self.fold.take(entries)
        whole = all(entry.number <= fold.through for entry in entries)
        return fold if whole else await self._all(self.fold)

    async def _all(self, base: SessionFold) -> SessionFold:
        """Take what the ledger has after a fold, whoever wrote it."""
        session = self.claim.session
        return base.take(await self.ledger.unfolded(session.tenant_id, session.uid, after=base.through, also=base.open))

    def _missing(self, manager: MongoSessionManager) -> Messages:
        """Tell what the history lacks: the user's words where the agent never took them up, and an end."""
        lease = self.claim.session.lease
        said: Messages = []
        if not manager.added and lease is not None:
            said = [Message(role="user", content=[{"text": lease.text}])]
        return [
            *said,
            *repair.closing([*manager.history, *said], partial_text=self.partial_text, note=self.note),
        ]
