"""The logs of turns in MongoDB, in numbered chunks, written in groups. Owns `turn_logs`.

The number of a chunk is its fence: who closes a dead turn's log writes the next chunk, and what the dead server writes
later collides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from bson import encode

from godoty_service.errors import DuplicateKey, GodotyError, StorageError, StorageUnavailable, TurnNotFound
from godoty_service.mongo import Collection, Document, Index
from godoty_service.mongo_failures import UNWRITABLE
from godoty_service.turns.event_document import (
    error_from_document,
    error_to_document,
    event_from_document,
    event_to_document,
)
from godoty_service.turns.events import Event
from godoty_service.turns.log import HIGH_WATER

INDEXES = (Index(keys=[("expire_time", 1)], expire_after=0),)
_DELETION = "deletion"  # the writer of a seal
_EMPTIED: Document = {"$set": {"writer": _DELETION, "events": [], "error": None}}
_AT_ONCE = 100  # turns in one query


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


class Outcome(Enum):
    """What became of a chunk that was to be inserted."""

    STORED = auto()
    LOST = auto()  # another server has closed the log
    UNWRITABLE = auto()  # the database cannot hold it


def writable(chunk: Chunk) -> Chunk:
    """Return the chunk up to its first event that the database cannot hold."""
    for place, event in enumerate(chunk.events):
        try:
            encode({"event": event_to_document(event)})
        except UNWRITABLE:
            return replace(chunk, events=chunk.events[:place])
    return chunk


class LogChunks:
    """Chunks by turn."""

    def __init__(self, collection: Collection) -> None:
        self._chunks = collection

    async def append(self, chunks: Sequence[Chunk]) -> dict[str, Outcome]:
        """Insert chunks of many turns at once; return what became of each turn's.

        A chunk that was inserted before, by an attempt whose answer was lost, counts as stored.

        Raises:
            StorageUnavailable: It is not known which of them were inserted.
        """
        outcomes: dict[str, Outcome] = {}
        faults = await self._chunks.insert_each([_write(chunk) for chunk in chunks])
        for chunk, fault in zip(chunks, faults, strict=True):
            outcomes[chunk.turn_id] = await self._outcome(chunk, fault)
        return outcomes

    async def _outcome(self, chunk: Chunk, fault: StorageError | None) -> Outcome:
        if fault is None:
            return Outcome.STORED
        if isinstance(fault, StorageUnavailable):
            raise fault
        if not isinstance(fault, DuplicateKey):
            return Outcome.UNWRITABLE
        there = await self._chunks.find_one({"_id": _key(chunk.turn_id, chunk.place)}, fields={"writer": 1})
        return Outcome.STORED if there is not None and there["writer"] == chunk.writer else Outcome.LOST

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

    async def begun(self, tenant_id: str, turn_ids: Sequence[str]) -> dict[str, bool]:
        """Tell which of these turns have a log, and whether it has its end."""
        found: dict[str, bool] = {}
        for query in _logs(tenant_id, turn_ids):
            for each in await self._chunks.find(query, fields={"turn_id": 1, "ended": 1}):
                found[each["turn_id"]] = found.get(each["turn_id"], False) or each["ended"]
        return found

    async def seal(self, tenant_id: str, turn_id: str, *, expire_time: datetime) -> None:
        """Close the log of a deleted turn, so that what its server has yet to write collides, and is never kept.

        Its last chunk stays, without its events: its server may write that again whose answer was lost.
        """
        while True:
            kept = await self.read(tenant_id, turn_id, after=-1)
            if kept and kept[-1].ended:
                return
            if kept:
                await self._chunks.update_one({"_id": _key(turn_id, kept[-1].place)}, _EMPTIED)
            seal = Chunk(
                turn_id=turn_id,
                tenant_id=tenant_id,
                place=kept[-1].place + 1 if kept else 0,
                first=HIGH_WATER + 1,
                events=(),
                ended=True,
                error=TurnNotFound("There is no such turn.", metadata={"turn_id": turn_id}),
                writer=_DELETION,
                expire_time=expire_time,
            )
            if await self.close(seal):
                return

    async def delete(self, tenant_id: str, turn_ids: Sequence[str]) -> None:
        """Delete the logs of turns, but not their seals; a last chunk becomes one, as it may be written again."""
        for query in _logs(tenant_id, turn_ids):
            await self._chunks.update_many({**query, "ended": True, "writer": {"$ne": _DELETION}}, _EMPTIED)
            await self._chunks.delete_many({**query, "writer": {"$ne": _DELETION}})


def _logs(tenant_id: str, turn_ids: Sequence[str]) -> Iterator[Document]:
    """Ask for the logs of turns by the ranges of their keys, some turns at a time."""
    for start in range(0, len(turn_ids), _AT_ONCE):
        ranges = [{"_id": {"$gt": f"{each}/", "$lt": f"{each}0"}} for each in turn_ids[start : start + _AT_ONCE]]
        yield {"tenant_id": tenant_id, "$or": ranges}


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
