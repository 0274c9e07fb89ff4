"""Budgets: what a tenant has spent, and what its open calls may still cost. Owns `budgets`.

One document a tenant, so that a reservation is one atomic operation across all servers. `budget_document.py` says
what stands in it.

To settle a call is to take its reservation away and add its cost, in one update. So it counts once, whoever settles
it and however often: where there is no reservation any more, nothing is left to do.

A server hears of a tenant's first budget up to some seconds late, and reserves nothing until then. `since` lies after
that; what started before is stated from the ledger, at once and again when all of it has landed. From then on every
call is reserved, also when the last budget is gone again.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import BudgetReserved, BudgetSpent, QuotaExceeded
from godoty_service.metering import money
from godoty_service.metering.budget_document import (
    fits,
    newest,
    not_told,
    plus,
    reservations,
    reserved,
    settled,
    share_told,
    spent,
    stated,
    told,
)
from godoty_service.metering.call import Adjustment, ModelCall
from godoty_service.metering.charges import NOTHING, Statement, charge, charge_of, held
from godoty_service.mongo import Collection, Document, Snapshot

SHARES = (50, 80, 100)  # per cent of a budget at which a turn is told
_RETRY_AFTER = 1.0  # seconds


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionSlot:
    """The one place of a tenant's budget where an adjustment is counted.

    Attributes:
        revision: How many corrections have begun.
        adjustment_id: The adjustment that is counted and may not be marked as applied; None: the slot is free.
        since: What was adjusted before is in the statement.
    """

    revision: int
    adjustment_id: str | None
    since: datetime


class Budgets:
    """Spending by tenant."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._budgets = collection
        self._clock = clock

    def at(self, snapshot: Snapshot) -> "Budgets":
        """The same at a moment, to read."""
        return Budgets(self._budgets.at(snapshot), clock=self._clock)

    async def begun(self, tenant_id: str) -> bool:
        """Tell whether a tenant's spending is counted."""
        return await self._budgets.find_one({"_id": tenant_id}, fields={"_id": 1}) is not None

    async def begin(self, tenant_id: str, *, since: datetime, statement: Statement) -> None:
        """Begin to count a tenant's spending, call by call since a time; where it has begun, do nothing.

        Args:
            tenant_id: Whose.
            since: By then every server knows that it is counted.
            statement: What its calls until now come to.
        """
        fresh = {
            "since": since,
            "stated": False,
            "before": stated(statement),
            "spent": stated(NOTHING),
            "open": reservations(statement.held),
            "told": {},
        }
        await self._budgets.update_one({"_id": tenant_id}, {"$setOnInsert": fresh}, upsert=True)

    async def unstated(self, *, until: datetime) -> list[tuple[str, datetime]]:
        """Tell the tenants whose counting began by a time and is to be stated for good, each with its `since`."""
        found = await self._budgets.find({"stated": False, "since": {"$lt": until}}, fields={"since": 1})
        return [(each["_id"], each["since"]) for each in found]

    async def state(self, tenant_id: str, statement: Statement) -> None:
        """State for good what the calls before `since` come to, in place of all that was counted of them. Once."""
        later = {
            "$filter": {
                "input": {"$objectToArray": "$open"},
                "as": "each",
                "cond": {"$gte": ["$$each.v.time", "$since"]},
            }
        }
        opened = {"$mergeObjects": [{"$arrayToObject": later}, {"$literal": reservations(statement.held)}]}
        await self._budgets.update_one(
            {"_id": tenant_id, "stated": False},
            [{"$set": {"stated": True, "before": {"$literal": stated(statement)}, "open": opened}}],
        )

    async def reserve(self, call: ModelCall, budgets: Sequence[Budget]) -> bool:
        """Reserve a call's bound in all windows at once; False: nobody has begun to count the tenant's spending.

        Raises:
            BudgetSpent: It does not fit a hard budget.
            BudgetReserved: It does not fit because of what other open calls hold, or its window is over for others.
        """
        wanted = held(call)
        keys = {window.value: window.key(call.start_time) for window in BudgetWindow}
        fitting = [fits(budget.window, keys, wanted.bound, budget.limit) for budget in budgets if budget.hard]
        reservation = {f"open.{name}": value for name, value in reservations([wanted]).items()}
        while not await self._budgets.update_one(
            {"_id": call.tenant_id, "$expr": {"$and": fitting}}, {"$set": reservation}
        ):
            found = await self._budgets.find_one({"_id": call.tenant_id})
            if found is None:
                return False
            if refusal := _refusal(found, wanted.bound, budgets, keys):
                raise refusal
        return True

    async def settle(self, call: ModelCall, budgets: Sequence[Budget] = ()) -> list[BudgetAlert]:
        """Take a closed call's reservation away and add what it cost, in the windows where it was reserved.

        Returns what shares of those budgets are reached and were not told; nothing where there is no reservation.
        """
        amount = charge(call)
        found = await self._budgets.find_one_and_update(
            {"_id": call.tenant_id, f"open.{call.call_id}": {"$exists": True}},
            [{"$set": settled(f"$open.{call.call_id}", amount)}, {"$unset": f"open.{call.call_id}"}],
        )
        alerts = [_alert(found, budget, budget.window.key(call.start_time)) for budget in budgets if found]
        return [alert for alert in alerts if alert is not None]

    async def correction(self, tenant_id: str) -> CorrectionSlot | None:
        """Return the place where a tenant's budget is corrected; None: its spending is not counted."""
        found = await self._budgets.find_one({"_id": tenant_id}, fields={"since": 1, "correction": 1})
        if found is None:
            return None
        last = found.get("correction") or {}
        return CorrectionSlot(
            revision=last.get("revision", 0), adjustment_id=last.get("adjustment_id"), since=found["since"]
        )

    async def begin_correction(self, tenant_id: str, slot: CorrectionSlot, adjustment: Adjustment) -> bool:
        """Add what an adjustment changes, in the windows of its call's start as far as they are current.

        Returns False if another correction has begun since the slot was read. What was adjusted before `since` is in
        the statement and adds nothing here.
        """
        time, amount = adjustment.start_time, charge_of(adjustment)
        stated_already = {"$gt": ["$since", adjustment.time]}
        added = {
            window.value: {"$cond": [stated_already, now, plus(now, {"$literal": window.key(time)}, amount)]}
            for window in BudgetWindow
            for now in [f"$spent.{window.value}"]
        }
        begun = {"revision": slot.revision + 1, "adjustment_id": adjustment.entry_id}
        return await self._budgets.update_one(
            {"_id": tenant_id, **_unchanged(slot), "correction.adjustment_id": None},
            [{"$set": {"spent": added, "correction": {"$literal": begun}}}],
        )

    async def end_correction(self, tenant_id: str, slot: CorrectionSlot) -> None:
        """Free the slot: its adjustment is marked as applied."""
        await self._budgets.update_one(
            {"_id": tenant_id, "correction.revision": slot.revision}, {"$set": {"correction.adjustment_id": None}}
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
                spent=spent(found, budget.window, budget.window.key(now)),
                reserved=reserved(found, budget.window, budget.window.key(now)),
                window_start=budget.window.start(now),
            )
            for budget in budgets
        ]

    async def tell_once(self, tenant_id: str, alert: BudgetAlert, key: str) -> bool:
        """Tell whether a share has not been told before, in the window of a key; from now on it has."""
        share = alert.window, key, alert.limit, alert.percent
        return await self._budgets.update_one(
            {"_id": tenant_id, **not_told(*share)}, [{"$set": {f"told.{alert.window.value}": told(*share)}}]
        )

    async def left_open(self, *, older_than: timedelta) -> list[tuple[str, str]]:
        """Tell the tenants and calls of reservations that are older than any live call's closing takes."""
        oldest = self._clock() - older_than
        found = await self._budgets.find({"open": {"$ne": {}}}, fields={"open": 1})
        return [
            (each["_id"], call_id) for each in found for call_id, left in each["open"].items() if left["time"] < oldest
        ]

    async def release(self, tenant_id: str, call_id: str) -> None:
        """Take away the reservation of a call that was never written."""
        await self._budgets.update_one({"_id": tenant_id}, {"$unset": {f"open.{call_id}": ""}})

    async def tenants(self, tenant_id: str | None) -> AsyncIterator[str]:
        """Tell whose spending is counted: everybody's, or one tenant's."""
        async for found in self._budgets.iterate({"_id": tenant_id} if tenant_id else {}, fields={"_id": 1}):
            yield found["_id"]

    async def counted(self, tenant_id: str, *, at: datetime) -> dict[BudgetWindow, Decimal]:
        """Tell what a tenant has spent in the windows of a time, but for those that are over.

        None are told while a call is open, or while it is not stated for good what came before.
        """
        found = await self._budgets.find_one({"_id": tenant_id, "stated": True, "open": {}})
        keys = {window: window.key(at) for window in BudgetWindow}
        return {
            window: spent(found, window, key)
            for window, key in keys.items()
            if found is not None and key >= newest(found, window)
        }


def _unchanged(slot: CorrectionSlot) -> Document:
    return {"correction.revision": slot.revision} if slot.revision else {"correction": None}


def _alert(found: Document, budget: Budget, key: str) -> BudgetAlert | None:
    """Tell the largest share of a budget that is reached, unless it was told or its window is over.

    What was told counts, not what the last call has reached: nobody hears of what reconciliation adds.
    """
    amount = spent(found, budget.window, key)
    shares = [share for share in SHARES if budget.limit and amount * 100 / budget.limit >= share]  # no sum of money
    told_last = share_told(found, budget.window, key, budget.limit)
    if key != newest(found, budget.window) or max(shares, default=0) <= told_last:
        return None
    return BudgetAlert(window=budget.window, percent=shares[-1], spent=amount, limit=budget.limit)


def _refusal(found: Document, bound: Decimal, budgets: Sequence[Budget], keys: dict[str, str]) -> QuotaExceeded | None:
    """Say why a reservation is refused: for good, or only for now; None: it fits meanwhile."""
    for_now = False
    for budget in budgets:
        key = keys[budget.window.value]
        needed = money.add(spent(found, budget.window, key), bound)
        if budget.hard and needed > budget.limit:
            return BudgetSpent(
                f"The {budget.window.value} budget does not cover the next model call.",
                quota=f"budget/{budget.window.value}",
            )
        is_over = key < newest(found, budget.window)  # by another server's clock
        held_by_others = money.add(needed, reserved(found, budget.window, key)) > budget.limit
        for_now |= budget.hard and (is_over or held_by_others)
    if not for_now:
        return None
    return BudgetReserved(
        "What is left of the budget is reserved by calls that are running, or begins anew this moment.",
        quota="budget",
        retry_after=_RETRY_AFTER,
    )
