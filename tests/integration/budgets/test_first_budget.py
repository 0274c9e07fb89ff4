"""A tenant's first budget: tracking starts before the policy is in force, or the policy is not in force at all."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.bootstrap.components import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.charges import OpeningBalance
from godoty_service.budgets.document import UNKNOWN
from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.errors import StorageUnavailable
from godoty_service.tenancy.errors import EtagMismatch
from godoty_service.tenancy.policies import NO_POLICY, Policies, Policy, PolicyChange, PolicyVersion
from tests.conftest import Start
from tests.faults.invoice_comparison import spending_at
from tests.support.backends import ME
from tests.support.caller import Caller
from tests.support.service import Service

BUDGET = Budget(window=BudgetWindow.MONTH, limit=Decimal(100), hard=True)
HARD_AND_SOFT = pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])


@HARD_AND_SOFT
async def test_first_budget_without_opening_balance_is_not_in_force(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, *, hard: bool
) -> None:
    """The change is refused and turns run as before, also if it is revoked; set again, the budget counts."""
    tenant_id, change = caller.service.tenant_id, PolicyChange(policy=Policy(budgets=(replace(BUDGET, hard=hard),)))
    assert (await caller.converse("hello")).finished
    async with open_components(caller.service.backends.settings(caller.service.database.name)) as components:

        async def fail(*_: object, **__: object) -> OpeningBalance:
            raise StorageUnavailable("too slow")

        monkeypatch.setattr(OpeningBalanceJob, "before", fail)
        with pytest.raises(StorageUnavailable):
            await components.administration.update_policy(ME, tenant_id, change)
        policy = await components.tenancy.policies.read(tenant_id)
        assert (await caller.converse("hello again")).finished
        await components.administration.update_policy(ME, tenant_id, PolicyChange(policy=NO_POLICY))
        assert (await caller.converse("hello once more")).finished
        monkeypatch.undo()
        await components.administration.update_policy(ME, tenant_id, change)
        (status,) = await components.budgets.service.status(tenant_id)

    assert policy == NO_POLICY
    assert status.spent == caller.service.invoiced("talk") > 0
    assert (await caller.converse("and again")).finished


async def test_tracking_has_started_when_the_policy_is_written(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server that reads the policy finds the opening balance; once it is written, `since` is set."""
    tenant_id = caller.service.tenant_id
    assert (await caller.converse("hello")).finished
    steps: list[tuple[str, datetime | None]] = []
    real = Policies.update

    async def watched(policies: Policies, tenant: str, change: PolicyChange, *, over: PolicyVersion) -> bool:
        steps.append(("writing", await components.budgets.store.since(tenant)))
        return await real(policies, tenant, change, over=over)

    monkeypatch.setattr(Policies, "update", watched)
    async with open_components(caller.service.backends.settings(caller.service.database.name)) as components:
        before = await components.budgets.store.since(tenant_id)
        await components.administration.update_policy(ME, tenant_id, PolicyChange(policy=Policy(budgets=(BUDGET,))))
        steps.append(("written", await components.budgets.store.since(tenant_id)))
        now = await components.database.now()

    assert before is None
    assert [step for step, _ in steps] == ["writing", "written"]
    (_, writing), (_, written) = steps
    assert writing is not None
    assert written is not None
    assert now < written < writing


async def test_first_budget_that_another_change_overtakes_begins_no_tracking(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers would not know of it and reserve nothing: what is spent until a budget is in force would be in no sum."""
    tenant_id, real = caller.service.tenant_id, Policies.update

    async def overtaken(policies: Policies, tenant: str, change: PolicyChange, *, over: PolicyVersion) -> bool:
        monkeypatch.undo()
        await policies.set(tenant, Policy(turns_per_minute=1000))
        return await real(policies, tenant, change, over=over)

    async with open_components(caller.service.backends.settings(caller.service.database.name)) as components:
        policies, policy = components.tenancy.policies, Policy(budgets=(BUDGET,))
        etag = (await policies.read_version(tenant_id)).etag
        monkeypatch.setattr(Policies, "update", overtaken)
        with pytest.raises(EtagMismatch):
            await components.administration.update_policy(ME, tenant_id, PolicyChange(policy=policy, etag=etag))
        in_force = await policies.budgets(tenant_id)
        await components.budgets.maintenance.run_once()
        since = await components.budgets.store.since(tenant_id)
        assert (await caller.converse("hello")).finished
        await components.administration.update_policy(ME, tenant_id, PolicyChange(policy=policy))
        (status,) = await components.budgets.service.status(tenant_id)

    assert in_force is None
    assert since == UNKNOWN
    assert status.spent == caller.service.invoiced("talk") > 0


@HARD_AND_SOFT
async def test_turns_run_while_the_final_balance_cannot_be_summed(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch, *, hard: bool
) -> None:
    """The budget is in force with its first balance; once the final one can be summed, it has every charge."""
    caller = connect(await serve())
    tenant_id = caller.service.tenant_id
    async with open_components(caller.service.backends.settings(caller.service.database.name)) as components:
        policy = Policy(budgets=(replace(BUDGET, hard=hard),))
        await components.administration.update_policy(ME, tenant_id, PolicyChange(policy=policy))
        assert (await caller.converse("hello")).finished
        failed: list[str] = []
        before = OpeningBalanceJob.before

        async def fail(job: OpeningBalanceJob, of_tenant: str, end: datetime, *, at: datetime) -> OpeningBalance:
            if of_tenant != tenant_id:
                return await before(job, of_tenant, end, at=at)
            failed.append(of_tenant)
            raise StorageUnavailable("too slow")

        monkeypatch.setattr(OpeningBalanceJob, "before", fail)
        _, maintenance = spending_at(components, timedelta(minutes=5))
        await maintenance.run_once()
        assert (await caller.converse("hello again")).finished
        monkeypatch.undo()
        await maintenance.run_once()
        await maintenance.run_once()
        (status,) = await components.budgets.service.status(tenant_id)

    assert failed
    assert status.spent == caller.service.invoiced("talk") > 0
