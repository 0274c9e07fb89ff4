"""The logs of turns in MongoDB, in numbered chunks, written in groups. Owns `turn_logs`.

The number of a chunk is its fence: who closes a dead turn's log writes the next chunk, and what the dead server writes
later collides.
"""

from collections.abc import Collection as Some
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from godoty_service.errors import DuplicateKey, GodotyError
from godoty_service.mongo import Collection, Document, Index
from godoty_service.turns.event_document import (
    error_from_document,
    error_to_document,
    event_from_document,
    event_to_document,
)
from godoty_service.turns.events import Event

INDEXES = (Index(keys=[("expire_time", 1)], expire_after=0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some events of a turn.

    Attributes:
        place: 0, 1, 2 … in the turn.
        first: The sequence of its first event.
        ended: Nothing follows.
        error: How the turn failed, if it ended so.
        writer: The server that wrote it.
    """

    turn_id: str
    tenant_id: str
    place: int
    first: int
    events: tuple[Event, ...]
    ended: bool
    error: GodotyError | None
    writer: str
    expire_time: datetime


class LogChunks:
    """Chunks by turn."""

    def __init__(self, collection: Collection) -> None:
        self._chunks = collection

    async def append(self, chunks: Sequence[Chunk]) -> set[str]:
        """Write chunks of many turns at once; returns the turns whose log somebody else has closed.

        A chunk that was written before, by an attempt whose answer was lost, counts as written.
        """
        refused = await self._chunks.insert_each([_write(chunk) for chunk in chunks])
        lost: set[str] = set()
        for index in refused:
            chunk = chunks[index]
            there = await self._chunks.find_one({"_id": _key(chunk.turn_id, chunk.place)}, fields={"writer": 1})
            if there is None or there["writer"] != chunk.writer:
                lost.add(chunk.turn_id)
        return lost

    async def close(self, chunk: Chunk) -> bool:
        """Write a dead turn's last chunk; tells whether nobody else has written there."""
        try:
            await self._chunks.insert_one(_write(chunk))
        except DuplicateKey:
            return False
        return True

    async def read(self, tenant_id: str, turn_id: str, *, after: int) -> list[Chunk]:
        """Read a turn's chunks after a place (-1: all), in order."""
        found = await self._chunks.find(
            {
                "tenant_id": tenant_id,
                "_id": {"$gt": _key(turn_id, after) if after >= 0 else f"{turn_id}/", "$lt": f"{turn_id}0"},
            },
            sort=[("_id", 1)],
        )
        return [_read(each) for each in found]

    async def delete(self, tenant_id: str, turn_ids: Some[str]) -> None:
        """Delete the logs of turns."""
        await self._chunks.delete_many({"tenant_id": tenant_id, "turn_id": {"$in": list(turn_ids)}})


def _key(turn_id: str, place: int) -> str:
    return f"{turn_id}/{place:08d}"  # "0" comes right after "/": the range of a turn's keys


def _write(chunk: Chunk) -> Document:
    return {
        "_id": _key(chunk.turn_id, chunk.place),
        "turn_id": chunk.turn_id,
        "tenant_id": chunk.tenant_id,
        "place": chunk.place,
        "first": chunk.first,
        "events": [event_to_document(event) for event in chunk.events],
        "ended": chunk.ended,
        "error": error_to_document(chunk.error) if chunk.error is not None else None,
        "writer": chunk.writer,
        "expire_time": chunk.expire_time,
    }


def _read(document: Document) -> Chunk:
    error = document["error"]
    return Chunk(
        turn_id=document["turn_id"],
        tenant_id=document["tenant_id"],
        place=document["place"],
        first=document["first"],
        events=tuple(event_from_document(each) for each in document["events"]),
        ended=document["ended"],
        error=error_from_document(error) if error else None,
        writer=document["writer"],
        expire_time=document["expire_time"],
    )
