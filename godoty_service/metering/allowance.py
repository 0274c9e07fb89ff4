"""What one turn may still spend: its tenant's budgets, and its own bound."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from godoty_service.budget import Budget
from godoty_service.errors import CostUnbounded
from godoty_service.metering import money
from godoty_service.metering.budget_refusals import Figures, max_cost_too_low
from godoty_service.metering.budgets import BudgetAlert
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.charges import charge
from godoty_service.metering.planned_call import PlannedCall
from godoty_service.metering.spending import Spending


class Allowance:
    """Lets a turn's calls pass, one by one."""

    def __init__(self, spending: Spending, *, budgets: Sequence[Budget], max_cost: Decimal | None) -> None:
        """Build it.

        Args:
            spending: The tenant's budgets.
            budgets: Those that hold for the tenant when the turn begins.
            max_cost: What the turn may cost in all.
        """
        self._spending = spending
        self._budgets: Sequence[Budget] = budgets
        self._counted = False
        self._max_cost = max_cost
        self.alerts: list[BudgetAlert] = []

    @property
    def bounded(self) -> bool:
        """Each call must have a finite bound."""
        return self._max_cost is not None or any(budget.hard for budget in self._budgets)

    async def renew(self, tenant_id: str) -> None:
        """Take up what budgets hold for the tenant now: a turn may outlast those that it began with."""
        budgets = await self._spending.budgets_of(tenant_id)
        self._counted = budgets is not None
        self._budgets = budgets or ()

    async def output_limit(self, call: PlannedCall, model: str, earlier: Sequence[ModelCall]) -> int | None:
        """Return the largest output limit with which a call fits what the turn and its tenant have not spent.

        Args:
            call: The call, before anything of it is written.
            model: The model that it asks.
            earlier: The turn's earlier calls.

        Raises:
            CostUnbounded: The call has no finite bound, and must have one.
            MaxCostTooLow: Even with its least limit it might cost more than the turn has left.
            BudgetSpent: Even with its least limit it does not fit a hard budget.
            BudgetReserved: It would fit a hard budget, but for what other open calls hold.
        """
        if not self.bounded:
            return call.asked
        if call.bound(call.asked) is None:
            raise CostUnbounded(
                "The model's cost has no finite bound, which a hard budget and max_cost_usd need.",
                metadata={"model": model},
            )
        if self._max_cost is not None:
            call = replace(call, asked=_limit_within(self._max_cost, call, earlier))
        return await self._spending.output_limit(call, self._budgets) if self._counted else call.asked

    async def reserve(self, call: ModelCall) -> None:
        """Reserve a call's bound in the tenant's budgets.

        Raises:
            BudgetSpent: It does not fit.
            BudgetReserved: It does not fit just now.
        """
        if self._counted:
            await self._spending.reserve(call, self._budgets)

    async def settle(self, call: ModelCall) -> None:
        """Take in what a closed call has cost."""
        if self._counted:
            self.alerts.extend(await self._spending.settle(call, self._budgets))


def _limit_within(max_cost: Decimal, call: PlannedCall, earlier: Sequence[ModelCall]) -> int | None:
    """Return the largest output limit with which a call fits the turn's own bound.

    Raises:
        MaxCostTooLow: There is none.
    """
    open_calls = [each for each in earlier if each.state is CallState.PENDING]
    spent = money.total(charge(each) for each in earlier if each.state is not CallState.PENDING)
    held = money.total(each.upper_bound or Decimal(0) for each in open_calls)
    left = money.subtract(money.subtract(max_cost, spent), held)
    limit = call.limit_within(left)
    needed = call.bound(call.least if limit is None else limit) or Decimal(0)
    if needed > left:
        raise max_cost_too_low(Figures(limit=max_cost, spent=spent, held=held, needed=needed))
    return limit
