"""Starts turns: writes them down, claims the session, and hands over to the claimed turn."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress

import structlog

from godoty_service.errors import GodotyError, SessionBusy, TurnCancelled
from godoty_service.sessions.session import Claim
from godoty_service.turns.claimed import ClaimedTurn
from godoty_service.turns.records import TurnRecord
from godoty_service.turns.turn import Turn
from godoty_service.turns.workbench import Workbench

log = structlog.get_logger(__name__)

_POLL = (0.03, 0.15)  # seconds between two looks of a turn that waits for one in another server


class AlreadyBegun(GodotyError):
    """The request id was used before: by the turn of this record. Never leaves this room."""

    def __init__(self, record: TurnRecord) -> None:
        super().__init__("The request id was used before.")
        self.record = record


class TurnRunner:
    """Runs turns."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def run(self, turn: Turn) -> None:
        """Run a turn to its end, whatever ends it; its log ends with it."""
        structlog.contextvars.bind_contextvars(
            tenant_id=turn.tenant_id, session_id=turn.request.session_id, turn_id=turn.turn_id
        )
        async with AsyncExitStack() as stack:
            record = self._record(turn)
            try:
                claim = await self._begin(turn, record, stack)
            except asyncio.CancelledError:
                await self._refuse(turn, record, turn.cancelled_by or TurnCancelled("The turn was cancelled."))
            except AlreadyBegun as error:
                turn.log.end(error)
            except GodotyError as error:
                await self._refuse(turn, record, error)
            except Exception:
                log.exception("turn_fault")
                fault = GodotyError("The server failed.", metadata={"request_id": turn.turn_id})
                await self._refuse(turn, record, fault)
            else:
                self._bench.journal.keep(turn)
                with self._bench.observer.running_turn():
                    await ClaimedTurn(self._bench, turn, claim).run()
        await self._bench.journal.kept(turn)

    def _record(self, turn: Turn) -> TurnRecord:
        return TurnRecord(
            turn_id=turn.turn_id,
            tenant_id=turn.tenant_id,
            session_id=turn.request.session_id,
            request_id=turn.request.request_id,
            fingerprint=turn.request.fingerprint,
            replica_id=self._bench.replicas.replica_id,
        )

    async def _begin(self, turn: Turn, record: TurnRecord, stack: AsyncExitStack) -> Claim:
        """Write the turn down and claim its session, side by side.

        Raises:
            AlreadyBegun: The request id was used before.
            SessionBusy: Another turn holds the session.
        """
        claiming = asyncio.create_task(self._claim(turn, stack))
        beginning = asyncio.create_task(self._bench.records.begin(record))
        try:
            _refuse_second(await asyncio.shield(beginning))
            return await asyncio.shield(claiming)
        except BaseException:
            with suppress(GodotyError):
                await beginning  # a record that lands late would use the request id up
            await self._give_back(claiming)
            raise

    async def _claim(self, turn: Turn, stack: AsyncExitStack) -> Claim:
        """Claim the session, first among this server's turns, then among all."""
        request = turn.request
        await stack.enter_async_context(self._bench.slots.slot(turn.tenant_id, request.session_id, wait=request.wait))
        while True:
            turn.epoch = self._bench.replicas.epoch
            attempt = asyncio.create_task(
                self._bench.sessions.claim(
                    turn.tenant_id,
                    request.session_id,
                    turn_id=turn.turn_id,
                    text=request.text,
                    model=request.model,
                    default_model=self._bench.defaults.model,
                    user=request.user,
                )
            )
            try:
                return await asyncio.shield(attempt)
            except asyncio.CancelledError:
                return await attempt  # it lands all the same, and is given back
            except SessionBusy:
                if not request.wait:
                    raise
                await asyncio.sleep(random.uniform(*_POLL))  # noqa: S311 - it spreads load, it keeps no secret

    async def _give_back(self, claiming: "asyncio.Task[Claim]") -> None:
        """Give back a claim that nobody wants any more, also one that is just landing.

        A claim that waits is cancelled in its sleep; one that is on its way to the database lands first.
        """
        bench = self._bench
        if not claiming.done():
            claiming.cancel()
        with suppress(asyncio.CancelledError, GodotyError):
            await claiming
        if claiming.cancelled() or claiming.exception() is not None:
            return
        claim = claiming.result()
        try:
            if claim.taken_from is not None:  # the dead turn's history is still to be closed: the next claim does it
                await bench.sessions.pass_on(claim.session, claim.taken_from)
            elif claim.created:
                await bench.sessions.delete(claim.session)
            else:
                await bench.sessions.release(claim.session)
        except GodotyError as error:
            log.warning("claim_not_given_back", error=str(error))

    async def _refuse(self, turn: Turn, record: TurnRecord, error: GodotyError) -> None:
        """End a turn that has not begun; its request id may be used again."""
        turn.log.end(error)
        try:
            await self._bench.records.forget(record)
        except GodotyError:  # then it is kept with its end, so that nobody waits for more
            self._bench.journal.keep(turn)


def _refuse_second(earlier: TurnRecord | None) -> None:
    if earlier is not None:
        raise AlreadyBegun(earlier)
