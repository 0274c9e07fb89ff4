"""A load of turns with injected faults: random turns from a seed, while servers are killed and restarted."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.faults.adjustment_load import RequestedAdjustments, adjust
from tests.faults.cluster import Cluster, ServerProcess
from tests.faults.invoice_comparison import differences, spending_at
from tests.faults.load_agents import apply_agents
from tests.faults.load_client import LoadClient, TurnCounts
from tests.faults.planned_turns import draw_turns
from tests.support.backends import ME
from tests.support.service import soon
from tests.support.system_clock import SKEW

MAX_SKEW = 600.0  # maximum offset of a server's clock, in seconds
# No turn reaches these limits; under a hard budget each call is bounded, and reserved before it is made.
POLICIES = (
    Policy(budgets=(Budget(window=BudgetWindow.DAY, limit=Decimal(1000), hard=True),)),
    Policy(budgets=(Budget(window=BudgetWindow.MONTH, limit=Decimal(1000), hard=False),)),
    Policy(
        max_output_tokens=2000,
        budgets=(
            Budget(window=BudgetWindow.DAY, limit=Decimal(1000), hard=False),
            Budget(window=BudgetWindow.TOTAL, limit=Decimal(1000), hard=True),
        ),
    ),
    Policy(),
)


@dataclass
class LoadResult:
    """The result of a fault load.

    Attributes:
        counts: What has become of the turns.
        kills: Number of server kills.
        policies: Number of policy changes.
        findings: Findings of ledger verification during the load, and of what must hold after it.
        verifications: Number of verifications.
        requested: The adjustments requested.
    """

    counts: TurnCounts = field(default_factory=TurnCounts)
    kills: int = 0
    policies: int = 0
    findings: list[str] = field(default_factory=list)
    verifications: int = 0
    requested: RequestedAdjustments = field(default_factory=RequestedAdjustments)

    @property
    def is_complete(self) -> bool:
        """Whether something of each kind has happened beside the turns."""
        return min(self.policies, self.verifications, len(self.requested.amounts)) > 0


async def set_first_budget(cluster: Cluster) -> None:
    """Set the first budget of the cluster's tenant: its calls are tracked since a minute ago, so all are verified.

    Elsewhere tracking starts some seconds after the policy is in force: a server may have read that there is no budget,
    and have cached it for 3 seconds. Its maintenance does so if it finds that tracking is about to start. Here tracking
    has started already, so no server may be running.
    """
    assert not cluster.serving
    a_minute_ago, _ = spending_at(cluster.components, -timedelta(minutes=1))
    async with a_minute_ago.tracking(cluster.tenant_id):
        await cluster.components.tenancy.policies.set(cluster.tenant_id, POLICIES[0])


async def run_fault_load(
    cluster: Cluster,
    servers: list[ServerProcess],
    seed: int,
    *,
    tenants: Sequence[tuple[str, str]],
    turns: int,
    kills: int,
    clients: int,
) -> LoadResult:
    """Run turns of several clients while servers are killed and restarted, until both are complete.

    Meanwhile budgets are set and removed (no turn exceeds them), settled calls are adjusted, and the ledger is
    verified repeatedly. A restarted server has a clock offset of up to ten minutes. One of the two tenants has budgets
    from the start (`set_first_budget`), the other gets its first one during the load. Each task has its own random
    generator: a seed determines the actions of each task, independent of their interleaving.

    Args:
        cluster: MongoDB, the sandbox and the servers.
        servers: The servers.
        seed: The seed.
        tenants: The ids of two tenants, each with a key.
        turns: How many turns are planned.
        kills: How many servers are killed.
        clients: How many clients run the turns.
    """
    result = LoadResult()
    for tenant_id, _ in tenants:
        await apply_agents(cluster.components, servers[0].address, tenant_id)
    killer = asyncio.create_task(_kill_servers(servers, random.Random(f"{seed}-killer"), result, kills=kills))
    background = [
        asyncio.create_task(_change_policies(cluster, random.Random(f"{seed}-policies"), result, tenants)),
        asyncio.create_task(_verify_repeatedly(cluster, result)),
        asyncio.create_task(
            adjust(cluster, servers, random.Random(f"{seed}-orders"), result.requested, [each for each, _ in tenants])
        ),
    ]
    keys, turns_each = [key for _, key in tenants], -(-turns // clients)
    try:
        await asyncio.gather(
            *(
                _run_client(servers, random.Random(f"{seed}-{n}"), result, keys=keys, turns=turns_each, killer=killer)
                for n in range(clients)
            )
        )
        await killer
        await soon(lambda: result.is_complete or any(each.done() for each in background))
    finally:
        for each in background:
            each.cancel()
    ended = await asyncio.gather(*background, return_exceptions=True)
    result.findings += [repr(each) for each in ended if not isinstance(each, asyncio.CancelledError)]
    return result


async def _run_client(
    servers: list[ServerProcess],
    rng: random.Random,
    result: LoadResult,
    *,
    keys: Sequence[str],
    turns: int,
    killer: asyncio.Task[None],
) -> None:
    """Run the drawn turns, and repeat random ones until all kills are done."""
    drawn = draw_turns(rng, turns=turns)
    for turn in itertools.chain(drawn, iter(lambda: rng.choice(drawn), None)):
        if turns <= 0 and killer.done():
            return
        turns -= 1
        client = LoadClient(servers, keys[turn.tenant], result.counts, random.Random(turn.follow_up))
        outcome = await client.run(turn)
        if outcome in ("UNAVAILABLE", "ABORTED"):
            await asyncio.sleep(0.05)


async def _change_policies(
    cluster: Cluster, rng: random.Random, result: LoadResult, tenants: Sequence[tuple[str, str]]
) -> None:
    """Change random tenants' policies until cancelled; a tenant's first budget is set while turns run without one."""
    while True:
        await asyncio.sleep(rng.uniform(0.2, 1.2))
        await cluster.components.administration.update_policy(
            ME, rng.choice(tenants)[0], PolicyChange(policy=rng.choice(POLICIES))
        )
        result.policies += 1


async def _verify_repeatedly(cluster: Cluster, result: LoadResult) -> None:
    """Verify the ledger until cancelled, while servers write and are killed."""
    while True:
        await asyncio.sleep(0.5)
        result.findings += [each async for each in differences(cluster.components)]
        result.verifications += 1


async def _kill_servers(servers: list[ServerProcess], rng: random.Random, result: LoadResult, *, kills: int) -> None:
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0.1, 1.2))
        victim = rng.choice(servers)
        await victim.kill()
        result.kills += 1
        victim.environment[SKEW] = str(rng.uniform(-MAX_SKEW, MAX_SKEW))
        await victim.start()
