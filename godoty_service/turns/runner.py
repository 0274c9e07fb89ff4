"""Starts turns: writes them down, claims the session, and hands over to the claimed turn."""

import asyncio
import random
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress

import structlog

from godoty_service.errors import GodotyError, ModelNotAllowed, QuotaExceeded, SessionBusy, SessionLost, TurnCancelled
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import DeletionUnfinished, HeldByTwin
from godoty_service.tenancy.policy import Policy
from godoty_service.turns.claimed import ClaimedTurn, TurnEnd
from godoty_service.turns.records import TurnRecord
from godoty_service.turns.turn import Turn
from godoty_service.turns.workbench import Workbench

log = structlog.get_logger(__name__)

_POLL = (0.03, 0.15)  # seconds between two looks of a turn that waits for one in another server
_CHECKED_FOR = 1.0  # seconds after which a turn that waits is checked again
_TWIN_LOOKS = 20  # for a session that a turn of the same request holds, which is about to give it back


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
        record = self._record(turn)
        refusal: GodotyError | None = None
        end: TurnEnd | None = None
        async with AsyncExitStack() as stack:
            stack.enter_context(self._bench.leases.holder(turn.turn_id))
            try:
                place = await self._admit(turn, stack)
                claim = await self._begin(turn, record, place, stack)
            except asyncio.CancelledError:
                refusal = turn.cancelled_by or TurnCancelled("The turn was cancelled.")
            except GodotyError as error:
                refusal = error
            except Exception:
                log.exception("turn_fault")
                refusal = _fault(turn)
            else:
                turn.started = True
                self._bench.journal.keep(turn)
                with self._bench.observer.running_turn():
                    end = await ClaimedTurn(self._bench, turn, claim).run()
        # Its readers see the end when nothing that it held is in the way of the next turn.
        if end is not None and (turn.log.sequence or end.error is None):
            _publish(turn, end)
        else:
            await self._refuse(turn, record, refusal or (end and end.error) or _fault(turn))
        await self._bench.journal.kept(turn)

    async def _admit(self, turn: Turn, stack: AsyncExitStack) -> Awaitable[None]:
        """Check what can be refused before the turn is written down; a request that is known is never refused.

        Returns:
            Its place in the line of this server's turns in the session.

        Raises:
            SessionBusy: The session is held here, and the caller does not wait. Raised before the database is asked,
                unless there is a request id to look up.
            AlreadyBegun: The request id was used before.
            QuotaExceeded: The tenant was refused a moment ago.
            ModelNotAllowed: The tenant's policy does not allow a model.
            ProviderKeysOff: The tenant's own provider key cannot be read.
        """
        if turn.request.request_id is None:
            place = self._place(turn, stack)
            await self._check(turn)
            return place
        # A known request is in no other's way: it enters the line only once it is known to be the first.
        for failure in await asyncio.gather(self._refuse_known(turn), self._check(turn), return_exceptions=True):
            if failure is not None:
                raise failure
        return self._place(turn, stack)

    def _place(self, turn: Turn, stack: AsyncExitStack) -> Awaitable[None]:
        request = turn.request
        return stack.enter_context(self._bench.slots.place(turn.tenant_id, request.session_id, wait=request.wait))

    async def _refuse_known(self, turn: Turn) -> None:
        _refuse_second(await self._bench.records.of_request(turn.tenant_id, turn.request.request_id or ""))

    async def _check(self, turn: Turn) -> None:
        """Check a turn that comes in: against what it may do, and whether the tenant was refused a moment ago."""
        await self._read_permissions(turn)
        self._bench.gates.check(turn.tenant_id, turn.policy)

    async def _read_permissions(self, turn: Turn) -> None:
        """Read the tenant's policy and account, and check the turn's models against them."""
        turn.policy, turn.account = await asyncio.gather(
            self._bench.policies.get(turn.tenant_id), self._bench.accounts.of_tenant(turn.tenant_id)
        )
        _check_models(turn, (*filter(None, [turn.request.model]), *self._bench.fallbacks(turn)))

    def _record(self, turn: Turn) -> TurnRecord:
        return TurnRecord(
            turn_id=turn.turn_id,
            tenant_id=turn.tenant_id,
            session_id=turn.request.session_id,
            request_id=turn.request.request_id,
            fingerprint=turn.request.fingerprint,
            replica_id=self._bench.replicas.replica_id,
        )

    async def _begin(self, turn: Turn, record: TurnRecord, place: Awaitable[None], stack: AsyncExitStack) -> Claim:
        """Write the turn down and claim its session, side by side.

        Raises:
            AlreadyBegun: The request id was used before.
            SessionBusy: Another turn holds the session.
        """
        turn.begun, epoch = True, self._bench.replicas.epoch
        claiming = asyncio.create_task(self._claim(turn, place, stack))
        beginning = asyncio.create_task(self._bench.records.begin(record))
        try:
            _refuse_second(await asyncio.shield(beginning))
            claim = await asyncio.shield(claiming)
            if not self._bench.replicas.holds(epoch):
                await self._check_record(record)
            _check_models(turn, (claim.session.model,))  # the one that the session used last, or the default
        except BaseException:
            turn.close()
            with suppress(GodotyError):
                await beginning  # a record that lands late would use the request id up
            await self._give_back(claiming)
            raise
        return claim

    async def _check_record(self, record: TurnRecord) -> None:
        """Check that a turn is still this server's, after a time in which others could take the server for dead.

        Raises:
            SessionLost: A retry of its request may run elsewhere.
        """
        found = await self._bench.records.find(record.tenant_id, record.turn_id)
        if found is None or found.replica_id != record.replica_id:
            raise SessionLost("The server lost touch with the database.", retry_after=1.0)

    async def _claim(self, turn: Turn, place: Awaitable[None], stack: AsyncExitStack) -> Claim:
        """Claim the session, first among this server's turns, then among all.

        The gate comes after the line of this server: who waits in it does not run.
        """
        entered: list[tuple[asyncio.Task[None], Policy]] = []
        waited = not (isinstance(place, asyncio.Future) and place.done())
        await place
        if waited:
            await self._check_again(turn)
        checked = time.monotonic()
        stack.push_async_callback(self._leave, turn, entered)
        await self._enter(turn, entered)
        looks = 0
        while True:
            looks += 1
            if looks > 1 and time.monotonic() - checked > _CHECKED_FOR:
                await self._check_again(turn)
                checked = time.monotonic()
            turn.epoch = self._bench.replicas.epoch
            attempt = asyncio.create_task(self._acquire(turn))
            try:
                return await asyncio.shield(attempt)
            except asyncio.CancelledError:
                return await attempt  # it lands all the same, and is given back
            except DeletionUnfinished as unfinished:
                await self._bench.deletions.finish(unfinished.session)
            except SessionBusy as busy:
                if not turn.request.wait and not (isinstance(busy, HeldByTwin) and looks < _TWIN_LOOKS):
                    raise
                await asyncio.sleep(random.uniform(*_POLL))  # noqa: S311 - it spreads load, it keeps no secret

    async def _acquire(self, turn: Turn) -> Claim:
        request = turn.request
        return await self._bench.leases.acquire(
            turn.tenant_id,
            request.session_id,
            turn_id=turn.turn_id,
            request_id=request.request_id,
            text=request.text,
            model=request.model,
            default_model=turn.policy.default_model or self._bench.defaults.model,
            user=request.user,
            new=request.new_session,
        )

    async def _check_again(self, turn: Turn) -> None:
        """Check, after a turn has waited, its key, and against what it may do by now; the gate checks the rest.

        Raises:
            InvalidApiKey: The key was revoked, or has expired.
            ModelNotAllowed: The tenant's policy does not allow a model.
            ProviderKeysOff: The tenant's own provider key cannot be read.
        """
        await asyncio.gather(self._bench.key_watch.check(turn), self._read_permissions(turn))

    async def _enter(self, turn: Turn, entered: "list[tuple[asyncio.Task[None], Policy]]") -> None:
        """Pass the tenant's gate; whatever becomes of the turn, it is let out again."""
        entering = asyncio.create_task(self._bench.gates.enter(turn.tenant_id, turn.turn_id, turn.policy))
        entered.append((entering, turn.policy))
        await asyncio.shield(entering)

    async def _leave(self, turn: Turn, entered: "list[tuple[asyncio.Task[None], Policy]]") -> None:
        """Let a turn out of the gate by the policy with which it went in: another may hold by now."""
        if not entered:
            return
        entering, policy = entered[0]
        try:
            await entering  # one that lands late must not count for ever
        except QuotaExceeded:
            return
        except GodotyError as error:  # it may have landed all the same
            log.warning("gate_not_entered", error=str(error))
        await self._bench.gates.leave(turn.tenant_id, turn.turn_id, policy)

    async def _give_back(self, claiming: "asyncio.Task[Claim]") -> None:
        """Give back a claim that nobody wants any more, also one that is just landing.

        A claim that waits is cancelled in its sleep; one that is on its way to the database lands first.
        """
        if not claiming.done():
            claiming.cancel()
        with suppress(asyncio.CancelledError, GodotyError):
            await claiming
        if not claiming.cancelled() and claiming.exception() is None:
            await self._bench.leases.release(claiming.result().session)

    async def _refuse(self, turn: Turn, record: TurnRecord, error: GodotyError) -> None:
        """End a turn that has not begun; its request id may be used again."""
        self._bench.journal.drop(turn)
        try:
            if turn.begun and not isinstance(error, AlreadyBegun):
                await self._bench.records.forget(record)
        except GodotyError as error_of_record:  # `TurnRecords.reap` goes on trying
            log.warning("turn_not_forgotten", error=str(error_of_record))
        finally:
            turn.log.end(error)  # last: whoever hears of it may use the request id at once


def _publish(turn: Turn, end: TurnEnd) -> None:
    """Write the end of a turn into its log."""
    if end.finished is not None:
        turn.log.append(end.finished)
    turn.log.end(end.error)


def _fault(turn: Turn) -> GodotyError:
    return GodotyError("The server failed.", metadata={"request_id": turn.turn_id})


def _check_models(turn: Turn, models: tuple[str, ...]) -> None:
    for model in models:
        if not turn.policy.allows(model):
            raise ModelNotAllowed("The tenant's policy does not allow the model.", metadata={"model": model})


def _refuse_second(earlier: TurnRecord | None) -> None:
    if earlier is not None:
        raise AlreadyBegun(earlier)
