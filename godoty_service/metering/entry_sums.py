"""Sums a tenant's ledger entries by day, piece by piece: no operation takes longer where there are more entries.

Each entry is read once, so a call that closes meanwhile is either open or counted, never both and never neither. An
entry's `start_time` never changes: it is in one piece, whatever is written between two pieces.
"""

from collections.abc import Collection as Some
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.budget import BudgetWindow
from godoty_service.metering import money
from godoty_service.metering.call import CallState
from godoty_service.metering.charges import Held, Statement
from godoty_service.metering.ledger import BY_MARK, BY_TIME
from godoty_service.metering.states import counts
from godoty_service.metering.usage_window import TICK
from godoty_service.mongo import Collection, Document, Snapshot

PIECE = 5_000  # entries of one operation: about 40 ms of the database's time, ten times that under full load
_IDS = 1000  # ids of one operation
_NOT_SUMMED: Document = {"unbooked": {"$exists": False}}


@dataclass(slots=True)
class DaySums:
    """What entries count.

    Attributes:
        amounts: Of the closed calls and the adjustments, in US dollars by day ("2026-08-22").
        held: The open calls.
    """

    amounts: dict[str, Decimal] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)

    def add(self, day: str, amount: Decimal) -> None:
        """Add an amount to a day."""
        self.amounts[day] = money.add(self.amounts.get(day, money.ZERO), amount)

    def subtract(self, day: str, amount: Decimal) -> None:
        """Take an amount away from a day."""
        self.amounts[day] = money.subtract(self.amounts.get(day, money.ZERO), amount)

    def statement(self, at: datetime) -> Statement:
        """Sum the days by window, from the windows of a time on."""
        first = {window: window.key(at) for window in BudgetWindow}
        spent: dict[BudgetWindow, dict[str, Decimal]] = {window: {key: money.ZERO} for window, key in first.items()}
        for day, amount in self.amounts.items():
            for window, sums in spent.items():
                key = window.key(datetime.fromisoformat(day))
                if key >= first[window]:
                    sums[key] = money.add(sums.get(key, money.ZERO), amount)
        return Statement(first=first, spent=spent, held=tuple(self.held))


class EntrySums:
    """Sums by tenant and day."""

    def __init__(self, collection: Collection, *, piece: int = PIECE) -> None:
        """Build it.

        Args:
            collection: `ledger`.
            piece: How many entries one operation may read.
        """
        self._entries = collection
        self._piece = piece

    def at(self, snapshot: Snapshot) -> "EntrySums":
        """The same at a moment."""
        return EntrySums(self._entries.at(snapshot), piece=self._piece)

    async def add_entries(
        self,
        sums: DaySums,
        tenant_id: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        made_before: datetime | None = None,
    ) -> None:
        """Add all entries of a time, whether or not the roll-ups have them.

        Args:
            sums: Where they are added.
            tenant_id: Whose.
            start: Started at this time or later.
            end: Started before this time.
            made_before: Adjustments that were made later are left out.
        """
        await self._add(sums, {"tenant_id": tenant_id}, start, end, _made_before(made_before))

    async def add_unbooked(
        self, sums: DaySums, tenant_id: str, *, end: datetime, made_before: datetime, but: Sequence[str]
    ) -> None:
        """Add the entries that started before a time and are not marked as rolled up, but for some ids."""
        also = {"_id": {"$nin": list(but)}, **_made_before(made_before)}
        mark = await self._mark_after("")
        while mark is not None:
            await self._add(sums, {"unbooked": mark, "tenant_id": tenant_id}, None, end, also)
            mark = await self._mark_after(mark)

    async def add_calls(self, sums: DaySums, tenant_id: str, call_ids: Some[str]) -> None:
        """Add some calls, as they are now."""
        ids = sorted(call_ids)
        for place in range(0, len(ids), _IDS):
            for each in await self.of(tenant_id, ids[place : place + _IDS]):
                if each.get("state") == CallState.PENDING.value:
                    sums.held.append(_held(each["_id"], each))
                else:
                    sums.add(BudgetWindow.DAY.key(each["start_time"]), charge_in(each))

    async def of(self, tenant_id: str, entry_ids: Sequence[str]) -> list[Document]:
        """Read what is summed of some entries."""
        names = ("kind", "state", "cost", "upper_bound", "bound", "start_time", "time", "owner")
        query = {"_id": {"$in": list(entry_ids)}, "tenant_id": tenant_id}
        return await self._entries.find(query, fields=dict.fromkeys(names, 1))

    async def adjustments(
        self, tenant_id: str, *, end: datetime, made_from: datetime, booked: bool = False, but: Sequence[str] = ()
    ) -> DaySums:
        """Sum the adjustments of calls that started before `end`, as far as they were made from a time on.

        Args:
            tenant_id: Whose.
            end: The calls started before this time.
            made_from: The adjustments were made at this time or later.
            booked: Only those that are marked as rolled up.
            but: Ids that are left out.
        """
        which = {
            "tenant_id": tenant_id,
            "kind": "adjustment",
            "time": {"$gte": made_from},
            "start_time": {"$lt": end},
            "_id": {"$nin": list(but)},
            **(_NOT_SUMMED if booked else {}),
        }
        sums = DaySums()
        _take(sums, await self._entries.aggregate([{"$match": which}, _BY_DAY]))
        return sums

    async def unapplied(self, tenant_id: str, *, made_from: datetime, but: str | None) -> DaySums:
        """Sum the adjustments that are on their way to the budget: what was made before a time is in its statement."""
        which = {"kind": "adjustment", "tenant_id": tenant_id, "time": {"$gte": made_from}, "_id": {"$ne": but}}
        sums = DaySums()
        _take(sums, await self._entries.aggregate([{"$match": {"unapplied": True, **which}}, _BY_DAY]))
        return sums

    async def _mark_after(self, mark: str) -> str | None:
        """Return the next mark that some entry has which is not rolled up: there are a handful."""
        found = await self._entries.find_one(
            {"unbooked": {"$gt": mark}}, sort=[("unbooked", 1)], fields={"unbooked": 1}
        )
        return found["unbooked"] if found else None

    async def _add(
        self, sums: DaySums, which: Document, start: datetime | None, end: datetime | None, also: Document
    ) -> None:
        """Add what a query matches, piece by piece."""
        while True:
            after = await self._time_after_piece(which, start, end)
            until = end if after is None else after if start is None or after > start else start + TICK
            query = {**which, **_between(start, until), **also}
            _take(sums, await self._entries.aggregate([{"$match": query}, _BY_DAY], hint=_index_of(which)))
            if after is None:
                return
            start = until

    async def _time_after_piece(self, which: Document, start: datetime | None, end: datetime | None) -> datetime | None:
        """Return when the entry after a piece started, from the index alone; None: the rest is one piece."""
        found = await self._entries.aggregate(
            [
                {"$match": {**which, **_between(start, end)}},
                {"$sort": {"start_time": 1}},
                {"$skip": self._piece},
                {"$limit": 1},
                {"$project": {"_id": 0, "start_time": 1}},
            ],
            hint=_index_of(which),
        )
        return found[0]["start_time"] if found else None


def _index_of(which: Document) -> Sequence[tuple[str, int]]:
    """Return the index by which pieces are read: left to itself, the database may scan all of a tenant's entries."""
    return BY_MARK if "unbooked" in which else BY_TIME


def is_made_before(document: Document, time: datetime) -> bool:
    """Whether an entry is a call, or an adjustment that was made before a time."""
    return document["kind"] == "call" or bool(document["time"] < time)


def _between(start: datetime | None, end: datetime | None) -> Document:
    times = {name: time for name, time in (("$gte", start), ("$lt", end)) if time is not None}
    return {"start_time": times} if times else {}


def _made_before(time: datetime | None) -> Document:
    return {} if time is None else {"$or": [{"kind": "call"}, {"time": {"$lt": time}}]}


def charge_in(document: Document) -> Decimal:
    """Return what a closed entry counts: an adjustment adds a cost and takes its call's bound away."""
    cost = _decimal(document.get("cost"))
    if document.get("state") == CallState.UNRESOLVED.value:
        return money.add(cost, _decimal(document.get("upper_bound")))
    return money.subtract(cost, _decimal(document.get("bound")))


def _take(sums: DaySums, found: Iterable[Document]) -> None:
    for each in found:
        sums.add(each["_id"], _decimal(each["amount"]))
        sums.held += [_held(call["id"], call) for call in each["held"]]


def _held(call_id: str, document: Document) -> Held:
    bound, owner = _decimal(document.get("upper_bound")), document.get("owner", "")
    return Held(call_id=call_id, bound=bound, time=document["start_time"], owner=owner)


def _decimal(amount: Any) -> Decimal:
    """Read a sum: MongoDB gives the integer 0 where there was nothing to add."""
    return amount.to_decimal() if isinstance(amount, Decimal128) else Decimal(amount or 0)


_BOUND = {"$cond": [counts("unresolved"), "$upper_bound", {"$multiply": ["$bound", -1]}]}
_PENDING = {"id": "$_id", **{name: f"${name}" for name in ("upper_bound", "start_time", "owner")}}
_BY_DAY: Document = {
    "$group": {
        "_id": {"$dateToString": {"date": "$start_time", "format": "%Y-%m-%d"}},
        "amount": {"$sum": {"$add": [{"$ifNull": ["$cost", 0]}, {"$ifNull": [_BOUND, 0]}]}},
        "held": {"$push": {"$cond": [counts("pending"), _PENDING, "$$REMOVE"]}},
    }
}
