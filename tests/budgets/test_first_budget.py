"""A tenant's first budget: counting begins before the policy is in force, or the policy is not in force at all."""

from datetime import datetime
from decimal import Decimal

import pytest

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.errors import StorageUnavailable
from godoty_service.metering.charges import Statement
from godoty_service.metering.opening_balance import OpeningBalance
from godoty_service.rooms import open_rooms
from godoty_service.tenancy.policies import Policies
from godoty_service.tenancy.policy import NO_POLICY, Policy
from tests.service.caller import Caller

BUDGET = Budget(window=BudgetWindow.MONTH, limit=Decimal(100), hard=True)


async def test_a_first_budget_whose_opening_balance_fails_is_not_in_force(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is refused and the tenant's turns go on, unbounded as before; set again, it holds."""
    tenant_id = caller.service.tenant_id
    assert (await caller.converse("hello")).finished
    async with open_rooms(caller.service.surroundings.settings(caller.service.database.name)) as rooms:

        async def fail(*_: object, **__: object) -> Statement:
            raise StorageUnavailable("too slow")

        monkeypatch.setattr(OpeningBalance, "until", fail)
        with pytest.raises(StorageUnavailable):
            await rooms.administration.set_policy("me", tenant_id, Policy(budgets=(BUDGET,)))
        policy = await rooms.policies.read(tenant_id)
        assert (await caller.converse("hello again")).finished
        monkeypatch.undo()
        await rooms.administration.set_policy("me", tenant_id, Policy(budgets=(BUDGET,)))
        (status,) = await rooms.spending.status(tenant_id)

    assert policy == NO_POLICY
    assert status.spent == caller.service.invoiced("talk") > 0
    assert (await caller.converse("and again")).finished


async def test_counting_has_begun_when_the_policy_is_written(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server that reads the policy finds what was spent before; when it is written, `since` is set."""
    tenant_id = caller.service.tenant_id
    assert (await caller.converse("hello")).finished
    steps: list[tuple[str, datetime | None]] = []
    real = Policies.set

    async def watched(policies: Policies, tenant: str, policy: Policy) -> None:
        steps.append(("writing", await rooms.budgets.since(tenant)))
        await real(policies, tenant, policy)

    monkeypatch.setattr(Policies, "set", watched)
    async with open_rooms(caller.service.surroundings.settings(caller.service.database.name)) as rooms:
        before = await rooms.budgets.since(tenant_id)
        await rooms.administration.set_policy("me", tenant_id, Policy(budgets=(BUDGET,)))
        steps.append(("written", await rooms.budgets.since(tenant_id)))
        now = await rooms.database.now()

    assert before is None
    assert [step for step, _ in steps] == ["writing", "written"]
    (_, writing), (_, written) = steps
    assert writing is not None
    assert written is not None
    assert now < written < writing
