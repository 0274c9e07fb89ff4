"""Flushes the event logs of this server's turns to MongoDB: one batch for all of them, a few times a second.

Readers of a log in memory may be ahead of what is stored. Recovery therefore ends a dead turn's log above any sequence
that its server can have used (`recovery.py`).
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.errors import GodotyError, SessionLost
from godoty_service.turns.event_log.events import Event
from godoty_service.turns.event_log.outbox import EndedTurn, Wants, ended_turn
from godoty_service.turns.event_log.store import Chunk, EventLogStore, Outcome, writable
from godoty_service.turns.turn import Turn

log = structlog.get_logger(__name__)

_ALL = 0.9  # of the interval: after this share of it, a flush is one of all logs


@dataclass(slots=True)
class _TrackedLog:
    """A log that is being written.

    Attributes:
        stored: The number of events that are stored.
        stored_bytes: Their bytes, including those of `chunk`.
        index: The index of the next chunk.
        chunk: The chunk that is being inserted; None: all is stored.
        wanted: The number of an event that is to be stored soon, with those before it.
        waiting: Those that wait until events are stored, with the number of the last one.
        done: Set once the log is stored to its end, or was closed by another server.
    """

    turn: Turn
    stored: int = 0
    stored_bytes: int = 0
    index: int = 0
    chunk: Chunk | None = None
    wanted: int = 0
    waiting: list[tuple[int, "asyncio.Future[None]"]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self, through: int, error: GodotyError | None = None) -> None:
        """Wake those that wait for events up to a number, with an error if these are not stored."""
        waiting, self.waiting = self.waiting, []
        for sequence, future in waiting:
            if sequence > through:
                self.waiting.append((sequence, future))
            elif not future.done():  # one that was cancelled is done
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(None)


class EventLogFlusher:
    """Flushes the logs of running turns."""

    def __init__(
        self,
        event_logs: EventLogStore,
        *,
        writer: str,
        expiry: Callable[[], datetime],
        wants: Wants = lambda _: False,
    ) -> None:
        """Initialize the flusher.

        Args:
            event_logs: The stored logs.
            writer: The id of this server.
            expiry: Returns the expiry time for chunks written now.
            wants: Returns whether a tenant is notified of its turns.
        """
        self._event_logs = event_logs
        self._writer = writer
        self._expiry = expiry
        self._wants = wants
        self._logs: dict[str, _TrackedLog] = {}
        self._wake = asyncio.Event()
        self._flushed_at = -math.inf

    def track(self, turn: Turn) -> None:
        """Write a turn's log from now on."""
        self._logs[turn.turn_id] = _TrackedLog(turn)

    def untrack(self, turn: Turn) -> None:
        """Write nothing of a turn that was refused."""
        self._logs.pop(turn.turn_id, None)

    async def wait_flushed(self, turn: Turn) -> None:
        """Wait until a turn's log is stored to its end, or another server has closed it."""
        tracked = self._logs.get(turn.turn_id)
        if tracked is not None:
            await tracked.done.wait()

    def store_soon(self, turn: Turn) -> None:
        """Have a turn's events up to now stored at once, in place of with the next flush of all logs."""
        tracked = self._logs.get(turn.turn_id)
        if tracked is not None and tracked.stored < turn.log.sequence:
            tracked.wanted = turn.log.sequence
            self._wake.set()

    async def wait_stored(self, turn: Turn) -> None:
        """Wait until a turn's events up to now are stored.

        Raises:
            GodotyError: They are not: another server has closed the log, or the database cannot encode them.
        """
        self.store_soon(turn)
        tracked = self._logs.get(turn.turn_id)
        if tracked is not None and tracked.stored < turn.log.sequence:
            stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            tracked.waiting.append((turn.log.sequence, stored))
            await stored

    async def run(self, interval: float) -> None:
        """Flush the logs every `interval` seconds until cancelled, and between, those that are to be stored at once."""

        async def flush() -> None:
            if monotonic() - self._flushed_at >= _ALL * interval:
                self._flushed_at = monotonic()
                await self._try_flush([*self._logs.values()])
            else:
                await self._try_flush([each for each in self._logs.values() if each.wanted > each.stored])

        await run_every(interval, flush, failure="event_log_flusher_fault", wake=self._wake)

    async def _try_flush(self, logs: Sequence[_TrackedLog]) -> None:
        try:
            await self._flush(logs)
        except GodotyError as error:
            log.warning("event_logs_not_written", error=str(error), turns=len(self._logs))

    async def flush(self) -> None:
        """Insert the events that were appended since the last flush.

        Raises:
            StorageError: It is not known which of them were inserted; the next flush inserts the same chunks.
        """
        await self._flush([*self._logs.values()])

    async def _flush(self, logs: Sequence[_TrackedLog]) -> None:
        for tracked in logs:
            self._cut(tracked)
        pending = [tracked for tracked in logs if tracked.chunk is not None]
        if not pending:
            return
        outcomes = await self._event_logs.append([each.chunk for each in pending if each.chunk is not None])
        for tracked in pending:
            self._on_outcome(tracked, outcomes[tracked.turn.turn_id])

    def _cut(self, tracked: _TrackedLog) -> None:
        """Make the next chunk, unless one is still being inserted: that one is retried unchanged."""
        turn_log = tracked.turn.log
        if tracked.chunk is not None or not (turn_log.sequence > tracked.stored or turn_log.ended):
            return
        events, size = turn_log.chunk(tracked.stored, tracked.stored_bytes)
        tracked.stored_bytes += size
        last = tracked.stored + len(events)
        ended = turn_log.ended and last == turn_log.sequence
        tracked.chunk = Chunk(
            turn_id=tracked.turn.turn_id,
            tenant_id=tracked.turn.tenant_id,
            index=tracked.index,
            first=tracked.stored + 1,
            events=events,
            ended=ended,
            error=turn_log.error if ended else None,
            writer=self._writer,
            expire_time=self._expiry(),
            times=turn_log.times(tracked.stored + 1, last),
            end_time=turn_log.end_time if ended else None,
            outbox=self._end(tracked.turn, turn_log.last, turn_log.error, turn_log.end_time) if ended else None,
        )

    def _end(self, turn: Turn, last: Event | None, error: GodotyError | None, end_time: int | None) -> EndedTurn | None:
        """Return the end of a turn of which webhooks are to be notified; None: none is."""
        if end_time is None or not self._wants(turn.tenant_id):
            return None
        return ended_turn(
            (turn.turn_id, turn.tenant_id, turn.request.session_id),
            last,
            agent=(turn.agent.name, turn.agent.version.version),
            user_reference=turn.user_reference,
            time=end_time,
            error=error,
        )

    def _on_outcome(self, tracked: _TrackedLog, outcome: Outcome) -> None:
        chunk = tracked.chunk
        if chunk is None:
            return
        if outcome is Outcome.UNWRITABLE:
            self._fail(tracked, chunk)
            return
        lost = outcome is Outcome.LOST
        error = SessionLost("The session was taken over by another server.", retry_after=1.0) if lost else None
        tracked.chunk = None
        tracked.stored += len(chunk.events)
        tracked.index += 1
        if error is not None:
            tracked.turn.cancel(error)
        tracked.wake(tracked.stored, error)
        if lost or chunk.ended:
            self._finish(tracked, error)

    def _fail(self, tracked: _TrackedLog, chunk: Chunk) -> None:
        """End a turn and its log before an event that the database cannot encode; other logs are not affected."""
        error = GodotyError("The turn's events cannot be stored.", metadata={"request_id": tracked.turn.turn_id})
        log.error("turn_log_unwritable", turn_id=tracked.turn.turn_id, tenant_id=tracked.turn.tenant_id)
        tracked.turn.cancel(error)
        tracked.wake(tracked.turn.log.sequence, error)
        if not chunk.events:  # nothing of it can be stored
            self._finish(tracked, error)
            return
        part = writable(chunk)
        events = part.events if len(part.events) < len(chunk.events) else ()
        end_time = chunk.time_of(chunk.first + len(chunk.events) - 1)
        outbox = self._end(tracked.turn, None, error, end_time)
        tracked.chunk = replace(chunk, events=events, ended=True, error=error, end_time=end_time, outbox=outbox)

    def _finish(self, tracked: _TrackedLog, error: GodotyError | None) -> None:
        self._logs.pop(tracked.turn.turn_id, None)
        tracked.wake(tracked.turn.log.sequence, error)
        tracked.done.set()
