"""The ledger's entries as the roll-ups read them: which are rolled up, and from when on reports count them.

The ledger owns the collection. It sets `rollup_state` of each entry: "pending" while the call is pending, "deferred"
once a pending call is deferred to reconciliation and its served model is known, "ready" once the entry is final. The
roll-up job writes only these fields of an entry:

- `rollup_state`: "counted" once a report has counted a pending call; removed once a final entry is rolled up.
- `time_repair`: the times that a repair replaced, and its evidence.
- `opens_turn`: the turn is counted with this call (`turn_openers.py`); `opens_time`: since when, if that came later.
- `listed`: the model and provider under which a pending call is listed, and since when, once the server is known.
- `visible_from`, `final_from`: from when on reports count the call, and its end, if that is not `start_time` and
  `settle_time` (or an adjustment's `time`): later, because a report of an earlier time must not change any more, or
  earlier, because a wrong clock wrote a time after the batch's.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.ledger.codec import entry_from_document
from godoty_service.ledger.entries import Adjustment, Entry, ModelCall
from godoty_service.ledger.entry_times import REPAIRED, Repair
from godoty_service.mongo.collection import Collection, Document, Snapshot
from godoty_service.usage.turn_openers import FIELDS, MovedTurn
from godoty_service.usage.window import TICK, Window

_PAGE = 500  # entries
_INDEX_ORDER = [("rollup_state", 1), ("tenant_id", 1), ("start_time", 1)]
# Fields that no sum needs: reading an entry without them takes half the time.
_UNUSED = dict.fromkeys(
    (
        *("evidence", "catalogue_cost", "upstream_cost", "is_byok", "cost_source", "fallback_models", "generation_id"),
        *("served_slug", "tool_fees", "purpose", "api_key_id", "user", "user_reference"),
        *("time_to_first_token", "duration", "attempt", "finish_reason", "error", "error_code"),
    ),
    0,
)
_VISIBILITY_FIELDS = ("final_from", "visible_from", "opens_time", "listed.time")
_PENDING_STATES = ("pending", "deferred")  # of pending calls that no report has counted
_SETTLED = {"$ifNull": ["$settle_time", "$time", "$start_time"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryWithState:
    """An entry with its roll-up fields; `final_from` is filled in if the entry does not have it."""

    entry: Entry
    rolled_up: bool
    opens_turn: bool
    opens_time: datetime | None
    final_from: datetime


class QueuedEntry(NamedTuple):
    """An entry that awaits roll-up; `turn_id` is None for an adjustment."""

    entry_id: str
    rollup_state: str
    turn_id: str | None


class UsageEntries:
    """Reads entries for roll-ups and reports, and writes their roll-up fields."""

    def __init__(self, collection: Collection) -> None:
        self._entries = collection

    async def queued(
        self, tenant_id: str, *, include_pending: bool, limit: int, until: datetime | None = None
    ) -> list[QueuedEntry]:
        """Return final entries that are not rolled up.

        Args:
            tenant_id: The tenant.
            include_pending: Also return pending calls that no report has counted.
            limit: The most entries, of both kinds.
            until: The latest start time; None: any.
        """
        query: Document = {
            "rollup_state": {"$in": _queued_states(include_pending=include_pending)},
            "tenant_id": tenant_id,
        }
        if until is not None:
            query["start_time"] = {"$lte": until}
        # The sort must match the index: the database cannot serve another one from it.
        fields = {"rollup_state": 1, "turn_id": 1, "kind": 1}
        found = await self._entries.find(query, sort=_INDEX_ORDER, limit=limit, fields=fields)
        return [
            QueuedEntry(each["_id"], each["rollup_state"], each["turn_id"] if each["kind"] == "call" else None)
            for each in found
        ]

    async def newest_queued_time(self, tenant_id: str, *, include_pending: bool) -> datetime | None:
        """Return the latest start time of the queued entries; None: there are none."""
        found = [
            await self._entries.find_one(
                {"rollup_state": rollup_state, "tenant_id": tenant_id},
                sort=[(field, -1) for field, _ in _INDEX_ORDER],
                fields={"start_time": 1},
            )
            for rollup_state in _queued_states(include_pending=include_pending)
        ]
        return max((each["start_time"] for each in found if each), default=None)

    async def next_queued_tenant(self, after: str) -> str | None:
        """Return the next tenant, by id, that has final entries to roll up."""
        found = await self._entries.find_one(
            {"rollup_state": "ready", "tenant_id": {"$gt": after}},
            sort=[("rollup_state", 1), ("tenant_id", 1)],
            fields={"tenant_id": 1},
        )
        return str(found["tenant_id"]) if found else None

    async def tenant_after(self, tenant_id: str) -> str | None:
        """Return the next tenant, by id, that has entries."""
        found = await self._entries.find_one(
            {"tenant_id": {"$gt": tenant_id}}, sort=[("tenant_id", 1)], fields={"tenant_id": 1}
        )
        return found["tenant_id"] if found else None

    async def first_time(self, tenant_id: str, start: datetime) -> datetime | None:
        """Return the start time of a tenant's first entry at or after `start`."""
        found = await self._entries.find_one(
            {"tenant_id": tenant_id, "start_time": {"$gte": start}}, sort=[("start_time", 1)], fields={"start_time": 1}
        )
        return found["start_time"] if found else None

    async def nth_time(self, tenant_id: str, start: datetime, *, after: int) -> datetime | None:
        """Return the start time of the entry that follows the first `after` entries from `start` on, or None."""
        query = {"tenant_id": tenant_id, "start_time": {"$gte": start}}
        found = await self._entries.aggregate([{"$match": query}, *nth_stages(after, by="start_time")])
        return found[0]["start_time"] if found else None

    async def iterate_by_time(
        self, tenant_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[list[EntryWithState]]:
        """Yield the entries of a time range with their roll-up fields, page by page."""
        page: list[EntryWithState] = []
        query = {"tenant_id": tenant_id, "start_time": {"$gte": start, "$lt": end}}
        async for each in self._entries.iterate(query, sort=[("start_time", 1)], fields=_UNUSED):
            page.append(_entry_with_state(each))
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    async def read_with_state(self, tenant_id: str, entry_ids: Iterable[str]) -> list[EntryWithState]:
        """Return entries with their roll-up fields."""
        query = {"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}}
        return [_entry_with_state(each) for each in await self._entries.find(query, fields=_UNUSED)]

    async def read(self, tenant_id: str, entry_ids: Sequence[str]) -> list[Entry]:
        """Return entries with the fields that are summed."""
        found = await self._entries.find({"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}}, fields=_UNUSED)
        return [entry_from_document(each) async for some in yielding_batches(found) for each in some]

    async def first_calls(self, tenant_id: str, entries: Sequence[Entry]) -> set[str]:
        """Return which of the entries are the first call of their turn; for a batch of an earlier version."""
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
        """Return all calls of some turns, with the fields that `turn_openers` reads."""
        ids = {"$in": sorted({each for each in turn_ids if each is not None})}
        return await self._entries.find({"turn_id": ids, "tenant_id": tenant_id, "kind": "call"}, fields=FIELDS)

    async def move_turns(self, tenant_id: str, moved_turns: Sequence[MovedTurn]) -> None:
        """Mark calls of earlier batches as those with which their turns are counted; idempotent."""
        await self._entries.update_each(
            [
                (
                    {"_id": each.entry_id, "tenant_id": tenant_id, "opens_turn": None},
                    {"$set": {"opens_turn": True, "opens_time": each.time}},
                )
                for each in moved_turns
            ]
        )

    async def mark_listed(self, tenant_id: str, entry_ids: Sequence[str], *, window: Window) -> None:
        """Mark pending calls as listed under the models that served them; they may be final by now."""
        listed = {
            "time": _clamped("$start_time", window),
            "model": {"$ifNull": ["$served_model", "$requested_id", "$requested_model"]},
            "provider": {"$ifNull": ["$provider", ""]},
        }
        counted = {"$cond": [{"$eq": ["$rollup_state", "deferred"]}, "counted", "$rollup_state"]}
        await self._entries.update_many(
            _query(tenant_id, entry_ids, {"rollup_state": {"$in": ["deferred", "ready"]}}),
            [{"$set": {"rollup_state": counted, "listed": {"$ifNull": ["$listed", listed]}}}],
        )

    async def mark_counted(
        self, tenant_id: str, entry_ids: Sequence[str], *, window: Window, turn_openers: set[str]
    ) -> None:
        """Mark pending calls as counted by a report, even if they are deferred or final by now."""
        counted = {"$cond": [{"$eq": ["$rollup_state", "pending"]}, "counted", "$rollup_state"]}
        await self._entries.update_many(
            _query(tenant_id, entry_ids, {"rollup_state": {"$in": [*_PENDING_STATES, "ready"]}, "visible_from": None}),
            [
                {
                    "$set": {
                        "rollup_state": counted,
                        "visible_from": _clamped("$start_time", window),
                        "opens_turn": _opens_turn(turn_openers),
                    }
                }
            ],
        )

    async def mark_rolled_up(
        self, tenant_id: str, entry_ids: Sequence[str], *, window: Window, turn_openers: set[str]
    ) -> None:
        """Mark final entries as rolled up."""
        await self._entries.update_many(
            _query(tenant_id, entry_ids, {"rollup_state": "ready"}),
            [
                {"$set": {"opens_turn": _opens_turn(turn_openers), **_visibility(window)}},
                {"$unset": "rollup_state"},
            ],
        )

    async def apply_repairs(self, tenant_id: str, repairs: Sequence[Repair], *, visible_from: datetime) -> None:
        """Set new times of entries; a rolled-up entry becomes visible anew, so that earlier reports do not change.

        Args:
            tenant_id: The tenant.
            repairs: The new times.
            visible_from: When reports see the repaired entries.
        """
        await self._entries.update_each(
            [
                (
                    {"_id": each.entry_id, "tenant_id": tenant_id},
                    [{"$set": {**each.times, **_repaired(each, visible_from), REPAIRED: _record(each, visible_from)}}],
                )
                for each in repairs
            ]
        )

    async def cap_visibility(self, tenant_id: str, time: datetime) -> set[datetime]:
        """Set visibility times after `time` to `time`; return the days of the entries visible from then or later."""
        late: Document = {"$or": [{field: {"$gte": time}} for field in _VISIBILITY_FIELDS]}
        day = {"$dateTrunc": {"date": "$start_time", "unit": "day"}}
        found = await self._entries.aggregate([{"$match": {"tenant_id": tenant_id, **late}}, {"$group": {"_id": day}}])
        for field in _VISIBILITY_FIELDS:
            await self._entries.update_many({"tenant_id": tenant_id, field: {"$gt": time}}, {"$set": {field: time}})
        return {each["_id"] for each in found}

    async def count(self, tenant_id: str, start: datetime, end: datetime, *, limit: int, piece: int) -> int:
        """Count the entries of a time range until the count exceeds `limit`, `piece` entries an operation.

        Entries with equal start times at the end of a piece may be counted as one.
        """
        counted = 0
        while True:
            query: Document = {"tenant_id": tenant_id, "start_time": {"$gte": start, "$lt": end}}
            found = await self._entries.aggregate([{"$match": query}, *nth_stages(piece, by="start_time")])
            if not found:
                return counted + await self._entries.count(query, limit=piece)
            counted += piece
            if counted > limit:
                return counted
            start = max(found[0]["start_time"], start + TICK)

    async def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """Run an aggregation over the entries."""
        return await self._entries.aggregate(pipeline)

    def read_at(self, snapshot: Snapshot) -> "UsageEntries":
        """Return a reader of the entries as of a snapshot."""
        return UsageEntries(self._entries.read_at(snapshot))


def nth_stages(number: int, *, by: str) -> list[Document]:
    """Return the stages that yield the match after the first `number`, in the order of an indexed field."""
    return [{"$sort": {by: 1}}, {"$skip": number}, {"$limit": 1}, {"$project": {"_id": 0, by: 1}}]


def visible_from(call: ModelCall, window: Window) -> datetime:
    """Return when a pending call becomes visible if a batch with this window counts it."""
    return window.clamp(call.start_time)


def final_from(entry: Entry, window: Window) -> datetime:
    """Return when the end of an entry becomes visible if a batch with this window rolls it up."""
    time = entry.time if isinstance(entry, Adjustment) else entry.settle_time or entry.start_time
    return window.clamp(time)


def visible_at(as_of: datetime) -> Document:
    """Return the query for the entries visible at `as_of`, once the watermark has reached it: a set that never changes.

    Advancing the watermark rolls up all entries that are there. An entry that is inserted later is not rolled up at
    first, then visible after `as_of`.
    """
    started = {"visible_from": None, "rollup_state": None, "start_time": {"$lte": as_of}}
    call = {"kind": "call", "$or": [{"visible_from": {"$lte": as_of}}, started]}
    made = [{"final_from": {"$lte": as_of}}, {"final_from": None, "time": {"$lte": as_of}}]
    return {"$or": [call, {"kind": "adjustment", "rollup_state": None, "$or": made}]}


def _entry_with_state(document: Document) -> EntryWithState:
    entry = entry_from_document(document)
    return EntryWithState(
        entry=entry,
        rolled_up="rollup_state" not in document,
        opens_turn=document.get("opens_turn", False),
        opens_time=document.get("opens_time"),
        final_from=document.get("final_from") or final_from(entry, Window()),
    )


def _repaired(repair: Repair, time: datetime) -> Document:
    """Express the visibility fields of a repaired entry, if it is rolled up or counted."""
    rolled_up = {"$eq": [{"$type": "$rollup_state"}, "missing"]}
    earlier = {"$cond": [{"$lte": ["$final_from", time]}, {"$ifNull": ["$final_from", time]}, time]}
    final = time if repair.moves else earlier
    fields: Document = {}
    if repair.moves:
        visible = {"$or": [rolled_up, {"$ne": [{"$type": "$visible_from"}, "missing"]}]}
        fields["visible_from"] = {"$cond": [{"$and": [{"$eq": ["$kind", "call"]}, visible]}, time, "$$REMOVE"]}
    return {**fields, "final_from": {"$cond": [rolled_up, final, {"$ifNull": ["$final_from", "$$REMOVE"]}]}}


def _record(repair: Repair, time: datetime) -> Document:
    return {"time": time, "before": repair.before, "evidence": repair.evidence, "unfinished": True}


def _queued_states(*, include_pending: bool) -> list[str]:
    return ["ready", *(_PENDING_STATES if include_pending else ())]


def _query(tenant_id: str, entry_ids: Sequence[str], state: Document) -> Document:
    return {"_id": {"$in": list(entry_ids)}, "tenant_id": tenant_id, **state}


def _visibility(window: Window) -> Document:
    """Express the visibility fields of an entry that is rolled up, if its own times are outside of the window."""
    visible = {"$cond": [{"$eq": ["$kind", "call"]}, _clamped_if_outside("$start_time", window), "$$REMOVE"]}
    return {
        "visible_from": {"$ifNull": ["$visible_from", visible]},
        "final_from": _clamped_if_outside(_SETTLED, window),
    }


def _clamped_if_outside(time: Any, window: Window) -> Document:
    clamped = _clamped(time, window)
    return {"$cond": [{"$eq": [clamped, time]}, "$$REMOVE", clamped]}


def _clamped(time: Any, window: Window) -> Any:
    """Express `Window.clamp`."""
    time = time if window.end is None else {"$min": [time, window.end]}
    return time if window.watermark is None else {"$max": [time, window.watermark + TICK]}


def _opens_turn(turn_openers: set[str]) -> Document:
    return {"$cond": [{"$in": ["$_id", sorted(turn_openers)]}, True, {"$ifNull": ["$opens_turn", "$$REMOVE"]}]}
