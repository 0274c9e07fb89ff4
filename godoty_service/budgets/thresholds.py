"""The shares of budgets that tenants have reached, as their documents show: for webhooks.

They are compared with marks of their own, not with the alerts that turns get: a share is found also if the server died
between a charge and its alert, or if reconciliation charged the call. Nothing is written for it when calls settle.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from godoty_service.budgets.alerts import SHARES
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.document import share_alerted, spent, spent_by_key
from godoty_service.mongo.collection import Collection, Document
from godoty_service.pricing import money

BudgetsOf = Callable[[str], Awaitable[Sequence[Budget] | None]]
Mark = tuple[str, str, str]  # window, key, limit
Marks = Mapping[Mark, int]  # the share in per cent, by what it is of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedThreshold:
    """A share of a budget that was reached.

    Attributes:
        window: The window of the budget.
        key: The day, month or total, such as "2026-11-29".
        percent: The share.
        spent: What is spent in the window, in US dollars.
        limit: The budget.
        hard: Whether it is a hard one.
    """

    window: BudgetWindow
    key: str
    percent: int
    spent: Decimal
    limit: Decimal
    hard: bool

    @property
    def mark(self) -> Mark:
        """What it is a share of."""
        return self.window.value, self.key, money.format_usd(self.limit) or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantThresholds:
    """The shares that a tenant has reached, those of the windows that are tracked.

    Attributes:
        tenant_id: The tenant.
        reached: The largest share of each budget and window.
    """

    tenant_id: str
    reached: tuple[ReachedThreshold, ...] = field(default=())

    @property
    def marks(self) -> Marks:
        """The marks after all of them were reported: those of windows that are not tracked any more are left out."""
        return {each.mark: each.percent for each in self.reached}

    def beyond(self, marks: Marks) -> list[ReachedThreshold]:
        """Return those that are above their marks."""
        return [each for each in self.reached if each.percent > marks.get(each.mark, 0)]


class BudgetThresholds:
    """Reads the shares that are reached. `BudgetStore` owns the collection."""

    def __init__(self, collection: Collection, *, budgets_of: BudgetsOf) -> None:
        """Create it.

        Args:
            collection: `budgets`.
            budgets_of: Returns a tenant's budgets, at most some seconds old.
        """
        self._documents = collection
        self._budgets_of = budgets_of

    async def read(self, tenant_ids: Sequence[str]) -> list[TenantThresholds]:
        """Return what tenants have reached; one whose spending is not tracked has reached nothing."""
        query = {"_id": {"$in": list(tenant_ids)}}
        found = {each["_id"]: each for each in await self._documents.find(query, fields={"open": 0})}
        return [await self._of_tenant(each, found.get(each)) for each in tenant_ids]

    async def tracked(self, *, limit: int) -> list[str]:
        """Return some tenants whose spending is tracked."""
        return [each["_id"] for each in await self._documents.find({}, fields={"_id": 1}, limit=limit)]

    async def _of_tenant(self, tenant_id: str, document: Document | None) -> TenantThresholds:
        if document is None:
            return TenantThresholds(tenant_id=tenant_id)
        budgets = await self._budgets_of(tenant_id) or ()
        reached = tuple(each for budget in budgets for each in _reached(document, budget))
        return TenantThresholds(tenant_id=tenant_id, reached=reached)


def _reached(document: Document, budget: Budget) -> Iterator[ReachedThreshold]:
    """Yield the largest share of a budget in each window: by its alert, and in the last one also by what is spent."""
    window = budget.window
    keys = {*spent_by_key(document, window), *document.get("alerted", {}).get(window.value, {})}
    last = max(keys, default="")
    for key in sorted(keys):
        amount, percent = spent(document, window, key), share_alerted(document, window, key, budget.limit)
        if key == last and budget.limit:
            shares = (each for each in SHARES if amount * 100 / budget.limit >= each)  # not a sum of money
            percent = max(percent, *shares, 0)
        if percent:
            yield ReachedThreshold(
                window=window, key=key, percent=percent, spent=amount, limit=budget.limit, hard=budget.hard
            )
