"""The turns that run in this server, and the way to those of others."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import timedelta

import structlog

from godoty_service.errors import (
    GodotyError,
    RequestIdReused,
    ShuttingDown,
    TurnCancelled,
    TurnNotFound,
    TurnTimedOut,
)
from godoty_service.ids import new_id
from godoty_service.sessions.replicas import Replicas
from godoty_service.turns.events import Heartbeat, StreamEvent
from godoty_service.turns.following import Following
from godoty_service.turns.heartbeats import with_heartbeats
from godoty_service.turns.records import TurnRecord, TurnRecords
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.runner import AlreadyBegun, TurnRunner
from godoty_service.turns.turn import Turn, TurnRequest
from godoty_service.turns.watch import Watch

log = structlog.get_logger(__name__)

Happened = tuple[str, int, StreamEvent]  # the turn, the sequence, what happened


class Turns:
    """Starts turns, resumes and cancels them, and waits for them when the server stops."""

    def __init__(
        self,
        *,
        runner: TurnRunner,
        records: TurnRecords,
        following: Following,
        watch: Watch,
        replicas: Replicas,
        recovery: Recovery,
        longest: timedelta,
        heartbeat: timedelta,
    ) -> None:
        """Build it.

        Args:
            runner: Runs turns.
            records: Where turns are written down.
            following: Reads turns of other servers.
            watch: Ends turns that may not go on.
            replicas: This server's heartbeat.
            recovery: Ends turns that no server runs.
            longest: How long a turn may take, its waiting in line included.
            heartbeat: The silence after which a reader gets a heartbeat; zero: none.
        """
        self._runner = runner
        self._records = records
        self._following = following
        self._watch = watch
        self._replicas = replicas
        self._recovery = recovery
        self._longest = longest
        self._heartbeat = heartbeat
        self._running: dict[str, Turn] = {}
        self._by_request: dict[tuple[str, str], Turn] = {}
        self._draining = False

    @property
    def running(self) -> int:
        """How many turns run now."""
        return len(self._running)

    def all(self) -> list[Turn]:
        """Return the turns that run or wait in this server now."""
        return list(self._running.values())

    async def converse(
        self, tenant_id: str, request: TurnRequest, *, key_id: str | None = None
    ) -> AsyncGenerator[Happened, None]:
        """Start a turn and read it; where its request id was used before, read that one instead.

        Args:
            tenant_id: Whose it is.
            request: What is asked.
            key_id: The API key that asks: once it is in force no more, the turn makes no further model call.

        Raises:
            GodotyError: The turn failed.
            RequestIdReused: The request id was used for another request.
            ShuttingDown: The server takes no new turns.
        """
        told = False
        while True:
            turn = self._attach(tenant_id, request, key_id)
            try:
                async with aclosing(turn.events(heartbeat=self._heartbeat)) as events:
                    async for sequence, event in events:
                        yield turn.turn_id, sequence, event
            except AlreadyBegun as begun:
                if begun.record.fingerprint != request.fingerprint:
                    raise _reused() from None
                if begun.record.deleted:
                    raise _deleted(begun.record) from None
                earlier = begun.record
            else:
                return
            finally:
                self._watch.left(turn)
            try:
                async with aclosing(self._read(earlier, after=0)) as events:
                    async for happened in events:
                        told = told or not isinstance(happened[2], Heartbeat)
                        yield happened
            except TurnNotFound:
                if told:
                    raise
                continue  # it was refused meanwhile, and has not used the id up
            return

    async def resume(self, tenant_id: str, turn_id: str, *, after: int) -> AsyncGenerator[Happened, None]:
        """Read what followed a sequence, whichever server runs the turn.

        Raises:
            GodotyError: The turn failed.
            TurnNotFound: The tenant has no such turn, or its log is no longer kept.
        """
        record = await self._find(tenant_id, turn_id)
        async with aclosing(self._read(record, after=after)) as events:
            async for happened in events:
                yield happened

    async def cancel(self, tenant_id: str, turn_id: str) -> None:
        """End a turn, whichever server runs it.

        Raises:
            TurnNotFound: The tenant has no such turn.
        """
        record = await self._find(tenant_id, turn_id)
        turn = self._running.get(turn_id)
        if turn is not None:
            turn.cancel()
        else:
            await self._records.ask_to_cancel(record)

    async def run(self, interval: float) -> None:
        """Look after the running turns for ever, every so many seconds."""
        while True:
            await asyncio.sleep(interval)
            await self._watch.look(list(self._running.values()))

    async def run_lost(self, interval: float) -> None:
        """Forget refused turns and end lost ones of this server for ever, every so many seconds."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self._records.reap()
                await self._end_lost()
            except GodotyError as error:
                log.warning("lost_turns_not_ended", error=str(error))

    async def _end_lost(self) -> None:
        """End the turns of this server that are read elsewhere and do not run: a write of theirs landed late."""
        for record in await self._records.followed_of(self._replicas.replica_id, but=list(self._running)):
            if record.turn_id not in self._running:  # it has begun since the query was sent
                with suppress(TurnNotFound):
                    await self._recovery.end(record)

    async def drain(self, grace: float) -> None:
        """Take no new turns, refuse those that wait, and let the running ones finish for so many seconds.

        What still runs then is cancelled and settled.
        """
        self._draining = True
        for turn in list(self._running.values()):
            if not turn.started:
                turn.cancel(_stopping())
        await self._wait(grace)
        for turn in list(self._running.values()):
            turn.cancel(_stopping())
        await self._wait(grace)

    async def _wait(self, seconds: float) -> None:
        tasks = [turn.task for turn in self._running.values() if turn.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def _attach(self, tenant_id: str, request: TurnRequest, key_id: str | None) -> Turn:
        """Find the turn of a request that runs here, or begin it. One that has ended is found by its record, if any."""
        turn = self._by_request.get((tenant_id, request.request_id or ""))
        if turn is None or turn.log.ended:
            return self._start(tenant_id, request, key_id)
        if turn.request.fingerprint != request.fingerprint:
            raise _reused()
        return turn

    def _start(self, tenant_id: str, request: TurnRequest, key_id: str | None) -> Turn:
        if self._draining:
            raise _stopping()
        turn = Turn(
            tenant_id=tenant_id,
            turn_id=new_id("turn"),
            request=request,
            epoch=self._replicas.epoch,
            key_id=key_id,
        )
        self._running[turn.turn_id] = turn
        if request.request_id:
            self._by_request[tenant_id, request.request_id] = turn
        turn.task = asyncio.create_task(self._runner.run(turn))
        too_long = TurnTimedOut(f"The turn took longer than it may: {self._longest}.")
        timer = asyncio.get_running_loop().call_later(self._longest.total_seconds(), turn.cancel, too_long)
        turn.task.add_done_callback(lambda _: self._ended(turn, timer))
        return turn

    def _ended(self, turn: Turn, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        turn.log.end(turn.cancelled_by or TurnCancelled("The turn was cancelled."))  # before its task had begun
        del self._running[turn.turn_id]
        key = (turn.tenant_id, turn.request.request_id or "")
        if self._by_request.get(key) is turn:
            del self._by_request[key]

    async def _find(self, tenant_id: str, turn_id: str) -> TurnRecord:
        record = await self._records.find(tenant_id, turn_id)
        if record is None:
            raise TurnNotFound("There is no such turn.", metadata={"turn_id": turn_id})
        return record

    async def _read(self, record: TurnRecord, *, after: int) -> AsyncGenerator[Happened, None]:
        """Read a turn where it runs, or else what is kept of it."""
        turn = self._running.get(record.turn_id)
        try:
            async with AsyncExitStack() as stack:
                if turn is not None:
                    events = turn.events(after=after, heartbeat=self._heartbeat)
                else:
                    source = await stack.enter_async_context(aclosing(self._following.read(record, after=after)))
                    events = with_heartbeats(source, silence=self._heartbeat, after=after)
                await stack.enter_async_context(aclosing(events))
                async for sequence, event in events:
                    yield record.turn_id, sequence, event
        finally:
            if turn is not None:
                self._watch.left(turn)


def _stopping() -> ShuttingDown:
    return ShuttingDown("The server is stopping.", retry_after=1.0)


def _deleted(record: TurnRecord) -> TurnNotFound:
    text = "The request's turn was deleted with its session. To begin a new turn, send another request id."
    return TurnNotFound(text, metadata={"turn_id": record.turn_id})


def _reused() -> RequestIdReused:
    return RequestIdReused("The request id was used for another request.")
