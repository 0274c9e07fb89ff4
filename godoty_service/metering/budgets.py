"""Budgets: what a tenant has spent, and what its open calls may still cost. Owns `budgets`.

One document a tenant, so that a reservation is one atomic operation across all servers: it holds what was spent in
the current day, month and in all, and the bound of each open call with the windows in which it was reserved.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import BudgetReserved, BudgetSpent, QuotaExceeded
from godoty_service.metering import money
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.mongo import Collection, Document

SHARES = (50, 80, 100)  # per cent of a budget at which a turn is told
_RETRY_AFTER = 1.0  # seconds
_ZERO = Decimal128("0")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """A budget as it stands: `spent` counts an unresolved call with its bound, `reserved` the open ones."""

    window: BudgetWindow
    limit: Decimal
    hard: bool
    spent: Decimal
    reserved: Decimal
    window_start: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """A share of a budget that was reached."""

    window: BudgetWindow
    percent: int
    spent: Decimal
    limit: Decimal


class Budgets:
    """Spending by tenant."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._budgets = collection
        self._clock = clock

    async def open(self, tenant_id: str) -> None:
        """Begin to count a tenant's spending; `restate` adds what was spent before."""
        await self._budgets.update_one(
            {"_id": tenant_id},
            {
                "$setOnInsert": {
                    "since": self._clock(),
                    "stated": False,
                    "spent": {window.value: {"key": "", "amount": _ZERO} for window in BudgetWindow},
                    "open": {},
                    "told": {},
                }
            },
            upsert=True,
        )

    async def reserve(self, tenant_id: str, call: ModelCall, *, bound: Decimal, budgets: Sequence[Budget]) -> None:
        """Reserve a call's bound in all windows at once.

        Raises:
            BudgetSpent: It does not fit a hard budget.
            BudgetReserved: It does not fit because of what other open calls hold.
        """
        keys = {window.value: window.key(call.start_time) for window in BudgetWindow}
        fits = [
            {"$lte": [{"$add": [_used(budget.window, keys), Decimal128(bound)]}, Decimal128(budget.limit)]}
            for budget in budgets
            if budget.hard
        ]
        reservation = {"bound": Decimal128(bound), "time": call.start_time, **keys}
        reserved = await self._budgets.update_one(
            {"_id": tenant_id, "$expr": {"$and": fits}}, {"$set": {f"open.{call.call_id}": reservation}}
        )
        if not reserved:
            raise await self._refusal(tenant_id, bound, budgets, keys)

    async def settle(self, call: ModelCall) -> list[tuple[BudgetWindow, Decimal, Decimal]]:
        """Take a closed call's reservation away and add what it cost, in the windows where it was reserved.

        Returns, for each window that it counts in, what was spent before and after. A tenant without budgets has none.
        """
        amount = charge(call)
        found = await self._budgets.find_one_and_update(
            {"_id": call.tenant_id, f"open.{call.call_id}": {"$exists": True}},
            [
                {"$set": {"spent": {window.value: _added(window, call.call_id, amount) for window in BudgetWindow}}},
                {"$unset": f"open.{call.call_id}"},
            ],
        )
        if found is None:
            return await self._count_unreserved(call, amount)
        keys = {window: window.key(call.start_time) for window in BudgetWindow}
        return [
            (window, money.subtract(spent, amount), spent)
            for window, key in keys.items()
            if found["spent"][window.value]["key"] == key
            for spent in [found["spent"][window.value]["amount"].to_decimal()]
        ]

    async def adjust(self, tenant_id: str, *, time: datetime, amount: Decimal) -> None:
        """Correct what is spent in the windows that a call's start falls into, as far as they are current."""
        for window in BudgetWindow:
            await self._budgets.update_one(
                {"_id": tenant_id, f"spent.{window.value}.key": window.key(time)},
                {"$inc": {f"spent.{window.value}.amount": Decimal128(amount)}},
            )

    async def status(self, tenant_id: str, budgets: Sequence[Budget]) -> list[BudgetStatus]:
        """Tell how budgets stand."""
        found = await self._budgets.find_one({"_id": tenant_id}) or {}
        now = self._clock()
        return [
            BudgetStatus(
                window=budget.window,
                limit=budget.limit,
                hard=budget.hard,
                spent=_spent(found, budget.window, budget.window.key(now)),
                reserved=_reserved(found, budget.window, budget.window.key(now)),
                window_start=budget.window.start(now),
            )
            for budget in budgets
        ]

    async def tell_once(self, tenant_id: str, window: BudgetWindow, key: str, percent: int) -> bool:
        """Tell whether a share of a window has not been told before; from now on it has."""
        return await self._budgets.update_one(
            {"_id": tenant_id, f"told.{window.value}.{key}": {"$not": {"$gte": percent}}},
            {"$set": {f"told.{window.value}": {key: percent}}},
        )

    async def left_open(self, *, older_than: timedelta) -> list[tuple[str, str]]:
        """Tell the tenants and calls of reservations that are older than any live call's closing takes."""
        oldest = self._clock() - older_than
        found = await self._budgets.find({"open": {"$ne": {}}}, fields={"open": 1})
        return [
            (each["_id"], call_id) for each in found for call_id, held in each["open"].items() if held["time"] < oldest
        ]

    async def release(self, tenant_id: str, call_id: str) -> None:
        """Take away the reservation of a call that was never written."""
        await self._budgets.update_one({"_id": tenant_id}, {"$unset": {f"open.{call_id}": ""}})

    async def counted(
        self, tenant_id: str | None
    ) -> AsyncIterator[tuple[str, dict[BudgetWindow, tuple[str, Decimal]]]]:
        """Tell what is counted as spent, by window with its key, for tenants that have no call open."""
        which: Document = {"stated": True, "open": {}} | ({"_id": tenant_id} if tenant_id else {})
        async for found in self._budgets.iterate(which):
            spent = found["spent"]
            yield (
                found["_id"],
                {
                    window: (spent[window.value]["key"], spent[window.value]["amount"].to_decimal())
                    for window in BudgetWindow
                },
            )

    async def unstated(self, tenant_id: str) -> datetime | None:
        """Tell since when a tenant's spending is counted, if what was before has not been added yet."""
        found = await self._budgets.find_one({"_id": tenant_id, "stated": False}, fields={"since": 1})
        return found["since"] if found else None

    async def state(
        self, tenant_id: str, *, spent: dict[BudgetWindow, tuple[str, Decimal]], pending: Sequence[ModelCall]
    ) -> None:
        """Add, once, what was spent before the counting began, and the calls that were open then."""
        opened = {
            f"open.{call.call_id}": {
                "bound": Decimal128(call.upper_bound or Decimal(0)),
                "time": call.start_time,
                **{window.value: window.key(call.start_time) for window in BudgetWindow},
            }
            for call in pending
        }
        await self._budgets.update_one(
            {"_id": tenant_id, "stated": False},
            [
                {
                    "$set": {
                        "stated": True,
                        "spent": {window.value: _plus(window, key, amount) for window, (key, amount) in spent.items()},
                        **opened,
                    }
                }
            ],
        )

    async def _count_unreserved(self, call: ModelCall, amount: Decimal) -> list[tuple[BudgetWindow, Decimal, Decimal]]:
        """Count a call that began on a server which did not know of the budgets yet."""
        if amount == 0:
            return []
        await self._budgets.update_one(
            {"_id": call.tenant_id, "since": {"$lte": call.start_time}},
            [
                {
                    "$set": {
                        "spent": {
                            window.value: _plus(window, window.key(call.start_time), amount) for window in BudgetWindow
                        }
                    }
                }
            ],
        )
        return []

    async def _refusal(
        self, tenant_id: str, bound: Decimal, budgets: Sequence[Budget], keys: dict[str, str]
    ) -> QuotaExceeded:
        """Say why a reservation was refused: for good, or only for now."""
        found = await self._budgets.find_one({"_id": tenant_id}) or {}
        for budget in budgets:
            spent = _spent(found, budget.window, keys[budget.window.value])
            if budget.hard and money.add(spent, bound) > budget.limit:
                return BudgetSpent(
                    f"The {budget.window.value} budget does not cover the next model call.",
                    quota=f"budget/{budget.window.value}",
                )
        return BudgetReserved(
            "What is left of the budget is reserved by calls that are running.",
            quota="budget",
            retry_after=_RETRY_AFTER,
        )


def charge(call: ModelCall) -> Decimal:
    """Tell what a closed call counts in a budget: its cost, or its bound where nobody knows that."""
    if call.state is CallState.UNRESOLVED:
        return call.upper_bound or Decimal(0)
    return call.cost or Decimal(0)


def _used(window: BudgetWindow, keys: dict[str, str]) -> Document:
    """Express what is spent and reserved in a window."""
    name, key = window.value, keys[window.value]
    spent = {"$cond": [{"$eq": [f"$spent.{name}.key", key]}, f"$spent.{name}.amount", _ZERO]}
    held = {"$cond": [{"$eq": [f"$$each.v.{name}", key]}, "$$each.v.bound", _ZERO]}
    reserved = {"$sum": {"$map": {"input": {"$objectToArray": "$open"}, "as": "each", "in": held}}}
    return {"$add": [spent, reserved]}


def _added(window: BudgetWindow, call_id: str, amount: Decimal) -> Document:
    """Express what is spent in a window after a reserved call."""
    return _plus_key(window, f"$open.{call_id}.{window.value}", amount)


def _plus(window: BudgetWindow, key: str, amount: Decimal) -> Document:
    """Express what is spent in a window after an amount in the window of a key."""
    return _plus_key(window, {"$literal": key}, amount)


def _plus_key(window: BudgetWindow, key: Any, amount: Decimal) -> Document:
    """Add to the same window, begin a later one, or leave a later one alone: keys sort by time."""
    now = f"$spent.{window.value}"
    same = {"key": key, "amount": {"$add": [f"{now}.amount", Decimal128(amount)]}}
    later = {"key": key, "amount": Decimal128(amount)}
    return {
        "$cond": [
            {"$eq": [f"{now}.key", key]},
            same,
            {"$cond": [{"$lt": [f"{now}.key", key]}, later, now]},
        ]
    }


def _spent(document: Document, window: BudgetWindow, key: str) -> Decimal:
    spent = document.get("spent", {}).get(window.value, {})
    return spent["amount"].to_decimal() if spent.get("key") == key else Decimal(0)


def _reserved(document: Document, window: BudgetWindow, key: str) -> Decimal:
    held = document.get("open", {}).values()
    return money.total(each["bound"].to_decimal() for each in held if each[window.value] == key)
