"""Reads a turn that runs, or ran, in another server: from what is kept of its log."""

import asyncio
import time
from collections.abc import AsyncGenerator

import structlog

from godoty_service.errors import GodotyError, TurnNotFound
from godoty_service.sessions.replicas import Replicas
from godoty_service.turns.chunks import Chunk, LogChunks
from godoty_service.turns.events import Event
from godoty_service.turns.log import merged
from godoty_service.turns.records import TurnRecord, TurnRecords
from godoty_service.turns.recovery import Recovery

log = structlog.get_logger(__name__)

_LOOK = 0.1  # seconds between two looks for more
_LIFE = 1.0  # seconds between two looks whether its server lives
_MARK = 1.0  # seconds between two marks that it is read here


class Following:
    """Follows turns of other servers."""

    def __init__(self, *, records: TurnRecords, chunks: LogChunks, replicas: Replicas, recovery: Recovery) -> None:
        self._records = records
        self._chunks = chunks
        self._replicas = replicas
        self._recovery = recovery

    async def read(self, record: TurnRecord, *, after: int) -> AsyncGenerator[tuple[int, Event], None]:
        """Read the events after a sequence as they are kept.

        Raises:
            GodotyError: The turn failed.
            TurnNotFound: It was refused, or its log is no longer kept.
        """
        place = -1
        looked = 0.0
        marking: asyncio.Task[None] | None = None
        try:
            while True:
                chunks = await self._chunks.read(record.tenant_id, record.turn_id, after=place)
                if marking is None and not (chunks and chunks[-1].ended):
                    await self._mark(record)
                    marking = asyncio.create_task(self._keep_marked(record))
                for chunk in chunks:
                    place = chunk.place
                    for numbered in _after(chunk, after):
                        yield numbered
                    if chunk.ended:
                        if chunk.error is not None:
                            raise chunk.error
                        return
                if not chunks:
                    if time.monotonic() - looked > _LIFE:
                        looked = time.monotonic()
                        await self._look_after(record)
                    await asyncio.sleep(_LOOK)
        finally:
            if marking is not None:
                marking.cancel()

    async def _keep_marked(self, record: TurnRecord) -> None:
        """Mark a turn for ever, however slowly it is read."""
        while True:
            await asyncio.sleep(_MARK)
            await self._mark(record)

    async def _mark(self, record: TurnRecord) -> None:
        """Tell the turn's own server that it has a reader: else it would end with the last one there."""
        try:
            await self._records.follow(record)
        except GodotyError as error:
            log.warning("turn_not_marked", turn_id=record.turn_id, error=str(error))

    async def _look_after(self, record: TurnRecord) -> None:
        """End a turn that no server runs; one that was refused meanwhile is gone.

        One of this server's own does not run: a turn that runs here is read from its log in memory.
        """
        found = await self._records.find(record.tenant_id, record.turn_id)
        if found is None:
            raise TurnNotFound("There is no such turn.", metadata={"turn_id": record.turn_id})
        others = [found.replica_id] if found.replica_id != self._replicas.replica_id else []
        if not others or not await self._replicas.living(others):
            await self._recovery.end(found)


def _after(chunk: Chunk, sequence: int) -> list[tuple[int, Event]]:
    """Tell a chunk's events after a sequence, adjacent deltas as one."""
    place = max(0, sequence - chunk.first + 1)
    found: list[tuple[int, Event]] = []
    while place < len(chunk.events):
        place, event = merged(chunk.events, place)
        found.append((chunk.first + place - 1, event))
    return found
