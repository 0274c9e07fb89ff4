"""A load of turns with injected faults: random turns from a seed, while servers are killed and restarted."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.tenancy.policies import Policy
from openrouter_sandbox.billing.malformed import MALFORMED
from tests.faults.adjustment_load import RequestedAdjustments, adjust
from tests.faults.cluster import Cluster, ServerProcess
from tests.faults.invoice_comparison import differences, spending_at
from tests.support.system_clock import SKEW

# Models of providers that stop billing when the connection closes, and of providers that bill the whole answer.
MODELS = (
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-flash",
    "deepseek/deepseek-v3.2",
    "meta-llama/llama-3.3-70b-instruct",
)
_MALFORMED = "reset n=900 record_reads=2 record="  # completed with a random malformed record of the sandbox
SCENARIOS = (
    "plain tokens=6",
    "plain tokens=40 delay_ms=5",
    "tool-loop calls=4 delay_ms=2",
    "tool-loop calls=3 parallel=2",
    "reasoning",
    "slow tokens=12 first_delay_ms=60 delay_ms=15",
    "delay-headers ms=120",
    "delay-headers ms=120 bill_first=1",
    "error-before status=500 times=1",
    "error-before status=429 retry_after=0",
    "error-before status=503",
    "error-200",
    "error-mid n=3 usage=1",
    "error-mid n=3 usage=0",
    "reset n=0",
    "reset n=900",
    "reset n=2500 rst=1",
    _MALFORMED,
    _MALFORMED,
    "tool-loop calls=3 fault=reset at=2 cut_after=1200",
    "tool-loop calls=3 fault=error-mid at=3 error_after=2",
    "cached",
    "byok",
    "no-cost",
    "websearch",
)
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
SESSIONS = 18
CLIENTS = ("read", "read", "read", "read", "cancel", "cancel", "deadline", "disconnect")


@dataclass(frozen=True)
class PlannedTurn:
    """A turn, and the action of its client (read, cancel, deadline, disconnect) after a number of seconds."""

    tenant: int
    session: str
    scenario: str
    model: str
    client: str
    after: float


@dataclass
class LoadResult:
    """The result of a fault load.

    Attributes:
        outcomes: Number of turns by final status.
        kills: Number of server kills.
        policies: Number of policy changes.
        findings: Findings of ledger verification during the load.
        verifications: Number of verifications.
        requested: The adjustments requested.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    policies: int = 0
    findings: list[str] = field(default_factory=list)
    verifications: int = 0
    requested: RequestedAdjustments = field(default_factory=RequestedAdjustments)


def draw_turns(rng: random.Random, *, turns: int, sessions: int) -> list[PlannedTurn]:
    """Return random turns."""
    return [
        PlannedTurn(
            tenant=rng.randrange(2),
            session=f"s{rng.randrange(sessions)}",
            scenario=_scenario(rng),
            model=rng.choice(MODELS),
            client=rng.choice(CLIENTS),
            after=rng.uniform(0.0, 0.35),
        )
        for _ in range(turns)
    ]


def _scenario(rng: random.Random) -> str:
    drawn = rng.choice(SCENARIOS)
    return drawn + rng.choice(sorted(MALFORMED)) if drawn == _MALFORMED else drawn


async def run_fault_load(
    cluster: Cluster, servers: list[ServerProcess], seed: int, *, turns: int, kills: int, clients: int
) -> LoadResult:
    """Run turns of several clients while servers are killed and restarted, until both are complete.

    Meanwhile budgets are set and removed (no turn exceeds them), settled calls are adjusted, and the ledger is
    verified repeatedly. A restarted server has a clock offset of up to ten minutes. One of the two tenants has budgets
    from the start, the other gets its first one during the load. Each task has its own random generator: a seed
    determines the actions of each task, independent of their interleaving.
    """
    result = LoadResult()
    tenants = [(cluster.tenant_id, cluster.api_key), await cluster.another_tenant()]
    long_ago, _ = spending_at(cluster.components, -timedelta(minutes=1))
    async with long_ago.tracking(cluster.tenant_id):
        await cluster.components.tenancy.policies.set(cluster.tenant_id, POLICIES[0])
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
    drawn = draw_turns(rng, turns=turns, sessions=SESSIONS)
    for turn in itertools.chain(drawn, iter(lambda: rng.choice(drawn), None)):
        if turns <= 0 and killer.done():
            return
        turns -= 1
        outcome = await _run_turn(rng.choice(servers).address, turn, key=keys[turn.tenant])
        result.outcomes[outcome] += 1
        if outcome in ("UNAVAILABLE", "ABORTED"):
            await asyncio.sleep(0.05)


async def _change_policies(
    cluster: Cluster, rng: random.Random, result: LoadResult, tenants: Sequence[tuple[str, str]]
) -> None:
    """Change random tenants' policies until cancelled; a tenant's first budget is set while turns run without one."""
    while True:
        await asyncio.sleep(rng.uniform(0.2, 1.2))
        await cluster.components.administration.set_policy("faults", rng.choice(tenants)[0], rng.choice(POLICIES))
        result.policies += 1


async def _verify_repeatedly(cluster: Cluster, result: LoadResult) -> None:
    """Verify the ledger until cancelled, while servers write and are killed."""
    while True:
        await asyncio.sleep(0.5)
        result.findings += [each async for each in differences(cluster.components)]
        result.verifications += 1


async def _run_turn(address: str, turn: PlannedTurn, *, key: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        call = stub.Converse(
            pb.ConverseRequest(session_id=turn.session, text=f"go @sandbox {turn.scenario}", model=turn.model),
            metadata=(("authorization", f"Bearer {key}"),),
            timeout=turn.after if turn.client == "deadline" else 20.0,
        )
        reading = asyncio.create_task(_read(call))
        if turn.client in ("cancel", "disconnect"):
            await asyncio.wait([reading], timeout=turn.after)
            if not reading.done():
                if turn.client == "disconnect":
                    await channel.close(None)
                else:
                    call.cancel()
        return await reading


async def _read(call: grpc.aio.UnaryStreamCall[pb.ConverseRequest, pb.ConverseResponse]) -> str:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except (asyncio.CancelledError, grpc.aio.UsageError):
        return "CANCELLED"
    return "OK"


async def _kill_servers(servers: list[ServerProcess], rng: random.Random, result: LoadResult, *, kills: int) -> None:
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0.1, 1.2))
        victim = rng.choice(servers)
        await victim.kill()
        result.kills += 1
        victim.environment[SKEW] = str(rng.uniform(-MAX_SKEW, MAX_SKEW))
        await victim.start()
