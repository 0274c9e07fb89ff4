"""The ledger's entries as the usage books see them: which of them are taken up, and when they became known.

`ledger.py` owns the entries. It marks each as `unbooked`: "open" while it is pending, "left" when a pending call is
left to reconciliation and its served model is known, "final" once it is final. The books write nothing else of an entry
than this mark and, beside it:

- `unbooked`: "noted" once an answer has counted a pending call; removed once a final entry is in the roll-ups.
- `time_repair`: what its times were, and the evidence for those that a repair put in their place.
- `opens_turn`: its turn counts with this call (`turn_openers.py`); `opens_time`: from when on, where that came later.
- `listed`: under which model and provider a pending call is listed, and from when on, once it is known who served it.
- `opened_time`, `known_time`: when the books knew of the call, and of its end, where that is not `start_time` and
  `settle_time` (or an adjustment's `time`): later, as an answer that names an earlier time must not change any more;
  or earlier, as a time after that of the batch was written by a wrong clock.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from godoty_service.metering.call import Adjustment, Entry, ModelCall
from godoty_service.metering.documents import entry_from_document
from godoty_service.metering.entry_times import REPAIRED, Repair
from godoty_service.metering.turn_openers import FIELDS, Moved
from godoty_service.metering.usage_window import TICK, Window
from godoty_service.mongo import Collection, Document, Snapshot
from godoty_service.pieces import in_pieces

_PAGE = 500
_AS_INDEXED = [("unbooked", 1), ("tenant_id", 1), ("start_time", 1)]
# What is in no sum, and takes half the time of reading an entry.
_UNUSED = dict.fromkeys(
    (
        *("evidence", "catalogue_cost", "upstream_cost", "is_byok", "cost_source", "fallback_models", "generation_id"),
        "served_slug",
        *("time_to_first_token", "duration", "attempt", "finish_reason", "error", "error_code"),
    ),
    0,
)
_KNOWN = ("known_time", "opened_time", "opens_time", "listed.time")  # what the books date
_PENDING = ("open", "left")  # marks of pending calls that are to be noted


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """An entry with its marks."""

    entry: Entry
    booked: bool
    opens_turn: bool
    opens_time: datetime | None
    known: datetime


class Waiting(NamedTuple):
    """An entry that the books have not taken: its id, its `unbooked` mark, and its turn; an adjustment has none."""

    entry_id: str
    mark: str
    turn_id: str | None


class UsageEntries:
    """Entries by tenant, booked and not."""

    def __init__(self, collection: Collection) -> None:
        self._entries = collection

    async def waiting(
        self, tenant_id: str, *, unseen: bool, limit: int, until: datetime | None = None
    ) -> list[Waiting]:
        """Return entries that are final and not in the roll-ups, and pending calls that no answer has counted.

        Args:
            tenant_id: Whose.
            unseen: Whether these calls are wanted.
            limit: How many entries, of both.
            until: The latest that one may have started; None: any time.
        """
        query: Document = {"unbooked": {"$in": _marks(unseen=unseen)}, "tenant_id": tenant_id}
        if until is not None:
            query["start_time"] = {"$lte": until}
        # Sorted as the index is: no other will do.
        fields = {"unbooked": 1, "turn_id": 1, "kind": 1}
        found = await self._entries.find(query, sort=_AS_INDEXED, limit=limit, fields=fields)
        return [
            Waiting(each["_id"], each["unbooked"], each["turn_id"] if each["kind"] == "call" else None)
            for each in found
        ]

    async def newest_waiting(self, tenant_id: str, *, unseen: bool) -> datetime | None:
        """Tell when the last of those entries started; None: there are none."""
        found = [
            await self._entries.find_one(
                {"unbooked": mark, "tenant_id": tenant_id},
                sort=[(field, -1) for field, _ in _AS_INDEXED],
                fields={"start_time": 1},
            )
            for mark in _marks(unseen=unseen)
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

    async def time_of(self, tenant_id: str, start: datetime, *, after: int) -> datetime | None:
        """Return the time of the entry that comes after so many others from a time on; None: none does."""
        which = {"tenant_id": tenant_id, "start_time": {"$gte": start}}
        found = await self._entries.aggregate([{"$match": which}, *nth(after, by="start_time")])
        return found[0]["start_time"] if found else None

    async def by_time(self, tenant_id: str, start: datetime, end: datetime) -> AsyncIterator[list[Marked]]:
        """Read the entries of a time with their marks, some at a time."""
        page: list[Marked] = []
        query = {"tenant_id": tenant_id, "start_time": {"$gte": start, "$lt": end}}
        async for each in self._entries.iterate(query, sort=[("start_time", 1)], fields=_UNUSED):
            page.append(_marked(each))
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    async def marked(self, tenant_id: str, entry_ids: Iterable[str]) -> list[Marked]:
        """Read entries with their marks."""
        query = {"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}}
        return [_marked(each) for each in await self._entries.find(query, fields=_UNUSED)]

    async def read(self, tenant_id: str, entry_ids: Sequence[str]) -> list[Entry]:
        """Read what is summed up of entries."""
        found = await self._entries.find({"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}}, fields=_UNUSED)
        return [entry_from_document(each) async for some in in_pieces(found) for each in some]

    async def opening(self, tenant_id: str, entries: Sequence[Entry]) -> set[str]:
        """Return which of some entries are the first call of their turn, for a batch that an earlier build began."""
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

    async def turn_calls(self, tenant_id: str, turn_ids: Iterable[str | None]) -> list[Document]:
        """Return all calls of some turns, as `turn_openers` takes them."""
        which = {"$in": sorted({each for each in turn_ids if each is not None})}
        return await self._entries.find({"turn_id": which, "tenant_id": tenant_id, "kind": "call"}, fields=FIELDS)

    async def move(self, tenant_id: str, moved: Sequence[Moved]) -> None:
        """Mark calls that were taken before as those that their turns count with. Doing it twice does nothing twice."""
        await self._entries.update_each(
            [
                (
                    {"_id": each.entry_id, "tenant_id": tenant_id, "opens_turn": None},
                    {"$set": {"opens_turn": True, "opens_time": each.time}},
                )
                for each in moved
            ]
        )

    async def note_served(self, tenant_id: str, entry_ids: Sequence[str], *, window: Window) -> None:
        """Mark pending calls as listed under the models that served them. They may be final by now."""
        listed = {
            "time": _dated("$start_time", window),
            "model": {"$ifNull": ["$served_model", "$requested_id", "$requested_model"]},
            "provider": {"$ifNull": ["$provider", ""]},
        }
        await self._entries.update_many(
            _which(tenant_id, entry_ids, {"unbooked": {"$in": ["left", "final"]}}),
            [
                {
                    "$set": {
                        "unbooked": {"$cond": [{"$eq": ["$unbooked", "left"]}, "noted", "$unbooked"]},
                        "listed": {"$ifNull": ["$listed", listed]},
                    }
                }
            ],
        )

    async def note(self, tenant_id: str, entry_ids: Sequence[str], *, window: Window, opening: set[str]) -> None:
        """Mark pending calls as seen. They may be left or final by now: then they are seen all the same."""
        await self._entries.update_many(
            _which(tenant_id, entry_ids, {"unbooked": {"$in": [*_PENDING, "final"]}, "opened_time": None}),
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

    async def repair(self, tenant_id: str, repairs: Sequence[Repair], *, known: datetime) -> None:
        """Set new times. To answers of before an entry that is taken up stays as it was: it is known from now on.

        Args:
            tenant_id: Whose entries they are.
            repairs: The new times.
            known: When the books know of them.
        """
        await self._entries.update_each(
            [
                (
                    {"_id": each.entry_id, "tenant_id": tenant_id},
                    [{"$set": {**each.times, **_repaired(each, known), REPAIRED: _record(each, known)}}],
                )
                for each in repairs
            ]
        )

    async def known_from(self, tenant_id: str, time: datetime) -> set[datetime]:
        """Return the days of the entries that the books know since a time or later, that time instead of later ones."""
        late: Document = {"$or": [{field: {"$gte": time}} for field in _KNOWN]}
        day = {"$dateTrunc": {"date": "$start_time", "unit": "day"}}
        found = await self._entries.aggregate([{"$match": {"tenant_id": tenant_id, **late}}, {"$group": {"_id": day}}])
        for field in _KNOWN:
            await self._entries.update_many({"tenant_id": tenant_id, field: {"$gt": time}}, {"$set": {field: time}})
        return {each["_id"] for each in found}

    async def count(self, tenant_id: str, start: datetime, end: datetime, *, limit: int, piece: int) -> int:
        """Count the entries of a time until they are more than a limit, at most so many in one operation.

        Entries of one moment at the end of a piece may count as one.
        """
        counted = 0
        while True:
            which: Document = {"tenant_id": tenant_id, "start_time": {"$gte": start, "$lt": end}}
            found = await self._entries.aggregate([{"$match": which}, *nth(piece, by="start_time")])
            if not found:
                return counted + await self._entries.count(which, limit=piece)
            counted += piece
            if counted > limit:
                return counted
            start = max(found[0]["start_time"], start + TICK)

    async def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """Sum entries."""
        return await self._entries.aggregate(pipeline)

    def at(self, snapshot: Snapshot) -> "UsageEntries":
        """The same at a moment."""
        return UsageEntries(self._entries.at(snapshot))


def nth(number: int, *, by: str) -> list[Document]:
    """Return the stages that leave the one match after so many others, in the order of an indexed field."""
    return [{"$sort": {by: 1}}, {"$skip": number}, {"$limit": 1}, {"$project": {"_id": 0, by: 1}}]


def opened_time(call: ModelCall, window: Window) -> datetime:
    """When the books know of a pending call that is noted in a window."""
    return window.clamp(call.start_time)


def known_time(entry: Entry, window: Window) -> datetime:
    """When the books know of an entry's end that is taken up in a window."""
    time = entry.time if isinstance(entry, Adjustment) else entry.settle_time or entry.start_time
    return window.clamp(time)


def known_by(closed: datetime) -> Document:
    """Match the entries that the books knew when they were closed through a time: a set that never changes.

    Closing takes up all entries that are there. One that is inserted later is not taken up, then dated after `closed`.
    """
    started = {"opened_time": None, "unbooked": None, "start_time": {"$lte": closed}}
    call = {"kind": "call", "$or": [{"opened_time": {"$lte": closed}}, started]}
    made = [{"known_time": {"$lte": closed}}, {"known_time": None, "time": {"$lte": closed}}]
    return {"$or": [call, {"kind": "adjustment", "unbooked": None, "$or": made}]}


def entry_id(entry: Entry) -> str:
    """An entry's primary key."""
    return entry.entry_id if isinstance(entry, Adjustment) else entry.call_id


def start_time(entry: Entry) -> datetime:
    """The time that an entry belongs to."""
    return entry.start_time


def _marked(document: Document) -> Marked:
    entry = entry_from_document(document)
    return Marked(
        entry=entry,
        booked="unbooked" not in document,
        opens_turn=document.get("opens_turn", False),
        opens_time=document.get("opens_time"),
        known=document.get("known_time") or known_time(entry, Window()),
    )


def _repaired(repair: Repair, known: datetime) -> Document:
    """Express when the books know of a repaired entry, where they have taken it up."""
    booked = {"$eq": [{"$type": "$unbooked"}, "missing"]}
    kept = {"$cond": [{"$lte": ["$known_time", known]}, {"$ifNull": ["$known_time", known]}, known]}
    fields: Document = {"known_time": known if repair.moves else kept}
    if repair.moves:
        opened = {"$or": [booked, {"$ne": [{"$type": "$opened_time"}, "missing"]}]}
        fields["opened_time"] = {"$cond": [{"$and": [{"$eq": ["$kind", "call"]}, opened]}, known, "$$REMOVE"]}
    return {**fields, "known_time": {"$cond": [booked, fields["known_time"], {"$ifNull": ["$known_time", "$$REMOVE"]}]}}


def _record(repair: Repair, known: datetime) -> Document:
    return {"time": known, "before": repair.before, "evidence": repair.evidence, "unfinished": True}


_SETTLED = {"$ifNull": ["$settle_time", "$time", "$start_time"]}


def _marks(*, unseen: bool) -> list[str]:
    return ["final", *(_PENDING if unseen else ())]


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
    return {"$cond": [{"$in": ["$_id", sorted(opening)]}, True, {"$ifNull": ["$opens_turn", "$$REMOVE"]}]}
