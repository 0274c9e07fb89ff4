"""Tracks what each tenant has spent and what its open calls may still cost. Owns `budgets`.

Each tenant has one document, so that a reservation is one atomic operation across all servers; `document.py` describes
its fields.

Settling a call removes its reservation and adds its charge in one update, so it is counted once, whichever server
settles it and however often: without a reservation the update matches nothing.

The document is created before the policy with the tenant's first budget. A server learns of that budget up to some
seconds later, and reserves nothing until then. `since` lies after that time; the charges of calls that started earlier
are summed from the ledger, once at the start and once more when all of these calls have been inserted. From `since` on
every call is reserved, even after the last budget was removed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty_service.aio.caching import TtlCache
from godoty_service.budgets.alerts import BudgetAlert, due_alert
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.calendar import CalendarOf, utc_calendar
from godoty_service.budgets.charges import OpeningBalance, call_charge, reservation_of
from godoty_service.budgets.correction_slots import CorrectionSlots
from godoty_service.budgets.document import (
    MAX_WINDOWS,
    UNKNOWN,
    Keys,
    alerted_path,
    empty_windows,
    first_keys,
    fits,
    latest_change,
    prune_update,
    reservations,
    reserved,
    settlement,
    spent,
    spent_by_key,
    spent_by_window,
)
from godoty_service.budgets.refusals import budget_refusal, unspent
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.ledger.entries import ModelCall
from godoty_service.mongo.collection import Collection, Document, Snapshot
from godoty_service.pricing import money
from godoty_service.pricing.planned_call import PlannedCall

_CACHED_TENANTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """The status of a budget, in US dollars: `spent` includes unresolved calls with their upper bounds."""

    window: BudgetWindow
    limit: Decimal
    hard: bool
    spent: Decimal
    reserved: Decimal
    window_start: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OldReservation:
    """A reservation that is older than settling a call takes."""

    tenant_id: str
    call_id: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedSpending:
    """The tracked spending of a tenant at one time.

    Attributes:
        since: Every call that started at this time or later is reserved.
        first: The key of the earliest window that is tracked.
        spent: US dollars by window and key.
        bounds: The upper bound of each open call, by its id.
        adjustment_id: The adjustment that was added but may not be marked as applied.
    """

    since: datetime
    first: dict[BudgetWindow, str]
    spent: dict[BudgetWindow, dict[str, Decimal]]
    bounds: dict[str, Decimal]
    adjustment_id: str | None


class BudgetStore:
    """Tracks spending by tenant.

    Attributes:
        calendar_of: Returns a tenant's days and months.
        corrections: The slots through which adjustments are applied.
    """

    COLLECTION = "budgets"

    def __init__(
        self, collection: Collection, *, clock: Clock = utc_now, calendar_of: CalendarOf = utc_calendar
    ) -> None:
        self.calendar_of = calendar_of
        self.corrections = CorrectionSlots(collection, calendar_of)
        self._budgets = collection
        self._clock = clock
        self._spent_cache: TtlCache[str, dict[BudgetWindow, tuple[str, Decimal]]] = TtlCache(size=_CACHED_TENANTS)

    def read_at(self, snapshot: Snapshot) -> "BudgetStore":
        """Return a reader of the budgets as of a snapshot; it must not write."""
        return BudgetStore(self._budgets.read_at(snapshot), clock=self._clock, calendar_of=self.calendar_of)

    async def since(self, tenant_id: str) -> datetime | None:
        """Return when tracking starts: `UNKNOWN` until the policy is set; None: the tenant is not tracked."""
        found = await self._budgets.find_one({"_id": tenant_id}, fields={"since": 1})
        return found["since"] if found else None

    async def start_tracking(self, tenant_id: str, balance: OpeningBalance) -> None:
        """Start tracking a tenant's spending from an opening balance; do nothing if its `since` is known.

        Existing reservations are retained: the policy may be in force already.
        """
        calendar = await self.calendar_of(tenant_id)
        fields = {
            "stated": False,
            "first": {"$literal": first_keys(balance)},
            "before": {"$literal": spent_by_window(balance)},
            "spent": {"$ifNull": ["$spent", {"$literal": empty_windows()}]},
            "open": {"$mergeObjects": ["$open", reservations(balance.reservations, calendar)]},
            "alerted": {"$ifNull": ["$alerted", {"$literal": empty_windows()}]},
        }
        with suppress(DuplicateKey):  # the document exists, and its `since` is known
            await self._budgets.update_one({"_id": tenant_id, "since": UNKNOWN}, [{"$set": fields}], upsert=True)

    async def latest_change(self, tenant_id: str) -> datetime | None:
        """Return the latest time of the calls that were settled, and of adjustments, since tracking has no start yet.

        None: there is none.
        """
        found = await self._budgets.find_one({"_id": tenant_id}, fields={"latest": 1}) or {}
        return found.get("latest")

    async def set_tracking_start(
        self, tenant_id: str, *, since: datetime, ahead: OpeningBalance, latest: datetime | None
    ) -> None:
        """Set `since`, once; do nothing if a later call was settled, or a later adjustment made, meanwhile.

        Args:
            tenant_id: The tenant.
            since: By this time every server knows that the tenant's spending is tracked.
            ahead: The charges of calls that started at that time or later, by clocks that were wrong.
            latest: What `latest_change` returned before these charges were summed.
        """
        calendar = await self.calendar_of(tenant_id)
        included = {"$or": [{"latest": latest}, {"latest": {"$lt": since}}]}
        await self._budgets.update_one(
            {"_id": tenant_id, "since": UNKNOWN, **included},
            [
                {
                    "$set": {
                        "since": since,
                        "spent": {"$literal": spent_by_window(ahead)},
                        "open": {"$mergeObjects": [reservations(ahead.reservations, calendar), "$open"]},
                    }
                },
                {"$unset": "latest"},
            ],
        )

    async def tenants_without_start(self) -> list[str]:
        """Return the tenants whose `since` is not set yet."""
        return [each["_id"] for each in await self._budgets.find({"since": UNKNOWN}, fields={"_id": 1})]

    async def delete(self, tenant_id: str) -> bool:
        """Delete a tenant's document; return whether there was one. The next reservation starts tracking again."""
        return await self._budgets.delete_one({"_id": tenant_id})

    async def tenants_without_balance(self, *, until: datetime) -> list[tuple[str, datetime]]:
        """Return the tenants whose `since` is before a time and whose opening balance is not final, with `since`."""
        found = await self._budgets.find({"stated": False, "since": {"$lt": until}}, fields={"since": 1})
        return [(each["_id"], each["since"]) for each in found]

    async def set_opening_balance(self, tenant_id: str, balance: OpeningBalance, *, since: datetime) -> None:
        """Set the final opening balance, in place of all that was tracked of the calls before `since`; once.

        Args:
            tenant_id: The tenant.
            balance: The charges of the calls before `since`.
            since: When tracking starts; another time: the document was rebuilt meanwhile, and nothing is set.
        """
        later = {
            "$filter": {
                "input": {"$objectToArray": "$open"},
                "as": "each",
                "cond": {"$gte": ["$$each.v.time", "$since"]},
            }
        }
        calendar = await self.calendar_of(tenant_id)
        final = {
            "stated": True,
            "first": {"$literal": first_keys(balance)},
            "before": {"$literal": spent_by_window(balance)},
            "open": {"$mergeObjects": [{"$arrayToObject": later}, reservations(balance.reservations, calendar)]},
        }
        await self._budgets.update_one({"_id": tenant_id, "stated": False, "since": since}, [{"$set": final}])

    async def output_limit(self, call: PlannedCall, budgets: Sequence[Budget]) -> int | None:
        """Return the largest output limit with which a call fits into the unspent part of the hard budgets.

        The document is read only if the cached charges do not show that the whole call fits. The limit is an estimate:
        `reserve` decides.

        Raises:
            BudgetSpent: The call does not fit even with its smallest limit.
            BudgetReserved: It does not fit because of the reservations of other open calls.
        """
        hard = [budget for budget in budgets if budget.hard]
        if not hard:
            return call.asked
        keys = (await self.calendar_of(call.tenant_id)).keys(call.start_time)
        if self._known_to_fit(call, hard, keys):
            return call.asked
        found = await self._budgets.find_one({"_id": call.tenant_id})
        if found is None:
            return call.asked
        self._cache_spent(found, keys)
        limit = call.limit_within(unspent(found, hard, keys))
        needed = call.bound(call.least if limit is None else limit)
        if needed is not None and (error := budget_refusal(found, needed, hard, keys)):
            raise error
        return limit

    def _known_to_fit(self, call: PlannedCall, hard: Sequence[Budget], keys: Keys) -> bool:
        cached, needed = self._spent_cache.get(call.tenant_id), call.bound(call.asked)
        if cached is None or needed is None:
            return False
        for budget in hard:
            key, amount = cached[budget.window]
            if key == keys[budget.window] and money.add(amount, needed) > budget.limit:
                return False
        return True

    def _cache_spent(self, found: Document, keys: Keys) -> None:
        """Cache a tenant's charges, as an estimate for its next call."""
        self._spent_cache.put(found["_id"], {window: (key, spent(found, window, key)) for window, key in keys.items()})

    async def reserve(self, call: ModelCall, budgets: Sequence[Budget]) -> bool:
        """Reserve a call's upper bound in all windows at once; return False if the tenant is not tracked.

        Raises:
            BudgetSpent: It does not fit into a hard budget.
            BudgetReserved: It does not fit because of other open calls, or because its window is pruned already.
        """
        calendar = await self.calendar_of(call.tenant_id)
        new, keys = reservation_of(call), calendar.keys(call.start_time)
        fitting = [fits(budget.window, keys, new, budget.limit) for budget in budgets if budget.hard]
        reservation = {f"open.{name}": value for name, value in reservations([new], calendar).items()}
        while not await self._budgets.update_one(
            {"_id": call.tenant_id, "$expr": {"$and": fitting}}, [{"$set": reservation}]
        ):
            found = await self._budgets.find_one({"_id": call.tenant_id})
            if found is None:
                return False
            self._cache_spent(found, keys)
            if refusal := budget_refusal(found, new.bound, budgets, keys, call_id=call.call_id):
                raise refusal
        return True

    async def lacks_reservation(self, call: ModelCall) -> bool:
        """Return whether a call that started when each one was reserved has no reservation."""
        missing = {f"open.{call.call_id}": {"$exists": False}, "since": {"$lte": call.start_time}}
        return await self._budgets.find_one({"_id": call.tenant_id, **missing}, fields={"_id": 1}) is not None

    async def settle(self, call: ModelCall, budgets: Sequence[Budget] = ()) -> list[BudgetAlert]:
        """Remove a closed call's reservation and add its charge, in the windows in which it was reserved.

        Returns the shares of the budgets that are reached and for which no alert was sent; none without a reservation.
        """
        calendar = await self.calendar_of(call.tenant_id)
        reservation, keys = f"open.{call.call_id}", calendar.keys(call.start_time)
        found = await self._budgets.find_one_and_update(
            {"_id": call.tenant_id, reservation: {"$exists": True}},
            [
                {"$set": settlement(f"${reservation}", keys, call_charge(call)) | latest_change(call.start_time)},
                {"$unset": reservation},
            ],
        )
        if found:
            self._cache_spent(found, keys)
        now = calendar.keys(self._clock())
        alerts = [due_alert(found, budget, keys, now) for budget in budgets if found]
        return [alert for alert in alerts if alert is not None]

    async def status(self, tenant_id: str, budgets: Sequence[Budget]) -> list[BudgetStatus]:
        """Return the status of budgets."""
        found = await self._budgets.find_one({"_id": tenant_id}) or {}
        calendar, now = await self.calendar_of(tenant_id), self._clock()
        keys = calendar.keys(now)
        return [
            BudgetStatus(
                window=budget.window,
                limit=budget.limit,
                hard=budget.hard,
                spent=spent(found, budget.window, keys[budget.window]),
                reserved=reserved(found, budget.window, keys[budget.window]),
                window_start=calendar.window_start(budget.window, now),
            )
            for budget in budgets
        ]

    async def record_alert(self, tenant_id: str, alert: BudgetAlert, *, at: datetime) -> bool:
        """Record that an alert was sent; return False if it had been sent already in the window of a time."""
        key = (await self.calendar_of(tenant_id)).keys(at)[alert.window]
        path = alerted_path(alert.window, key, alert.limit)
        return await self._budgets.update_one(
            {"_id": tenant_id, path: {"$not": {"$gte": alert.percent}}}, {"$set": {path: alert.percent}}
        )

    async def old_reservations(self, *, older_than: timedelta) -> list[OldReservation]:
        """Return the reservations that are older than settling a call takes, by the database's clock."""
        age = {"$subtract": ["$$NOW", {"$ifNull": ["$$each.v.made", "$$each.v.time"]}]}
        aged = {"$gt": [age, older_than // timedelta(milliseconds=1)]}
        old = {"$filter": {"input": {"$objectToArray": "$open"}, "as": "each", "cond": aged}}
        found = await self._budgets.aggregate(
            [{"$match": {"open": {"$ne": {}}}}, {"$project": {"old": old}}, {"$match": {"old": {"$ne": []}}}]
        )
        return [
            OldReservation(tenant_id=each["_id"], call_id=call["k"], owner=call["v"].get("owner", ""))
            for each in found
            for call in each["old"]
        ]

    async def release(self, tenant_id: str, call_id: str) -> None:
        """Release the reservation of a call that was never inserted."""
        await self._budgets.update_one({"_id": tenant_id}, {"$unset": {f"open.{call_id}": ""}})

    async def prune(self, now: datetime) -> int:
        """Prune the earliest days and months beyond `MAX_WINDOWS`; return the number of tenants concerned."""
        sizes: list[Any] = [
            {"$gt": [{"$size": {"$objectToArray": {"$ifNull": [f"${part}.{window.value}", {}]}}}, MAX_WINDOWS]}
            for part in ("before", "spent", "alerted")
            for window in BudgetWindow
        ]
        found = await self._budgets.find({"$expr": {"$or": sizes}}, fields={"open": 0})
        for each in found:
            calendar = await self.calendar_of(each["_id"])
            if changes := prune_update(each, calendar.keys(now)):
                await self._budgets.update_one({"_id": each["_id"]}, changes)
        return len(found)

    async def tenants(self, tenant_id: str | None) -> AsyncIterator[str]:
        """Yield the tenants that are tracked: all, or one."""
        async for found in self._budgets.iterate({"_id": tenant_id} if tenant_id else {}, fields={"_id": 1}):
            yield found["_id"]

    async def tracked(self, tenant_id: str) -> TrackedSpending | None:
        """Return the tracked spending of a tenant; None until its opening balance is final."""
        found = await self._budgets.find_one({"_id": tenant_id, "stated": True})
        if found is None:
            return None
        return TrackedSpending(
            since=found["since"],
            first={window: found["first"][window.value] for window in BudgetWindow},
            spent={window: spent_by_key(found, window) for window in BudgetWindow},
            bounds={call_id: each["bound"].to_decimal() for call_id, each in found["open"].items()},
            adjustment_id=(found.get("correction") or {}).get("adjustment_id"),
        )
