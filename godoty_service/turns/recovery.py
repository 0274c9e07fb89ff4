"""Closes the log of a turn that no server runs: it was interrupted, and what it cost is in the ledger.

One that never began has no log: its record is deleted, and a retry of its request runs it.
"""

from godoty_service.errors import SessionNotFound, TurnNotFound
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.totals import SessionFold, fold
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import Sessions
from godoty_service.turns.chunks import Chunk, LogChunks
from godoty_service.turns.events import StopReason, TurnFinished
from godoty_service.turns.log import HIGH_WATER
from godoty_service.turns.opening import opened_fold
from godoty_service.turns.records import TurnRecord, TurnRecords
from godoty_service.turns.shown_turn import ShownTurn, shown_turn


class Recovery:
    """Closes logs."""

    def __init__(
        self,
        *,
        records: TurnRecords,
        chunks: LogChunks,
        sessions: Sessions,
        messages: MessageStore,
        ledger: Ledger,
        writer: str,
    ) -> None:
        self._records = records
        self._chunks = chunks
        self._sessions = sessions
        self._messages = messages
        self._ledger = ledger
        self._writer = writer

    async def end(self, record: TurnRecord) -> None:
        """End a turn that no server runs, unless another one has.

        Raises:
            TurnNotFound: It never began. Its record is deleted, and its request id may be used.
        """
        if await self._chunks.begun(record.tenant_id, [record.turn_id]):
            await self.interrupt(record)
            return
        if self._records.is_refused(record):
            await self._records.forget(record)
        else:
            await self._records.abandon(
                record
            )  # first: its server, should it live after all, looks after it has claimed
            if await self._has_begun(record):
                await self.interrupt(record)
                return
            await self._records.forget_abandoned(record)
        raise TurnNotFound("The turn was never begun.", metadata={"turn_id": record.turn_id})

    async def _has_begun(self, record: TurnRecord) -> bool:
        """Return whether a turn without a log has left a request, a message or a lease."""
        entries = await self._ledger.of_turn(record.tenant_id, record.turn_id)
        if any(not isinstance(each, ModelCall) or each.state is not CallState.VOID for each in entries):
            return True
        try:
            session = await self._sessions.get(record.tenant_id, record.session_id)
        except SessionNotFound:
            return False
        holders = (*session.lease.before, session.lease) if session.lease is not None else ()
        if record.turn_id in {each.turn_id for each in holders}:
            return True
        return await self._messages.has_turn(record.tenant_id, session.uid, record.turn_id)

    async def interrupt(self, record: TurnRecord) -> list[Chunk]:
        """Write a dead turn's end, unless it has one; returns what its log had before. Nothing is added to it later."""
        while True:
            kept = await self._chunks.read(record.tenant_id, record.turn_id, after=-1)
            if kept and kept[-1].ended:
                return kept
            if await self._chunks.close(await self._end(record, place=kept[-1].place + 1 if kept else 0)):
                return kept

    async def _end(self, record: TurnRecord, *, place: int) -> Chunk:
        """Return the last chunk of an interrupted turn's log."""
        session_fold = await self._session_fold(record)
        finished = TurnFinished(
            stop_reason=StopReason.INTERRUPTED,
            turn_totals=fold(await self._ledger.of_turn(record.tenant_id, record.turn_id)),
            session_totals=session_fold.view(),
            cycle_durations=(),
            tools=(),
        )
        return Chunk(
            turn_id=record.turn_id,
            tenant_id=record.tenant_id,
            place=place,
            first=HIGH_WATER + 1,
            events=(finished,),
            ended=True,
            error=None,
            writer=self._writer,
            expire_time=self._records.log_expiry(),
        )

    async def interrupt_predecessors(self, claim: Claim) -> dict[str, ShownTurn]:
        """Write the ends of the turns that a session was taken over from, and return what their logs show, by turn.

        One whose log is not kept any more needs no end.
        """
        shown: dict[str, ShownTurn] = {}
        if claim.taken_from is not None:
            for each in (*claim.taken_from.before, claim.taken_from):
                record = await self._records.find(claim.session.tenant_id, each.turn_id)
                if record is not None:
                    chunks = await self.interrupt(record)
                    shown[each.turn_id] = shown_turn(event for chunk in chunks for event in chunk.events)
        return shown

    async def _session_fold(self, record: TurnRecord) -> SessionFold:
        try:
            session = await self._sessions.get(record.tenant_id, record.session_id)
        except SessionNotFound:
            return SessionFold()
        return await opened_fold(self._ledger, session, doubtful=True)
