"""The metric of budget alerts: each share that is reached counts once."""

from collections.abc import Callable
from decimal import Decimal

import httpx

from godoty_service.bootstrap.components import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.tenancy.policies import Policy, PolicyChange
from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import Start
from tests.support.backends import ME
from tests.support.caller import Caller
from tests.support.service import Service

NAME = "godoty_budget_alerts_total"


async def _counted(port: int) -> set[str]:
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return {line for line in page.splitlines() if line.startswith(NAME)}


async def test_budget_alerts_are_counted(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """When a turn's call reaches a share, of any tenant and window; not again with the next call."""
    port = free_port()
    service = await serve(metrics_listen=f"127.0.0.1:{port}")
    budgets = (
        Budget(window=BudgetWindow.DAY, limit=Decimal("0.0000001"), hard=False),
        Budget(window=BudgetWindow.TOTAL, limit=Decimal(1000), hard=False),
    )
    tenants = (service, service.another_tenant())
    async with open_components(service.backends.settings(service.database.name)) as components:
        for each in tenants:
            await components.administration.update_policy(
                ME, each.tenant_id, PolicyChange(policy=Policy(budgets=budgets))
            )
    assert await _counted(port) == set()

    for each in tenants:
        responses = [response for _ in range(2) for response in (await connect(each).converse("hello")).responses]
        assert sum(response.HasField("budget_alert") for response in responses) == 1

    assert await _counted(port) == {f'{NAME}{{percent="100",window="day"}} 2.0'}
