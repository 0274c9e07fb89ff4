"""Turns under fire: a plan drawn from a seed, and the storm that carries it out."""

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

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.sandbox.malformed import MALFORMED
from godoty_service.tenancy.policy import Policy
from tests.faults.adjusting import Orders, adjust
from tests.faults.books import differences, spending_at
from tests.faults.world import ServerProcess, World
from tests.service.system_clock import SKEW

# Models whose providers stop billing when the connection closes, and such that bill the whole answer.
MODELS = (
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-flash",
    "deepseek/deepseek-v3.2",
    "meta-llama/llama-3.3-70b-instruct",
)
_MALFORMED = "reset n=900 record_reads=2 record="  # and one of the sandbox's malformed records, drawn with the turn
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
MOST_SKEW = 600.0  # seconds that a server's clock is ahead or behind
# Nobody reaches these; under a hard one each call is bounded, and reserved before it is made.
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
    """One turn, and what its client does to it after how many seconds."""

    tenant: int
    session: str
    scenario: str
    model: str
    client: str
    after: float


@dataclass
class Storm:
    """What happened.

    Attributes:
        outcomes: How the turns ended, by status.
        kills: How often a server was killed.
        policies: How often a tenant's budgets were changed.
        alarms: What the books' own proof named meanwhile.
        proofs: How often it ran.
        orders: The adjustments that were ordered.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    policies: int = 0
    alarms: list[str] = field(default_factory=list)
    proofs: int = 0
    orders: Orders = field(default_factory=Orders)


def plan(rng: random.Random, *, turns: int, sessions: int) -> list[PlannedTurn]:
    """Draw turns."""
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


async def rage(world: World, servers: list[ServerProcess], seed: int, *, turns: int, kills: int, clients: int) -> Storm:
    """Let clients take turns while servers are killed and started again, until both are through.

    Meanwhile budgets come and go, which nobody's turn exceeds, settled calls are adjusted, and the books are proven
    over and over. A server that is started again has a clock that is off by up to ten minutes. Of two tenants
    one has had budgets for long, the other gets its first one in the midst. Whatever draws has dice of its own: a
    seed says what each of them does, however the others come in between.
    """
    storm = Storm()
    tenants = [(world.tenant_id, world.api_key), await world.another_tenant()]
    long_ago, _ = spending_at(world.rooms, -timedelta(minutes=1))
    async with long_ago.counting(world.tenant_id):
        await world.rooms.policies.set(world.tenant_id, POLICIES[0])
    killer = asyncio.create_task(_kill(servers, random.Random(f"{seed}-killer"), storm, kills=kills))
    beside = [
        asyncio.create_task(_govern(world, random.Random(f"{seed}-policies"), storm, tenants)),
        asyncio.create_task(_prove(world, storm)),
        asyncio.create_task(
            adjust(world, servers, random.Random(f"{seed}-orders"), storm.orders, [each for each, _ in tenants])
        ),
    ]
    try:
        await asyncio.gather(
            *(
                _client(
                    servers,
                    random.Random(f"{seed}-{n}"),
                    storm,
                    keys=[key for _, key in tenants],
                    turns=-(-turns // clients),
                    killer=killer,
                )
                for n in range(clients)
            )
        )
        await killer
    finally:
        for each in beside:
            each.cancel()
    ended = await asyncio.gather(*beside, return_exceptions=True)
    storm.alarms += [repr(each) for each in ended if not isinstance(each, asyncio.CancelledError)]
    return storm


async def _client(
    servers: list[ServerProcess],
    rng: random.Random,
    storm: Storm,
    *,
    keys: Sequence[str],
    turns: int,
    killer: asyncio.Task[None],
) -> None:
    """Take the turns that were drawn; while there is still somebody to kill, take them again."""
    drawn = plan(rng, turns=turns, sessions=SESSIONS)
    for turn in itertools.chain(drawn, iter(lambda: rng.choice(drawn), None)):
        if turns <= 0 and killer.done():
            return
        turns -= 1
        outcome = await _take(rng.choice(servers).address, turn, key=keys[turn.tenant])
        storm.outcomes[outcome] += 1
        if outcome in ("UNAVAILABLE", "ABORTED"):
            await asyncio.sleep(0.05)


async def _govern(world: World, rng: random.Random, storm: Storm, tenants: Sequence[tuple[str, str]]) -> None:
    """Change budgets for ever, a tenant's first one in the middle of turns that know of none."""
    while True:
        await asyncio.sleep(rng.uniform(0.2, 1.2))
        await world.rooms.administration.set_policy("storm", rng.choice(tenants)[0], rng.choice(POLICIES))
        storm.policies += 1


async def _prove(world: World, storm: Storm) -> None:
    """Prove the books for ever, while servers write and die."""
    while True:
        await asyncio.sleep(0.5)
        storm.alarms += [each async for each in differences(world.rooms)]
        storm.proofs += 1


async def _take(address: str, turn: PlannedTurn, *, key: str) -> str:
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


async def _kill(servers: list[ServerProcess], rng: random.Random, storm: Storm, *, kills: int) -> None:
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0.1, 1.2))
        victim = rng.choice(servers)
        await victim.kill()
        storm.kills += 1
        victim.environment[SKEW] = str(rng.uniform(-MOST_SKEW, MOST_SKEW))
        await victim.start()
