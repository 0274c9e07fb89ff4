"""Closes the log of a turn whose server died: it was interrupted, and what it cost is in the ledger."""

from godoty_service.errors import SessionNotFound
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.totals import SessionFold, fold
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import Sessions
from godoty_service.turns.chunks import Chunk, LogChunks
from godoty_service.turns.events import StopReason, TurnFinished
from godoty_service.turns.log import HIGH_WATER
from godoty_service.turns.opening import opened_fold
from godoty_service.turns.records import TurnRecord, TurnRecords


class Recovery:
    """Closes logs."""

    def __init__(
        self, *, records: TurnRecords, chunks: LogChunks, sessions: Sessions, ledger: Ledger, writer: str
    ) -> None:
        self._records = records
        self._chunks = chunks
        self._sessions = sessions
        self._ledger = ledger
        self._writer = writer

    async def interrupt(self, record: TurnRecord) -> None:
        """Write a dead turn's end, unless somebody has."""
        kept = await self._chunks.read(record.tenant_id, record.turn_id, after=-1)
        if kept and kept[-1].ended:
            return
        session_fold = await self._session_fold(record)
        await self._chunks.close(
            Chunk(
                turn_id=record.turn_id,
                tenant_id=record.tenant_id,
                place=kept[-1].place + 1 if kept else 0,
                first=HIGH_WATER + 1,
                events=(
                    TurnFinished(
                        stop_reason=StopReason.INTERRUPTED,
                        turn_totals=fold(await self._ledger.of_turn(record.tenant_id, record.turn_id)),
                        session_totals=session_fold.view(),
                        cycle_durations=(),
                        tools=(),
                    ),
                ),
                ended=True,
                error=None,
                writer=self._writer,
                expire_time=self._records.log_expiry(),
            )
        )

    async def interrupt_predecessors(self, claim: Claim) -> None:
        """Write the ends of the turns that a session was taken over from; one that is not kept any more needs none."""
        if claim.taken_from is not None:
            for each in (*claim.taken_from.before, claim.taken_from):
                record = await self._records.find(claim.session.tenant_id, each.turn_id)
                if record is not None:
                    await self.interrupt(record)

    async def _session_fold(self, record: TurnRecord) -> SessionFold:
        try:
            session = await self._sessions.get(record.tenant_id, record.session_id)
        except SessionNotFound:
            return SessionFold()
        return await opened_fold(self._ledger, session, doubtful=True)
