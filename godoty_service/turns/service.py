"""Starts, resumes and cancels turns: those of this server directly, those of other servers through the database."""

import asyncio
from collections.abc import AsyncGenerator, Sized
from contextlib import aclosing, suppress
from datetime import timedelta
from time import monotonic

from godoty_service.aio.backoff import Backoff
from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock, utc_now
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import (
    RequestIdReused,
    ShuttingDown,
    TurnCancelled,
    TurnNotFound,
    TurnTimedOut,
    internal_error,
)
from godoty_service.ids import new_id
from godoty_service.tenancy.auth import NO_KEY_LIMITS, KeyLimits
from godoty_service.turns.cancellation import TurnMonitor
from godoty_service.turns.event_log.events import Heartbeat, TurnStarted
from godoty_service.turns.listing import TurnListing, TurnPage, TurnState, TurnSummary
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.resumption import TurnEvent, TurnResumption
from godoty_service.turns.runner import DuplicateRequest, TurnRunner
from godoty_service.turns.turn import Turn, TurnRequest
from godoty_service.turns.turn_store import TurnRecord, TurnStore

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between two reads of a turn of another server that is awaited


class TurnService:
    """Starts turns, resumes and cancels them, and waits for them when the server stops."""

    def __init__(
        self,
        *,
        runner: TurnRunner,
        turn_store: TurnStore,
        resumption: TurnResumption,
        listing: TurnListing,
        monitor: TurnMonitor,
        replicas: ReplicaHeartbeats,
        recovery: Recovery,
        max_duration: timedelta,
        heartbeat: timedelta,
        clock: Clock = utc_now,
    ) -> None:
        """Initialize the service.

        Args:
            runner: Runs turns.
            turn_store: The turns' records.
            resumption: Reads turns that were started before.
            listing: Answers what is known of turns.
            monitor: Cancels turns that must not continue.
            replicas: This server's heartbeat.
            recovery: Ends turns that no server runs.
            max_duration: The longest duration of a turn, including its wait for the session.
            heartbeat: The silence after which a reader gets a heartbeat; zero: no heartbeats.
            clock: The current time.
        """
        self._runner = runner
        self._turn_store = turn_store
        self._resumption = resumption
        self._listing = listing
        self._monitor = monitor
        self._replicas = replicas
        self._recovery = recovery
        self._max_duration = max_duration
        self._heartbeat = heartbeat
        self._clock = clock
        self._running: dict[str, Turn] = {}
        self._by_request: dict[tuple[str, str], Turn] = {}
        self._draining = False

    @property
    def running(self) -> int:
        """The number of turns that run or wait in this server."""
        return len(self._running)

    @property
    def beginning(self) -> Sized:
        """The turns of this server that have not sent their first request, without those that wait for others."""
        return self._runner.beginning

    def all(self) -> list[Turn]:
        """Return the turns that run or wait in this server."""
        return list(self._running.values())

    async def converse(
        self,
        tenant_id: str,
        request: TurnRequest,
        *,
        key_id: str | None = None,
        key_limits: KeyLimits = NO_KEY_LIMITS,
    ) -> AsyncGenerator[TurnEvent, None]:
        """Start a turn and read it; if its request id was used before, read that turn instead.

        Args:
            tenant_id: The tenant.
            request: The caller's request.
            key_id: The caller's API key: once it is no longer valid, the turn makes no further model call.
            key_limits: The key's own limits.

        Raises:
            GodotyError: The turn failed.
            RequestIdReused: The request id was used for another request.
            ShuttingDown: The server accepts no new turns.
        """
        while True:
            turn = self._attach(tenant_id, request, key_id, key_limits)
            try:
                async with aclosing(turn.events(heartbeat=self._heartbeat)) as events:
                    async for read in events:
                        yield turn.turn_id, read
            except DuplicateRequest as duplicate:
                earlier = _matching(duplicate.record, request)
            else:
                return
            finally:
                self._monitor.on_reader_left(turn)
            has_read = False
            try:
                async with aclosing(self._read(earlier, after=0)) as events:
                    async for event in events:
                        has_read = has_read or not isinstance(event[1][1], Heartbeat)
                        yield event
            except TurnNotFound:
                if has_read:
                    raise
                continue  # it was refused meanwhile, and its request id is free again
            return

    async def start(
        self,
        tenant_id: str,
        request: TurnRequest,
        *,
        key_id: str | None = None,
        key_limits: KeyLimits = NO_KEY_LIMITS,
    ) -> tuple[str, str]:
        """Start a turn that is to continue without a reader; if its request id was used before, find that turn instead.

        Returns:
            The turn's id and its session's, once it has begun.

        Raises:
            GodotyError: It was refused, as `converse` says.
        """
        turn = self.converse(tenant_id, request, key_id=key_id, key_limits=key_limits)
        async with aclosing(turn) as events:
            async for turn_id, (_, event, _) in events:
                if isinstance(event, TurnStarted):
                    return turn_id, event.session_id
                if not isinstance(event, Heartbeat):  # its server died before it had stored the start
                    return turn_id, (await self._find(tenant_id, turn_id)).session_id
        raise internal_error(request.session_id)

    async def wait(self, tenant_id: str, turn_id: str, *, longest: timedelta) -> TurnSummary:
        """Return a turn once it has ended, or as it is after a time, whichever server runs it.

        Raises:
            TurnNotFound: The tenant has no such turn, or its log has expired.
            ShuttingDown: Another server runs it, and this one stops.
        """
        deadline = monotonic() + longest.total_seconds()
        pauses = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        while True:
            found = await self.get(tenant_id, turn_id)
            left = deadline - monotonic()
            if found.state is TurnState.ENDED or left <= 0:
                return found
            turn = self._running.get(turn_id)
            if turn is not None and turn.task is not None:
                await asyncio.wait([turn.task], timeout=left)
            elif self._draining:
                raise _stopping()
            else:
                await asyncio.sleep(min(left, pauses.next()))

    def start_detached(self, tenant_id: str, request: TurnRequest, *, key_id: str, key_limits: KeyLimits) -> str:
        """Start a turn that no reader waits for; return its id.

        Raises:
            ShuttingDown: The server accepts no new turns.
        """
        return self._start(tenant_id, request, key_id, key_limits).turn_id

    async def resume(self, tenant_id: str, turn_id: str, *, after: int) -> AsyncGenerator[TurnEvent, None]:
        """Read the events after a sequence, whichever server runs the turn.

        Raises:
            GodotyError: The turn failed.
            TurnNotFound: The tenant has no such turn, or its log has expired.
        """
        record = await self._find(tenant_id, turn_id)
        async with aclosing(self._read(record, after=after)) as events:
            async for event in events:
                yield event

    async def get(self, tenant_id: str, turn_id: str) -> TurnSummary:
        """Return a turn without its events, whichever server runs it.

        Raises:
            TurnNotFound: The tenant has no such turn, or its log has expired.
        """
        return await self._listing.get(tenant_id, turn_id, here=self._running)

    async def page(
        self, tenant_id: str, *, session_id: str | None, state: TurnState | None, before: str | None, limit: int
    ) -> TurnPage:
        """Return turns without their events, as `TurnListing.page` does."""
        return await self._listing.page(
            tenant_id, session_id=session_id, state=state, before=before, limit=limit, here=self._running
        )

    async def cancel(self, tenant_id: str, turn_id: str) -> None:
        """Cancel a turn, whichever server runs it.

        Raises:
            TurnNotFound: The tenant has no such turn.
        """
        record = await self._find(tenant_id, turn_id)
        turn = self._running.get(turn_id)
        if turn is not None:
            turn.cancel()
        else:
            await self._turn_store.request_cancel(record)

    async def run(self, interval: float) -> None:
        """Monitor the running turns every `interval` seconds until cancelled."""
        await run_every(interval, lambda: self._monitor.check(self.all()), failure="turns_not_monitored")

    async def run_lost(self, interval: float) -> None:
        """Delete records of refused turns and end lost turns of this server every `interval` seconds."""

        async def work() -> None:
            await self._turn_store.reap()
            await self._end_lost()

        await run_every(interval, work, failure="lost_turns_not_ended")

    async def _end_lost(self) -> None:
        """End turns of this server that have remote readers and do not run: one of their writes was applied late."""
        for record in await self._turn_store.remotely_read(self._replicas.replica_id, excluding=list(self._running)):
            if record.turn_id not in self._running:  # else it has begun since the query was sent
                with suppress(TurnNotFound):
                    await self._recovery.end(record)

    async def drain(self, grace: float) -> None:
        """Accept no new turns, refuse those that wait, and let the running ones finish.

        A turn without a reader is given no more time to get one. Turns that still run after `grace` seconds are
        cancelled; their calls are closed within as much time again.
        """
        self._draining = True
        for turn in list(self._running.values()):
            if not turn.started:
                turn.cancel(_stopping())
            turn.grace = timedelta()
            self._monitor.on_reader_left(turn)
        await self._wait(grace)
        for turn in list(self._running.values()):
            turn.cancel(_stopping())
        await self._wait(grace)

    async def _wait(self, seconds: float) -> None:
        tasks = [turn.task for turn in self._running.values() if turn.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def _attach(self, tenant_id: str, request: TurnRequest, key_id: str | None, key_limits: KeyLimits) -> Turn:
        """Return the turn of a request that runs here, or start it. One that has ended is found by its record."""
        turn = self._by_request.get((tenant_id, request.request_id or ""))
        if turn is None or turn.log.ended:
            return self._start(tenant_id, request, key_id, key_limits)
        if turn.request.fingerprint != request.fingerprint:
            raise _reused()
        return turn

    def _start(self, tenant_id: str, request: TurnRequest, key_id: str | None, key_limits: KeyLimits) -> Turn:
        if self._draining:
            raise _stopping()
        now = self._clock()
        turn = Turn(
            tenant_id=tenant_id,
            turn_id=new_id("turn", made=now),
            request=request,
            epoch=self._replicas.epoch,
            key_id=key_id,
            time=now,
            key_limits=key_limits,
        )
        self._running[turn.turn_id] = turn
        if request.request_id:
            self._by_request[tenant_id, request.request_id] = turn
        turn.task = asyncio.create_task(self._runner.run(turn))
        timed_out = TurnTimedOut(f"The turn took longer than it may: {self._max_duration}.")
        timer = asyncio.get_running_loop().call_later(self._max_duration.total_seconds(), turn.cancel, timed_out)
        turn.task.add_done_callback(lambda _: self._on_end(turn, timer))
        return turn

    def _on_end(self, turn: Turn, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        turn.log.end(turn.cancelled_by or TurnCancelled("The turn was cancelled."))  # if its task never ran
        del self._running[turn.turn_id]
        key = (turn.tenant_id, turn.request.request_id or "")
        if self._by_request.get(key) is turn:
            del self._by_request[key]

    async def _find(self, tenant_id: str, turn_id: str) -> TurnRecord:
        record = await self._turn_store.find(tenant_id, turn_id)
        if record is None:
            raise TurnNotFound("There is no such turn.", metadata={"turn_id": turn_id})
        return record

    def _read(self, record: TurnRecord, *, after: int) -> AsyncGenerator[TurnEvent, None]:
        return self._resumption.read(record, running=self._running.get(record.turn_id), after=after)


def _stopping() -> ShuttingDown:
    return ShuttingDown("The server is stopping.", retry_after=1.0)


def _matching(earlier: TurnRecord, request: TurnRequest) -> TurnRecord:
    """Return the record of the turn that a request's id was used for, if it was the same request.

    Raises:
        RequestIdReused: It was another request.
        TurnNotFound: The turn was deleted with its session.
    """
    if earlier.fingerprint != request.fingerprint:
        raise _reused() from None
    if earlier.deleted:
        text = "The request's turn was deleted with its session. To begin a new turn, send another request id."
        raise TurnNotFound(text, metadata={"turn_id": earlier.turn_id}) from None
    return earlier


def _reused() -> RequestIdReused:
    return RequestIdReused("The request id was used for another request.")
