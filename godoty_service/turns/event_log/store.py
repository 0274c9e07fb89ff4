"""Stores turns' event logs in numbered chunks, inserted in batches. Owns the collection `turn_logs`.

A chunk's index is its fence: recovery closes a dead turn's log by inserting the next chunk, and a later insert of the
dead server collides with it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import ClassVar

from bson import encode

from godoty_service.errors import DuplicateKey, GodotyError, StorageError, StorageUnavailable, TurnNotFound
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.mongo.errors import UNWRITABLE
from godoty_service.turns.event_log.codec import (
    error_from_document,
    error_to_document,
    event_from_document,
    event_to_document,
    stop_reason_of,
)
from godoty_service.turns.event_log.events import Event, StopReason
from godoty_service.turns.event_log.log import RECOVERY_SEQUENCE
from godoty_service.turns.event_log.outbox import PENDING, EndedTurn

_DELETION = "deletion"  # the writer of a tombstone
_EMPTIED: Document = {"$set": {"writer": _DELETION, "events": [], "error": None}}
_MAX_TURNS = 100  # turns of one query
_END = {"turn_id": 1, "error.reason": 1, "end_time": 1, "stop": {"$last": "$events.finished.stop"}}
_END_WITH_OUTPUT = {**_END, "output": {"$last": "$events.finished.output"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive events of a turn.

    Attributes:
        index: The chunk's number in the turn, from 0.
        first: The sequence of its first event.
        ended: It is the log's last chunk.
        error: The error that the turn failed with, in the last chunk.
        writer: The server that wrote it.
        times: The times of its events in milliseconds since 1970, each with the number of the last event that has it.
        end_time: The time of the turn's end, in the last chunk, likewise. A chunk of an earlier build has neither.
        outbox: The end of which webhooks are to be notified, in the last chunk; None: no webhook is.
    """

    turn_id: str
    tenant_id: str
    index: int
    first: int
    events: tuple[Event, ...]
    ended: bool
    error: GodotyError | None
    writer: str
    expire_time: datetime
    times: tuple[tuple[int, int], ...] = ()
    end_time: int | None = None
    outbox: EndedTurn | None = None

    def time_of(self, sequence: int) -> int | None:
        """Return the time of an event; None: it was not recorded."""
        index = bisect_left(self.times, (sequence,))
        return self.times[index][1] if index < len(self.times) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """How a turn ended.

    Attributes:
        stop_reason: Why it ended; None: it failed.
        error_reason: The reason of the error that it failed with.
        time: The time of its end in milliseconds since 1970; None: it was not recorded.
        output_json: The value of a turn with an output schema; None: there is none, or it was not read.
    """

    stop_reason: StopReason | None
    error_reason: str | None
    time: int | None
    output_json: str | None = None


class Outcome(Enum):
    """The result of a chunk's insertion."""

    STORED = auto()
    LOST = auto()  # another server has closed the log
    UNWRITABLE = auto()  # the database cannot encode it


def writable(chunk: Chunk) -> Chunk:
    """Return the chunk up to its first event that the database cannot encode."""
    for index, event in enumerate(chunk.events):
        try:
            encode({"event": event_to_document(event)})
        except UNWRITABLE:
            return replace(chunk, events=chunk.events[:index])
    return chunk


class EventLogStore:
    """Chunks by turn."""

    COLLECTION = "turn_logs"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("expire_time", 1)], expire_after=0),
        Index(keys=[("tenant_id", 1), ("turn_id", 1)], where={"ended": True}),
        Index(keys=[("events.call.user", 1)], where={"events.call.user": {"$gt": ""}}),  # names of schema 1
        Index(keys=[("outbox.time", 1)], where=PENDING),
    )

    def __init__(self, collection: Collection) -> None:
        self._chunks = collection

    async def append(self, chunks: Sequence[Chunk]) -> dict[str, Outcome]:
        """Insert chunks of many turns in one operation; return the outcome by turn id.

        A chunk that an earlier attempt inserted, whose answer was lost, counts as stored.

        Raises:
            StorageUnavailable: It is not known which of them were inserted.
        """
        outcomes: dict[str, Outcome] = {}
        faults = await self._chunks.insert_each([_to_document(chunk) for chunk in chunks])
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
        stored = await self._chunks.find_one({"_id": _key(chunk.turn_id, chunk.index)}, fields={"writer": 1})
        return Outcome.STORED if stored is not None and stored["writer"] == chunk.writer else Outcome.LOST

    async def close(self, chunk: Chunk) -> bool:
        """Insert a turn's last chunk; return False if the log has a chunk with this index already."""
        try:
            await self._chunks.insert_one(_to_document(chunk))
        except DuplicateKey:
            return False
        return True

    async def read(self, tenant_id: str, turn_id: str, *, after: int) -> list[Chunk]:
        """Return a turn's chunks after an index (-1: all), in order."""
        found = await self._chunks.find(
            {
                "tenant_id": tenant_id,
                "_id": {"$gt": _key(turn_id, after) if after >= 0 else f"{turn_id}/", "$lt": f"{turn_id}0"},
            },
            sort=[("_id", 1)],
        )
        return [_from_document(each) for each in found]

    async def begun(self, tenant_id: str, turn_ids: Sequence[str]) -> dict[str, bool]:
        """Return those of these turns that have a log, with whether it has ended."""
        found: dict[str, bool] = {}
        for query in _logs(tenant_id, turn_ids):
            for each in await self._chunks.find(query, fields={"turn_id": 1, "ended": 1}):
                found[each["turn_id"]] = found.get(each["turn_id"], False) or each["ended"]
        return found

    async def ends(self, tenant_id: str, turn_ids: Sequence[str], *, with_output: bool = False) -> dict[str, LogEnd]:
        """Return how those of these turns ended that have ended, by turn id.

        Args:
            tenant_id: The tenant.
            turn_ids: The turns.
            with_output: Read their values, too, which may have a megabyte each.
        """
        query = {"tenant_id": tenant_id, "turn_id": {"$in": list(turn_ids)}, "ended": True}
        fields = _END_WITH_OUTPUT if with_output else _END
        return {each["turn_id"]: _end_from_document(each) for each in await self._chunks.find(query, fields=fields)}

    async def insert_tombstone(
        self, tenant_id: str, turn_id: str, *, expire_time: datetime, outbox: EndedTurn | None = None
    ) -> None:
        """Close the log of a deleted turn, so that later writes of its server collide and store nothing.

        The last chunk remains, without its events: its server inserts it again if the answer was lost.

        Args:
            tenant_id: The tenant.
            turn_id: The turn.
            expire_time: When the tombstone expires.
            outbox: The end of which webhooks are to be notified, if the log has none; None: no webhook is.
        """
        while True:
            stored = await self.read(tenant_id, turn_id, after=-1)
            if stored and stored[-1].ended:
                return
            if stored:
                await self._chunks.update_one({"_id": _key(turn_id, stored[-1].index)}, _EMPTIED)
            tombstone = Chunk(
                turn_id=turn_id,
                tenant_id=tenant_id,
                index=stored[-1].index + 1 if stored else 0,
                first=RECOVERY_SEQUENCE + 1,
                events=(),
                ended=True,
                error=TurnNotFound("There is no such turn.", metadata={"turn_id": turn_id}),
                writer=_DELETION,
                expire_time=expire_time,
                outbox=outbox,
            )
            if await self.close(tombstone):
                return

    async def extend(self, tenant_id: str, turn_ids: Sequence[str], *, expire_time: datetime) -> None:
        """Retain the logs of turns until a time, if they would expire before."""
        for query in _logs(tenant_id, turn_ids):
            earlier = {**query, "expire_time": {"$lt": expire_time}}
            await self._chunks.update_many(earlier, {"$set": {"expire_time": expire_time}})

    async def delete(self, tenant_id: str, turn_ids: Sequence[str]) -> None:
        """Delete the logs of turns, but not their tombstones; a last chunk becomes one, as it may be inserted again."""
        for query in _logs(tenant_id, turn_ids):
            await self._chunks.update_many({**query, "ended": True, "writer": {"$ne": _DELETION}}, _EMPTIED)
            await self._chunks.delete_many({**query, "writer": {"$ne": _DELETION}})

    async def some_ended(self, tenant_id: str) -> list[str]:
        """Return the ids of some turns of a tenant whose logs have ended; none if there are no more."""
        found = await self._chunks.find(
            {"tenant_id": tenant_id, "ended": True}, fields={"turn_id": 1}, limit=_MAX_TURNS
        )
        return [each["turn_id"] for each in found]

    async def erase(self, tenant_id: str, turn_ids: Sequence[str]) -> None:
        """Delete the logs of turns with their tombstones."""
        for query in _logs(tenant_id, turn_ids):
            await self._chunks.delete_many(query)


def _logs(tenant_id: str, turn_ids: Sequence[str]) -> Iterator[Document]:
    """Yield queries for the logs of turns, by the ranges of their keys."""
    for start in range(0, len(turn_ids), _MAX_TURNS):
        ranges = [{"_id": {"$gt": f"{each}/", "$lt": f"{each}0"}} for each in turn_ids[start : start + _MAX_TURNS]]
        yield {"tenant_id": tenant_id, "$or": ranges}


def _key(turn_id: str, index: int) -> str:
    return f"{turn_id}/{index:08d}"  # "0" follows "/", which gives the range of a turn's keys


def _to_document(chunk: Chunk) -> Document:
    return {
        "_id": _key(chunk.turn_id, chunk.index),
        "turn_id": chunk.turn_id,
        "tenant_id": chunk.tenant_id,
        "place": chunk.index,
        "first": chunk.first,
        "events": [event_to_document(event) for event in chunk.events],
        "ended": chunk.ended,
        "error": error_to_document(chunk.error) if chunk.error is not None else None,
        "writer": chunk.writer,
        "expire_time": chunk.expire_time,
        "times": [number for each in chunk.times for number in each],
        **({"end_time": chunk.end_time} if chunk.end_time is not None else {}),
        **({"outbox": chunk.outbox.to_document()} if chunk.outbox is not None else {}),
    }


def _end_from_document(document: Document) -> LogEnd:
    error, stop = document.get("error"), document.get("stop")
    return LogEnd(
        stop_reason=stop_reason_of(stop) if stop is not None and not error else None,
        error_reason=error["reason"] if error else None,
        time=document.get("end_time"),
        output_json=document.get("output") if not error else None,
    )


def _from_document(document: Document) -> Chunk:
    error, times = document["error"], document.get("times", [])
    return Chunk(
        turn_id=document["turn_id"],
        tenant_id=document["tenant_id"],
        index=document["place"],
        first=document["first"],
        events=tuple(event_from_document(each) for each in document["events"]),
        ended=document["ended"],
        error=error_from_document(error) if error else None,
        writer=document["writer"],
        expire_time=document["expire_time"],
        times=tuple(zip(times[::2], times[1::2], strict=True)),
        end_time=document.get("end_time"),
    )
