"""Enforces what one turn may still spend: its tenant's budgets, and its own limit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from godoty_service.budgets.alerts import BudgetAlert
from godoty_service.budgets.budget import Budget
from godoty_service.budgets.charges import call_charge
from godoty_service.budgets.refusals import Figures, max_cost_too_low
from godoty_service.budgets.service import BudgetService
from godoty_service.errors import CostUnbounded
from godoty_service.ledger.entries import ModelCall
from godoty_service.pricing import money
from godoty_service.pricing.planned_call import PlannedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class SubAgentLimit:
    """A limit on the cost of one call of a sub-agent, with the agents that it calls.

    Attributes:
        path: The sub-agent, as in `ModelCall.agent_path`.
        max_cost: In US dollars.
    """

    path: str
    max_cost: Decimal

    def covers(self, call: ModelCall) -> bool:
        """Return whether a model call counts for the limit."""
        return f"{call.agent_path or ''}/".startswith(f"{self.path}/")


class TurnBudget:
    """Admits the calls of a turn, one by one."""

    def __init__(self, budget_service: BudgetService, *, budgets: Sequence[Budget], max_cost: Decimal | None) -> None:
        """Create it.

        Args:
            budget_service: Reserves and settles calls.
            budgets: The tenant's budgets when the turn begins.
            max_cost: The limit of the turn, in US dollars.
        """
        self._budget_service = budget_service
        self._budgets: Sequence[Budget] = budgets
        self._tracked = False
        self._max_cost = max_cost
        self.alerts: list[BudgetAlert] = []

    @property
    def bounded(self) -> bool:
        """Whether each call must have a finite upper bound."""
        return self._max_cost is not None or any(budget.hard for budget in self._budgets)

    async def refresh(self, tenant_id: str) -> None:
        """Refresh the tenant's budgets: they may change during a turn."""
        budgets = await self._budget_service.budgets_of(tenant_id)
        self._tracked = budgets is not None
        self._budgets = budgets or ()

    @property
    def tracked(self) -> bool:
        """Whether the tenant's spending is tracked: each call is reserved before it is sent."""
        return self._tracked

    async def refresh_tracking(self, tenant_id: str) -> None:
        """Refresh whether the tenant's spending is tracked. The budgets stay those that the next request is made for.

        A call's start time must be taken before: tracking that starts later then starts after the call.
        """
        self._tracked = self._tracked or await self._budget_service.budgets_of(tenant_id) is not None

    async def output_limit(
        self, call: PlannedCall, model: str, earlier: Sequence[ModelCall], limits: Sequence[SubAgentLimit] = ()
    ) -> int | None:
        """Return the largest output limit with which a call fits into what the turn and its tenant have not spent.

        Args:
            call: The call, before it is inserted into the ledger.
            model: The requested model.
            earlier: The turn's earlier calls.
            limits: The limits of the sub-agents that the call is of.

        Raises:
            CostUnbounded: The call has no finite upper bound, but must have one.
            MaxCostTooLow: Even with its smallest limit it might exceed the turn's limit.
            BudgetSpent: Even with its smallest limit it does not fit into a hard budget.
            BudgetReserved: It does not fit into a hard budget because of other open calls.
        """
        if not (self.bounded or limits):
            return call.asked
        if call.bound(call.asked) is None:
            raise _unbounded(call, model)
        if self._max_cost is not None:
            call = replace(call, asked=_limit_within(self._max_cost, call, earlier))
        for each in limits:
            own = [other for other in earlier if each.covers(other)]
            call = replace(call, asked=_limit_within(each.max_cost, call, own))
        return await self._budget_service.output_limit(call, self._budgets) if self._tracked else call.asked

    async def reserve(self, call: ModelCall) -> None:
        """Reserve a call's upper bound in the tenant's budgets.

        Raises:
            BudgetSpent: It does not fit into a hard budget.
            BudgetReserved: It does not fit because of other open calls.
        """
        if self._tracked:
            await self._budget_service.reserve(call, self._budgets)

    async def settle(self, call: ModelCall) -> None:
        """Settle a closed call."""
        if self._tracked:
            self.alerts.extend(await self._budget_service.settle(call, self._budgets))


def _unbounded(call: PlannedCall, model: str) -> CostUnbounded:
    """Return the error of a call without a finite bound, which names what has none."""
    tools = ", ".join(call.unbounded_tools)
    cost = f"The cost of {tools}" if tools else "The model's cost"
    return CostUnbounded(
        f"{cost} has no finite bound, which a hard budget and max_cost_usd need.",
        metadata={"model": model, **({"server_tools": tools} if tools else {})},
    )


def _limit_within(max_cost: Decimal, call: PlannedCall, earlier: Sequence[ModelCall]) -> int | None:
    """Return the largest output limit with which a call fits into the turn's own limit.

    Raises:
        MaxCostTooLow: There is none.
    """
    open_calls = [each for each in earlier if each.counts.open]
    spent = money.total(call_charge(each) for each in earlier if not each.counts.open)
    reserved = money.total(each.upper_bound or Decimal(0) for each in open_calls)
    remaining = money.subtract(money.subtract(max_cost, spent), reserved)
    limit = call.limit_within(remaining)
    needed = call.bound(call.least if limit is None else limit) or Decimal(0)
    if needed > remaining:
        raise max_cost_too_low(Figures(limit=max_cost, spent=spent, reserved=reserved, needed=needed))
    return limit
