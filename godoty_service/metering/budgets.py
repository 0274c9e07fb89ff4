"""Budgets: what a tenant has spent, and what its open calls may still cost. Owns `budgets`.

One document a tenant, so that a reservation is one atomic operation across all servers. `budget_document.py` says
what stands in it.

To settle a call is to take its reservation away and add its cost, in one update. So it counts once, whoever settles
it and however often: where there is no reservation any more, nothing is left to do.

A document is there before the policy with the tenant's first budget is. A server reads of that budget up to some
seconds late, and reserves nothing until then. `since` lies after that; what started before is stated from the ledger,
at first and again when all of it has landed. From then on every call is reserved, also when the last budget is gone
again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.metering import money
from godoty_service.metering.budget_document import (
    KEPT,
    UNKNOWN,
    Keys,
    adjusted,
    amounts,
    first_of,
    fits,
    keys_of,
    nothing,
    reservations,
    reserved,
    settled,
    share_told,
    spent,
    stated,
    surplus,
    told_path,
)
from godoty_service.metering.budget_refusals import budget_refusal, unspent
from godoty_service.metering.call import Adjustment, ModelCall
from godoty_service.metering.charges import Statement, charge, charge_of, held
from godoty_service.metering.planned_call import PlannedCall
from godoty_service.mongo import Collection, Document, Snapshot

SHARES = (50, 80, 100)  # per cent of a budget at which a turn is told
_NOTED_TENANTS = 10_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOpen:
    """A reservation that is older than the closing of a call takes."""

    tenant_id: str
    call_id: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What is counted of a tenant's spending, at one moment.

    Attributes:
        since: Every call that started at this time or later is reserved.
        first: The earliest window that is counted, by its key.
        spent: US dollars by window and key.
        bounds: What each open call may cost, by its id.
        adjustment_id: The adjustment that is counted and may not be marked as applied.
    """

    since: datetime
    first: dict[BudgetWindow, str]
    spent: dict[BudgetWindow, dict[str, Decimal]]
    bounds: dict[str, Decimal]
    adjustment_id: str | None


class Budgets:
    """Spending by tenant."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._budgets = collection
        self._clock = clock
        self._noted: dict[str, dict[BudgetWindow, tuple[str, Decimal]]] = {}

    def at(self, snapshot: Snapshot) -> "Budgets":
        """The same at a moment, to read."""
        return Budgets(self._budgets.at(snapshot), clock=self._clock)

    async def since(self, tenant_id: str) -> datetime | None:
        """Return since when each call is counted: `UNKNOWN` until its policy is set, None where nothing is counted."""
        found = await self._budgets.find_one({"_id": tenant_id}, fields={"since": 1})
        return found["since"] if found else None

    async def begin(self, tenant_id: str, statement: Statement) -> None:
        """Begin to count a tenant's spending, from what its calls come to; where its `since` is known, do nothing.

        What is reserved stays so: the policy may be in force already.
        """
        fresh = {
            "stated": False,
            "first": {"$literal": first_of(statement)},
            "before": {"$literal": stated(statement)},
            "spent": {"$ifNull": ["$spent", {"$literal": nothing()}]},
            "open": {"$mergeObjects": ["$open", reservations(statement.held)]},
            "told": {"$ifNull": ["$told", {"$literal": nothing()}]},
        }
        with suppress(DuplicateKey):  # it is there, and its `since` is known
            await self._budgets.update_one({"_id": tenant_id, "since": UNKNOWN}, [{"$set": fresh}], upsert=True)

    async def count_from(self, tenant_id: str, *, since: datetime, ahead: Statement) -> None:
        """Set `since`, once.

        Args:
            tenant_id: Whose.
            since: By then every server knows that the tenant's spending is counted.
            ahead: What calls come to that started at that time or later, by clocks that are wrong.
        """
        await self._budgets.update_one(
            {"_id": tenant_id, "since": UNKNOWN},
            [
                {
                    "$set": {
                        "since": since,
                        "spent": {"$literal": stated(ahead)},
                        "open": {"$mergeObjects": [reservations(ahead.held), "$open"]},
                    }
                }
            ],
        )

    async def of_unknown_start(self) -> list[str]:
        """Return the tenants whose `since` is not known."""
        return [each["_id"] for each in await self._budgets.find({"since": UNKNOWN}, fields={"_id": 1})]

    async def delete(self, tenant_id: str) -> bool:
        """Delete what is counted of a tenant; returns whether it was counted. The next reservation begins anew."""
        return await self._budgets.delete_one({"_id": tenant_id})

    async def unstated(self, *, until: datetime) -> list[tuple[str, datetime]]:
        """Return the tenants whose `since` is before a time and whose `before` is not final, with their `since`."""
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
        final = {
            "stated": True,
            "first": {"$literal": first_of(statement)},
            "before": {"$literal": stated(statement)},
            "open": {"$mergeObjects": [{"$arrayToObject": later}, reservations(statement.held)]},
        }
        await self._budgets.update_one({"_id": tenant_id, "stated": False}, [{"$set": final}])

    async def output_limit(self, call: PlannedCall, budgets: Sequence[Budget]) -> int | None:
        """Return the largest output limit with which a call fits what is not spent of the hard budgets.

        The document is read only if this server does not know that the whole call fits. The limit is what to try:
        `reserve` decides.

        Raises:
            BudgetSpent: The call does not fit with its least limit either.
            BudgetReserved: It would fit, but for what other open calls hold.
        """
        hard, keys = [budget for budget in budgets if budget.hard], keys_of(call.start_time)
        if not hard or self._known_to_fit(call, hard, keys):
            return call.asked
        found = await self._budgets.find_one({"_id": call.tenant_id})
        if found is None:
            return call.asked
        self._note(found, keys)
        limit = call.limit_within(unspent(found, hard, keys))
        needed = call.bound(call.least if limit is None else limit)
        if needed is not None and (error := budget_refusal(found, needed, hard, keys)):
            raise error
        return limit

    def _known_to_fit(self, call: PlannedCall, hard: Sequence[Budget], keys: Keys) -> bool:
        noted, needed = self._noted.get(call.tenant_id), call.bound(call.asked)
        if noted is None or needed is None:
            return False
        for budget in hard:
            key, amount = noted[budget.window]
            if key == keys[budget.window] and money.add(amount, needed) > budget.limit:
                return False
        return True

    def _note(self, found: Document, keys: Keys) -> None:
        """Note what a tenant has spent, as a first guess for its next call."""
        if len(self._noted) >= _NOTED_TENANTS:
            self._noted.clear()
        self._noted[found["_id"]] = {window: (key, spent(found, window, key)) for window, key in keys.items()}

    async def reserve(self, call: ModelCall, budgets: Sequence[Budget]) -> bool:
        """Reserve a call's bound in all windows at once; False: the tenant's spending is not counted.

        Raises:
            BudgetSpent: It does not fit a hard budget.
            BudgetReserved: It does not fit because of what other open calls hold, or its window is over for others.
        """
        wanted, keys = held(call), keys_of(call.start_time)
        fitting = [fits(budget.window, keys, wanted.bound, budget.limit) for budget in budgets if budget.hard]
        reservation = {f"open.{name}": value for name, value in reservations([wanted]).items()}
        while not await self._budgets.update_one(
            {"_id": call.tenant_id, "$expr": {"$and": fitting}}, [{"$set": reservation}]
        ):
            found = await self._budgets.find_one({"_id": call.tenant_id})
            if found is None:
                return False
            self._note(found, keys)
            if refusal := budget_refusal(found, wanted.bound, budgets, keys):
                raise refusal
        return True

    async def settle(self, call: ModelCall, budgets: Sequence[Budget] = ()) -> list[BudgetAlert]:
        """Take a closed call's reservation away and add what it cost, in the windows where it was reserved.

        Returns what shares of those budgets are reached and were not told; nothing where there is no reservation.
        """
        reservation, keys = f"open.{call.call_id}", keys_of(call.start_time)
        found = await self._budgets.find_one_and_update(
            {"_id": call.tenant_id, reservation: {"$exists": True}},
            [{"$set": settled(f"${reservation}", keys, charge(call))}, {"$unset": reservation}],
        )
        if found:
            self._note(found, keys)
        now = keys_of(self._clock())
        alerts = [_alert(found, budget, keys[budget.window], now[budget.window]) for budget in budgets if found]
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
        begun = {"revision": slot.revision + 1, "adjustment_id": adjustment.entry_id}
        later = {"$lte": ["$since", adjustment.time]}
        added = adjusted(keys_of(adjustment.start_time), charge_of(adjustment), where=later)
        return await self._budgets.update_one(
            {"_id": tenant_id, **_unchanged(slot), "correction.adjustment_id": None},
            [{"$set": {**added, "correction": {"$literal": begun}}}],
        )

    async def end_correction(self, tenant_id: str, slot: CorrectionSlot) -> None:
        """Free the slot: its adjustment is marked as applied."""
        await self._budgets.update_one(
            {"_id": tenant_id, "correction.revision": slot.revision}, {"$set": {"correction.adjustment_id": None}}
        )

    async def status(self, tenant_id: str, budgets: Sequence[Budget]) -> list[BudgetStatus]:
        """Return how budgets stand."""
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
        """Whether a share has not been told before, in the window of a key; from now on it has."""
        path = told_path(alert.window, key, alert.limit)
        return await self._budgets.update_one(
            {"_id": tenant_id, path: {"$not": {"$gte": alert.percent}}}, {"$set": {path: alert.percent}}
        )

    async def left_open(self, *, older_than: timedelta) -> list[LeftOpen]:
        """Return the reservations that are older than the closing of a call takes, by the database's clock."""
        age = {"$subtract": ["$$NOW", {"$ifNull": ["$$each.v.made", "$$each.v.time"]}]}
        aged = {"$gt": [age, older_than // timedelta(milliseconds=1)]}
        old = {"$filter": {"input": {"$objectToArray": "$open"}, "as": "each", "cond": aged}}
        found = await self._budgets.aggregate(
            [{"$match": {"open": {"$ne": {}}}}, {"$project": {"old": old}}, {"$match": {"old": {"$ne": []}}}]
        )
        return [
            LeftOpen(tenant_id=each["_id"], call_id=call["k"], owner=call["v"].get("owner", ""))
            for each in found
            for call in each["old"]
        ]

    async def release(self, tenant_id: str, call_id: str) -> None:
        """Take away the reservation of a call that was never written."""
        await self._budgets.update_one({"_id": tenant_id}, {"$unset": {f"open.{call_id}": ""}})

    async def forget(self, now: datetime) -> int:
        """Forget the earliest days and months where more than `KEPT` are counted; returns of how many tenants."""
        sizes: list[Any] = [
            {"$gt": [{"$size": {"$objectToArray": {"$ifNull": [f"${part}.{window.value}", {}]}}}, KEPT]}
            for part in ("before", "spent", "told")
            for window in BudgetWindow
        ]
        found = await self._budgets.find({"$expr": {"$or": sizes}}, fields={"open": 0})
        for each in found:
            if changes := surplus(each, now):
                await self._budgets.update_one({"_id": each["_id"]}, changes)
        return len(found)

    async def tenants(self, tenant_id: str | None) -> AsyncIterator[str]:
        """Return whose spending is counted: of all tenants, or of one."""
        async for found in self._budgets.iterate({"_id": tenant_id} if tenant_id else {}, fields={"_id": 1}):
            yield found["_id"]

    async def counted(self, tenant_id: str) -> Counted | None:
        """Return what is counted of a tenant; None while what came before is not stated for good."""
        found = await self._budgets.find_one({"_id": tenant_id, "stated": True})
        if found is None:
            return None
        return Counted(
            since=found["since"],
            first={window: found["first"][window.value] for window in BudgetWindow},
            spent={window: amounts(found, window) for window in BudgetWindow},
            bounds={call_id: each["bound"].to_decimal() for call_id, each in found["open"].items()},
            adjustment_id=(found.get("correction") or {}).get("adjustment_id"),
        )


def _unchanged(slot: CorrectionSlot) -> Document:
    return {"correction.revision": slot.revision} if slot.revision else {"correction": None}


def _alert(found: Document, budget: Budget, key: str, now: str) -> BudgetAlert | None:
    """Return the largest share of a budget that is reached, unless it was told or its window is over.

    What was told counts, not what the last call has reached: nobody hears of what reconciliation adds.
    """
    amount = spent(found, budget.window, key)
    shares = [share for share in SHARES if budget.limit and amount * 100 / budget.limit >= share]  # no sum of money
    is_over = any(key < later <= now for later in amounts(found, budget.window))
    if is_over or max(shares, default=0) <= share_told(found, budget.window, key, budget.limit):
        return None
    return BudgetAlert(window=budget.window, percent=shares[-1], spent=amount, limit=budget.limit)
