"""Reads a turn that runs, or ran, in another server: from what is kept of its log."""

import asyncio
import time
from collections.abc import AsyncGenerator

from godoty_service.errors import TurnNotFound
from godoty_service.sessions.replicas import Replicas
from godoty_service.turns.chunks import Chunk, LogChunks
from godoty_service.turns.events import Event
from godoty_service.turns.log import merged
from godoty_service.turns.records import TurnRecord, TurnRecords
from godoty_service.turns.recovery import Recovery

_LOOK = 0.1  # seconds between two looks for more
_LIFE = 1.0  # seconds between two looks whether its server lives


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
        while True:
            chunks = await self._chunks.read(record.tenant_id, record.turn_id, after=place)
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

    async def _look_after(self, record: TurnRecord) -> None:
        """Close the log of a turn whose server is dead; one that was refused meanwhile is gone."""
        if await self._records.find(record.tenant_id, record.turn_id) is None:
            raise TurnNotFound("There is no such turn.", metadata={"turn_id": record.turn_id})
        if record.replica_id not in await self._replicas.living([record.replica_id]):
            await self._recovery.interrupt(record)


def _after(chunk: Chunk, sequence: int) -> list[tuple[int, Event]]:
    """Tell a chunk's events after a sequence, adjacent deltas as one."""
    place = max(0, sequence - chunk.first + 1)
    found: list[tuple[int, Event]] = []
    while place < len(chunk.events):
        place, event = merged(chunk.events, place)
        found.append((chunk.first + place - 1, event))
    return found
