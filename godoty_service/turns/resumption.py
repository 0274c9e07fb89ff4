"""Resumes a turn: reads its events after a sequence, whichever server runs it.

A turn of this server is read from memory, another one from its stored event log.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from functools import partial

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import GodotyError, TurnNotFound
from godoty_service.turns.cancellation import TurnMonitor
from godoty_service.turns.event_log.events import Event, StreamEvent
from godoty_service.turns.event_log.heartbeats import with_heartbeats
from godoty_service.turns.event_log.log import merged
from godoty_service.turns.event_log.store import Chunk, EventLogStore
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.turn import Turn
from godoty_service.turns.turn_store import TurnRecord, TurnStore

log = structlog.get_logger(__name__)

_POLL = 0.1  # seconds between two reads of the log
_LIVENESS = 1.0  # seconds between two checks whether the turn's server is alive
_MARK = 1.0  # seconds between two marks that the turn has a reader here


TurnEvent = tuple[str, int, StreamEvent]  # the turn's id, the event's sequence, the event


class TurnResumption:
    """Reads turns from a sequence."""

    def __init__(self, *, remote_reader: "RemoteTurnReader", monitor: TurnMonitor, heartbeat: timedelta) -> None:
        """Initialize the reader.

        Args:
            remote_reader: Reads turns of other servers.
            monitor: Is notified of readers that leave.
            heartbeat: The silence after which a reader gets a heartbeat; zero: no heartbeats.
        """
        self._remote_reader = remote_reader
        self._monitor = monitor
        self._heartbeat = heartbeat

    async def read(self, record: TurnRecord, *, running: Turn | None, after: int) -> AsyncGenerator[TurnEvent, None]:
        """Read the events after a sequence.

        Args:
            record: The turn's record.
            running: The turn if it runs in this server.
            after: The sequence of the last event that the caller has.

        Raises:
            GodotyError: The turn failed.
            TurnNotFound: It was refused, or its log has expired.
        """
        try:
            async with AsyncExitStack() as stack:
                if running is not None:
                    events = running.events(after=after, heartbeat=self._heartbeat)
                else:
                    source = await stack.enter_async_context(aclosing(self._remote_reader.read(record, after=after)))
                    events = with_heartbeats(source, silence=self._heartbeat, after=after)
                await stack.enter_async_context(aclosing(events))
                async for sequence, event in events:
                    yield record.turn_id, sequence, event
        finally:
            if running is not None:
                self._monitor.on_reader_left(running)


class RemoteTurnReader:
    """Reads turns of other servers."""

    def __init__(
        self, *, turn_store: TurnStore, event_logs: EventLogStore, replicas: ReplicaHeartbeats, recovery: Recovery
    ) -> None:
        self._turn_store = turn_store
        self._event_logs = event_logs
        self._replicas = replicas
        self._recovery = recovery

    async def read(self, record: TurnRecord, *, after: int) -> AsyncGenerator[tuple[int, Event], None]:
        """Read the events after a sequence as they are stored.

        Raises:
            GodotyError: The turn failed.
            TurnNotFound: It was refused, or its log has expired.
        """
        index = -1
        checked_at = 0.0
        marking: asyncio.Task[None] | None = None
        try:
            while True:
                chunks = await self._event_logs.read(record.tenant_id, record.turn_id, after=index)
                if marking is None and not (chunks and chunks[-1].ended):
                    await self._mark(record)
                    # A task, because its reader may be slow.
                    marks = run_every(_MARK, partial(self._mark, record), failure="turn_not_marked")
                    marking = asyncio.create_task(marks)
                for chunk in chunks:
                    index = chunk.index
                    for numbered in _events_after(chunk, after):
                        yield numbered
                    if chunk.ended:
                        if chunk.error is not None:
                            raise chunk.error
                        return
                if not chunks:
                    if time.monotonic() - checked_at > _LIVENESS:
                        checked_at = time.monotonic()
                        await self._end_if_dead(record)
                    await asyncio.sleep(_POLL)
        finally:
            if marking is not None:
                marking.cancel()

    async def _mark(self, record: TurnRecord) -> None:
        """Mark a turn as read here: without the mark it would end with the last reader of its own server."""
        try:
            await self._turn_store.mark_remote_reader(record)
        except GodotyError as error:
            log.warning("turn_not_marked", turn_id=record.turn_id, error=str(error))

    async def _end_if_dead(self, record: TurnRecord) -> None:
        """End a turn that no server runs.

        A turn of this server that is read here does not run: a running one is read from its log in memory.

        Raises:
            TurnNotFound: The turn was refused meanwhile.
        """
        found = await self._turn_store.find(record.tenant_id, record.turn_id)
        if found is None:
            raise TurnNotFound("There is no such turn.", metadata={"turn_id": record.turn_id})
        others = [found.replica_id] if found.replica_id != self._replicas.replica_id else []
        if not others or not await self._replicas.alive(others):
            await self._recovery.end(found)


def _events_after(chunk: Chunk, sequence: int) -> list[tuple[int, Event]]:
    """Return a chunk's events after a sequence, adjacent deltas merged."""
    index = max(0, sequence - chunk.first + 1)
    found: list[tuple[int, Event]] = []
    while index < len(chunk.events):
        index, event = merged(chunk.events, index)
        found.append((chunk.first + index - 1, event))
    return found
