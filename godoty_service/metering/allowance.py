"""What one turn may still spend: its tenant's budgets, and its own bound."""

from collections.abc import Sequence
from decimal import Decimal

from godoty_service.budget import Budget
from godoty_service.errors import CostUnbounded, MaxCostTooLow
from godoty_service.metering import money
from godoty_service.metering.budgets import BudgetAlert
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.charges import charge
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

    def check(self, call: ModelCall, earlier: Sequence[ModelCall]) -> None:
        """Check a call against the turn's own bound, before anything is written.

        Raises:
            CostUnbounded: The call has no finite bound, and must have one.
            MaxCostTooLow: It might cost more than the turn has left.
        """
        if not self.bounded:
            return
        if call.upper_bound is None:
            raise CostUnbounded(
                "The model's cost has no finite bound, which a hard budget and max_cost_usd need.",
                metadata={"model": call.requested_model},
            )
        if self._max_cost is not None:
            held = money.total(
                (each.upper_bound or Decimal(0)) if each.state is CallState.PENDING else charge(each)
                for each in earlier
            )
            if money.add(held, call.upper_bound) > self._max_cost:
                raise MaxCostTooLow("The next model call might cost more than max_cost_usd.", quota="turn/max_cost_usd")

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
