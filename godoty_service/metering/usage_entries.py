"""The ledger's entries as the usage books see them: which of them are taken up, and when they became known.

`ledger.py` owns the entries. It marks each as `unbooked`: "open" while it is pending, "final" from then on. The books
write nothing else of an entry than this mark and, beside it:

- `unbooked`: "noted" once an answer has counted a pending call; removed once a final entry is in the roll-ups.
- `opens_turn`: the entry is the first call of its turn.
- `opened_time`, `known_time`: when the books knew of the call, and of its end, where that is not `start_time` and
  `settle_time` (or an adjustment's `time`): later, as an answer that names an earlier time must not change any more;
  or earlier, as a time after that of the batch was written by a wrong clock.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from godoty_service.metering.call import Adjustment, Entry, ModelCall
from godoty_service.metering.documents import entry_from_document
from godoty_service.mongo import Collection, Document, Snapshot
from godoty_service.pieces import in_pieces

_PAGE = 500
_AS_INDEXED = [("unbooked", 1), ("tenant_id", 1), ("start_time", 1)]
# What is in no sum, and takes half the time of reading an entry.
_UNUSED = dict.fromkeys(
    (
        *("evidence", "catalogue_cost", "upstream_cost", "is_byok", "cost_source", "fallback_models", "generation_id"),
        *("time_to_first_token", "duration", "attempt", "finish_reason", "error"),
    ),
    0,
)
TICK = timedelta(milliseconds=1)  # the precision of the times that MongoDB keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When the books can know of what a batch takes up.

    Attributes:
        closed: After this time: answers up to it do not change any more; None: there was none.
        end: Not after this time, the database's when the batch was opened; None: not known.
    """

    closed: datetime | None = None
    end: datetime | None = None

    def clamp(self, time: datetime) -> datetime:
        """Return the time within the window that is nearest to another."""
        time = time if self.end is None else min(time, self.end)
        return time if self.closed is None else max(time, self.closed + TICK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """An entry with its marks."""

    entry: Entry
    booked: bool
    opens_turn: bool
    known: datetime


class UsageEntries:
    """Entries by tenant, booked and not."""

    def __init__(self, collection: Collection) -> None:
        self._entries = collection

    async def waiting(
        self, tenant_id: str, *, unseen: bool, limit: int, until: datetime | None = None
    ) -> tuple[list[str], list[str]]:
        """Tell entries that are final and not in the roll-ups, and pending calls that no answer has counted.

        Args:
            tenant_id: Whose.
            unseen: Whether these calls are wanted.
            limit: How many entries, of both.
            until: The latest that one may have started; None: any time.
        """
        query: Document = {"unbooked": {"$in": ["final", "open"] if unseen else ["final"]}, "tenant_id": tenant_id}
        if until is not None:
            query["start_time"] = {"$lte": until}
        # Sorted as the index is: no other will do.
        found = await self._entries.find(query, sort=_AS_INDEXED, limit=limit, fields={"unbooked": 1})
        final, still_open = ([each["_id"] for each in found if each["unbooked"] == mark] for mark in ("final", "open"))
        return final, still_open

    async def newest_waiting(self, tenant_id: str, *, unseen: bool) -> datetime | None:
        """Tell when the last of those entries started; None: there are none."""
        found = [
            await self._entries.find_one(
                {"unbooked": mark, "tenant_id": tenant_id},
                sort=[(field, -1) for field, _ in _AS_INDEXED],
                fields={"start_time": 1},
            )
            for mark in (["final", "open"] if unseen else ["final"])
        ]
        return max((each["start_time"] for each in found if each), default=None)

    async def next_tenant(self, after: str) -> str | None:
        """Tell the next tenant, by id, that has entries to take up."""
        found = await self._entries.find_one(
            {"unbooked": "final", "tenant_id": {"$gt": after}},
            sort=[("unbooked", 1), ("tenant_id", 1)],
            fields={"tenant_id": 1},
        )
        return str(found["tenant_id"]) if found else None

    async def tenant_after(self, tenant_id: str) -> str | None:
        """Tell the next tenant, by id, that has entries."""
        found = await self._entries.find_one(
            {"tenant_id": {"$gt": tenant_id}}, sort=[("tenant_id", 1)], fields={"tenant_id": 1}
        )
        return found["tenant_id"] if found else None

    async def first_time(self, tenant_id: str, start: datetime) -> datetime | None:
        """Tell the time of a tenant's first entry from a time on."""
        found = await self._entries.find_one(
            {"tenant_id": tenant_id, "start_time": {"$gte": start}}, sort=[("start_time", 1)], fields={"start_time": 1}
        )
        return found["start_time"] if found else None

    async def by_time(self, tenant_id: str, start: datetime, end: datetime) -> AsyncIterator[list[Marked]]:
        """Read the entries of a time with their marks, some at a time."""
        page: list[Marked] = []
        query = {"tenant_id": tenant_id, "start_time": {"$gte": start, "$lt": end}}
        async for each in self._entries.iterate(query, sort=[("start_time", 1)]):
            page.append(_marked(each))
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    async def read(self, tenant_id: str, entry_ids: Sequence[str]) -> list[Entry]:
        """Read what is summed up of entries."""
        found = await self._entries.find({"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}}, fields=_UNUSED)
        return [entry_from_document(each) async for some in in_pieces(found) for each in some]

    async def opening(self, tenant_id: str, entries: Sequence[Entry]) -> set[str]:
        """Tell which of some entries are the first call of their turn.

        Numbers have no gaps: where an entry is, all that come before it are, so the answer never changes.
        """
        calls = [entry for entry in entries if isinstance(entry, ModelCall)]
        found = await self._entries.aggregate(
            [
                {
                    "$match": {
                        "turn_id": {"$in": sorted({call.turn_id for call in calls})},
                        "tenant_id": tenant_id,
                        "kind": "call",
                    }
                },
                {
                    "$group": {
                        "_id": {"session": "$session_uid", "turn": "$turn_id"},
                        "first": {"$min": "$number"},
                    }
                },
            ]
        )
        first = {(each["_id"]["session"], each["_id"]["turn"]): each["first"] for each in found}
        return {call.call_id for call in calls if first.get((call.session_uid, call.turn_id)) == call.number}

    async def note(self, tenant_id: str, entry_ids: Sequence[str], *, window: Window, opening: set[str]) -> None:
        """Mark pending calls as seen. They may be final by now: then they are seen all the same."""
        await self._entries.update_many(
            _which(tenant_id, entry_ids, {"unbooked": {"$in": ["open", "final"]}, "opened_time": None}),
            [
                {
                    "$set": {
                        "unbooked": {"$cond": [{"$eq": ["$unbooked", "open"]}, "noted", "$unbooked"]},
                        "opened_time": _dated("$start_time", window),
                        "opens_turn": _opens_turn(opening),
                    }
                }
            ],
        )

    async def book(self, tenant_id: str, entry_ids: Sequence[str], *, window: Window, opening: set[str]) -> None:
        """Mark final entries as taken up."""
        await self._entries.update_many(
            _which(tenant_id, entry_ids, {"unbooked": "final"}),
            [
                {"$set": {"opens_turn": _opens_turn(opening), **_redated(window)}},
                {"$unset": "unbooked"},
            ],
        )

    async def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """Sum entries."""
        return await self._entries.aggregate(pipeline)

    def at(self, snapshot: Snapshot) -> "UsageEntries":
        """The same at a moment."""
        return UsageEntries(self._entries.at(snapshot))


def opened_time(call: ModelCall, window: Window) -> datetime:
    """When the books know of a pending call that is noted in a window."""
    return window.clamp(call.start_time)


def known_time(entry: Entry, window: Window) -> datetime:
    """When the books know of an entry's end that is taken up in a window."""
    time = entry.time if isinstance(entry, Adjustment) else entry.settle_time or entry.start_time
    return window.clamp(time)


def entry_id(entry: Entry) -> str:
    """An entry's primary key."""
    return entry.entry_id if isinstance(entry, Adjustment) else entry.call_id


def start_time(entry: Entry) -> datetime:
    """The time that an entry belongs to."""
    return (entry.call_time or entry.time) if isinstance(entry, Adjustment) else entry.start_time


def _marked(document: Document) -> Marked:
    entry = entry_from_document(document)
    return Marked(
        entry=entry,
        booked="unbooked" not in document,
        opens_turn=document.get("opens_turn", False),
        known=document.get("known_time") or known_time(entry, Window()),
    )


_SETTLED = {"$ifNull": ["$settle_time", "$time", "$start_time"]}


def _which(tenant_id: str, entry_ids: Sequence[str], state: Document) -> Document:
    return {"_id": {"$in": list(entry_ids)}, "tenant_id": tenant_id, **state}


def _redated(window: Window) -> Document:
    """When the books know of what they should have known of before an answer, or of what is dated in the future."""
    opened = {"$cond": [{"$eq": ["$kind", "call"]}, _where_changed("$start_time", window), "$$REMOVE"]}
    return {
        "opened_time": {"$ifNull": ["$opened_time", opened]},
        "known_time": _where_changed(_SETTLED, window),
    }


def _where_changed(time: Any, window: Window) -> Document:
    dated = _dated(time, window)
    return {"$cond": [{"$eq": [dated, time]}, "$$REMOVE", dated]}


def _dated(time: Any, window: Window) -> Any:
    """Express `Window.clamp`."""
    time = time if window.end is None else {"$min": [time, window.end]}
    return time if window.closed is None else {"$max": [time, window.closed + TICK]}


def _opens_turn(opening: set[str]) -> Document:
    return {"$cond": [{"$in": ["$_id", sorted(opening)]}, True, "$$REMOVE"]}
