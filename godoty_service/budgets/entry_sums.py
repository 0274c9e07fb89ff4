"""Sums a tenant's ledger entries by its days, in pieces of bounded size: no operation grows with the number of entries.

The database sums by the unit of the tenant's calendar, as it may know other rules of time zones than this process.

Each entry is read once, so a call that closes meanwhile is either open or charged, never both and never neither. An
entry's `start_time` does not change, so it belongs to one piece, whichever entries are written between two pieces.
"""

from collections.abc import Collection as Some
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.calendar import UTC_CALENDAR, BudgetCalendar
from godoty_service.budgets.charges import OpeningBalance, Reservation
from godoty_service.clock import from_milliseconds
from godoty_service.ledger.ledger import BY_MARK, BY_TIME
from godoty_service.ledger.states import counts, document_contribution
from godoty_service.mongo.collection import Collection, Document, Snapshot
from godoty_service.pricing import money
from godoty_service.usage.window import TICK

PIECE = 5_000  # entries an operation: about 40 ms of the database's time, ten times that under full load
_MAX_IDS = 1000  # an operation
_ROLLED_UP: Document = {"rollup_state": {"$exists": False}}


@dataclass(slots=True)
class DaySums:
    """The charges of entries.

    Attributes:
        calendar: The tenant's days.
        amounts: The charges of closed calls and adjustments, in US dollars by day ("2026-08-22").
        reservations: The open calls.
    """

    calendar: BudgetCalendar = UTC_CALENDAR
    amounts: dict[str, Decimal] = field(default_factory=dict)
    reservations: list[Reservation] = field(default_factory=list)

    def add(self, day: str, amount: Decimal) -> None:
        """Add an amount to a day."""
        self.amounts[day] = money.add(self.amounts.get(day, money.ZERO), amount)

    def subtract(self, day: str, amount: Decimal) -> None:
        """Subtract an amount from a day."""
        self.amounts[day] = money.subtract(self.amounts.get(day, money.ZERO), amount)

    def opening_balance(self, at: datetime) -> OpeningBalance:
        """Return the sums by window, from the windows of a time on."""
        first = self.calendar.keys(at)
        spent: dict[BudgetWindow, dict[str, Decimal]] = {window: {key: money.ZERO} for window, key in first.items()}
        for day, amount in self.amounts.items():
            for window, sums in spent.items():
                key = window.key(day)
                if key >= first[window]:
                    sums[key] = money.add(sums.get(key, money.ZERO), amount)
        return OpeningBalance(first=first, spent=spent, reservations=tuple(self.reservations))


class EntrySums:
    """Sums entries by tenant and day."""

    def __init__(self, collection: Collection, *, piece: int = PIECE) -> None:
        """Create it.

        Args:
            collection: The collection `ledger`.
            piece: The most entries that an operation reads.
        """
        self._entries = collection
        self._piece = piece

    def read_at(self, snapshot: Snapshot) -> "EntrySums":
        """Return a reader of the entries as of a snapshot."""
        return EntrySums(self._entries.read_at(snapshot), piece=self._piece)

    async def add_entries(
        self,
        sums: DaySums,
        tenant_id: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        made_before: datetime | None = None,
    ) -> None:
        """Add all entries of a time range, rolled up or not.

        Args:
            sums: The sums to add to.
            tenant_id: The tenant.
            start: Entries that started at this time or later.
            end: Entries that started before this time.
            made_before: Without adjustments that were made at this time or later.
        """
        await self._add(sums, {"tenant_id": tenant_id}, start, end, _made_before(made_before))

    async def add_not_rolled_up(
        self, sums: DaySums, tenant_id: str, *, end: datetime, made_before: datetime, excluded: Sequence[str]
    ) -> None:
        """Add the entries that started before a time and are not marked as rolled up, except for some ids."""
        condition = {"_id": {"$nin": list(excluded)}, **_made_before(made_before)}
        state = await self._next_rollup_state("")
        while state is not None:
            await self._add(sums, {"rollup_state": state, "tenant_id": tenant_id}, None, end, condition)
            state = await self._next_rollup_state(state)

    async def add_calls(self, sums: DaySums, tenant_id: str, call_ids: Some[str]) -> None:
        """Add some calls in their current state."""
        ids = sorted(call_ids)
        for place in range(0, len(ids), _MAX_IDS):
            for each in await self.read(tenant_id, ids[place : place + _MAX_IDS]):
                if document_contribution(each).open:
                    sums.reservations.append(_reservation(each["_id"], each))
                else:
                    sums.add(sums.calendar.day(each["start_time"]), document_charge(each))

    async def read(self, tenant_id: str, entry_ids: Sequence[str]) -> list[Document]:
        """Return the fields of entries that are summed."""
        names = ("kind", "state", "rule", "cost", "upper_bound", "bound", "start_time", "time", "owner")
        query = {"_id": {"$in": list(entry_ids)}, "tenant_id": tenant_id}
        return await self._entries.find(query, fields=dict.fromkeys(names, 1))

    async def adjustments(
        self,
        tenant_id: str,
        *,
        end: datetime,
        made_from: datetime,
        calendar: BudgetCalendar = UTC_CALENDAR,
        rolled_up: bool = False,
        excluded: Sequence[str] = (),
    ) -> DaySums:
        """Return the sums of the adjustments of calls that started before `end`.

        Args:
            tenant_id: The tenant.
            end: The calls started before this time.
            made_from: The adjustments were made at this time or later.
            calendar: The tenant's days.
            rolled_up: Only those that are marked as rolled up.
            excluded: Ids of adjustments to omit.
        """
        which = {
            "tenant_id": tenant_id,
            "kind": "adjustment",
            "time": {"$gte": made_from},
            "start_time": {"$lt": end},
            "_id": {"$nin": list(excluded)},
            **(_ROLLED_UP if rolled_up else {}),
        }
        sums = DaySums(calendar)
        _add_units(sums, await self._entries.aggregate([{"$match": which}, _by_unit(calendar)]))
        return sums

    async def unapplied(
        self, tenant_id: str, *, made_from: datetime, excluded: str | None, calendar: BudgetCalendar = UTC_CALENDAR
    ) -> DaySums:
        """Return the sums of the adjustments that are not applied yet; earlier ones are in the opening balance."""
        which = {"kind": "adjustment", "tenant_id": tenant_id, "time": {"$gte": made_from}, "_id": {"$ne": excluded}}
        sums = DaySums(calendar)
        found = await self._entries.aggregate([{"$match": {"unapplied": True, **which}}, _by_unit(calendar)])
        _add_units(sums, found)
        return sums

    async def _next_rollup_state(self, state: str) -> str | None:
        """Return the next value of `rollup_state`, of which there are a handful."""
        found = await self._entries.find_one(
            {"rollup_state": {"$gt": state}}, sort=[("rollup_state", 1)], fields={"rollup_state": 1}
        )
        return found["rollup_state"] if found else None

    async def _add(
        self, sums: DaySums, query: Document, start: datetime | None, end: datetime | None, condition: Document
    ) -> None:
        """Add the matches of a query, piece by piece."""
        while True:
            after = await self._time_after_piece(query, start, end)
            until = end if after is None else after if start is None or after > start else start + TICK
            match = {**query, **_between(start, until), **condition}
            pipeline = [{"$match": match}, _by_unit(sums.calendar)]
            _add_units(sums, await self._entries.aggregate(pipeline, hint=_index_of(query)))
            if after is None:
                return
            start = until

    async def _time_after_piece(self, query: Document, start: datetime | None, end: datetime | None) -> datetime | None:
        """Return the start of the entry after the next piece, from the index alone; None: the rest is one piece."""
        found = await self._entries.aggregate(
            [
                {"$match": {**query, **_between(start, end)}},
                {"$sort": {"start_time": 1}},
                {"$skip": self._piece},
                {"$limit": 1},
                {"$project": {"_id": 0, "start_time": 1}},
            ],
            hint=_index_of(query),
        )
        return found[0]["start_time"] if found else None


def _index_of(query: Document) -> Sequence[tuple[str, int]]:
    """Return the index hint for pieces: without it, the database may scan all entries of the tenant."""
    return BY_MARK if "rollup_state" in query else BY_TIME


def is_made_before(document: Document, time: datetime) -> bool:
    """Return whether an entry is a call, or an adjustment that was made before a time."""
    return document["kind"] == "call" or bool(document["time"] < time)


def _between(start: datetime | None, end: datetime | None) -> Document:
    times = {name: time for name, time in (("$gte", start), ("$lt", end)) if time is not None}
    return {"start_time": times} if times else {}


def _made_before(time: datetime | None) -> Document:
    return {} if time is None else {"$or": [{"kind": "call"}, {"time": {"$lt": time}}]}


def document_charge(document: Document) -> Decimal:
    """Return the charge of a closed entry; that of an adjustment is its cost less its call's upper bound."""
    counted = document_contribution(document)
    cost = _decimal(document.get("cost") if counted.cost else None)
    if counted.unresolved:
        return money.add(cost, _decimal(document.get("upper_bound")))
    return money.subtract(cost, _decimal(document.get("bound")))


def _add_units(sums: DaySums, found: Iterable[Document]) -> None:
    for each in found:
        sums.add(sums.calendar.day(from_milliseconds(each["_id"])), _decimal(each["amount"]))
        sums.reservations += [_reservation(call["id"], call) for call in each["reservations"]]


def _reservation(call_id: str, document: Document) -> Reservation:
    bound, owner = _decimal(document.get("upper_bound")), document.get("owner", "")
    return Reservation(call_id=call_id, bound=bound, time=document["start_time"], owner=owner)


def _decimal(amount: Any) -> Decimal:
    """Decode a sum: MongoDB returns the integer 0 if there was nothing to add."""
    return amount.to_decimal() if isinstance(amount, Decimal128) else Decimal(amount or 0)


_COST = {"$cond": [counts("cost", adjustments=True), {"$ifNull": ["$cost", 0]}, 0]}
_BOUND = {"$cond": [counts("unresolved"), "$upper_bound", {"$multiply": ["$bound", -1]}]}
_PENDING = {"id": "$_id", **{name: f"${name}" for name in ("upper_bound", "start_time", "owner")}}


def _by_unit(calendar: BudgetCalendar) -> Document:
    """Return the stage that sums entries by the units of a calendar, named by their milliseconds since 1970."""
    time = {"$toLong": "$start_time"}
    return {
        "$group": {
            "_id": {"$subtract": [time, {"$mod": [time, calendar.unit // timedelta(milliseconds=1)]}]},
            "amount": {"$sum": {"$add": [_COST, {"$ifNull": [_BOUND, 0]}]}},
            "reservations": {"$push": {"$cond": [counts("open"), _PENDING, "$$REMOVE"]}},
        }
    }
