"""A tenant's first budget: tracking starts before the policy is in force, or the policy is not in force at all."""

from datetime import datetime
from decimal import Decimal

import pytest

from godoty_service.bootstrap import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.charges import OpeningBalance
from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.errors import StorageUnavailable
from godoty_service.tenancy.policies import NO_POLICY, Policies, Policy
from tests.support.caller import Caller

BUDGET = Budget(window=BudgetWindow.MONTH, limit=Decimal(100), hard=True)


async def test_first_budget_without_opening_balance_is_not_in_force(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is refused and the tenant's turns run unbounded as before; set again, the budget is enforced."""
    tenant_id = caller.service.tenant_id
    assert (await caller.converse("hello")).finished
    async with open_components(caller.service.backends.settings(caller.service.database.name)) as components:

        async def fail(*_: object, **__: object) -> OpeningBalance:
            raise StorageUnavailable("too slow")

        monkeypatch.setattr(OpeningBalanceJob, "before", fail)
        with pytest.raises(StorageUnavailable):
            await components.administration.set_policy("me", tenant_id, Policy(budgets=(BUDGET,)))
        policy = await components.tenancy.policies.read(tenant_id)
        assert (await caller.converse("hello again")).finished
        monkeypatch.undo()
        await components.administration.set_policy("me", tenant_id, Policy(budgets=(BUDGET,)))
        (status,) = await components.budgets.service.status(tenant_id)

    assert policy == NO_POLICY
    assert status.spent == caller.service.invoiced("talk") > 0
    assert (await caller.converse("and again")).finished


async def test_tracking_has_started_when_the_policy_is_written(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server that reads the policy finds the opening balance; once it is written, `since` is set."""
    tenant_id = caller.service.tenant_id
    assert (await caller.converse("hello")).finished
    steps: list[tuple[str, datetime | None]] = []
    real = Policies.set

    async def watched(policies: Policies, tenant: str, policy: Policy) -> None:
        steps.append(("writing", await components.budgets.store.since(tenant)))
        await real(policies, tenant, policy)

    monkeypatch.setattr(Policies, "set", watched)
    async with open_components(caller.service.backends.settings(caller.service.database.name)) as components:
        before = await components.budgets.store.since(tenant_id)
        await components.administration.set_policy("me", tenant_id, Policy(budgets=(BUDGET,)))
        steps.append(("written", await components.budgets.store.since(tenant_id)))
        now = await components.database.now()

    assert before is None
    assert [step for step, _ in steps] == ["writing", "written"]
    (_, writing), (_, written) = steps
    assert writing is not None
    assert written is not None
    assert now < written < writing
