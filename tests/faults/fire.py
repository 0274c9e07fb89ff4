"""Turns under fire: a plan drawn from a seed, and the storm that carries it out."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from tests.faults.world import ServerProcess, World

# Models whose providers stop billing when the connection closes, and such that bill the whole answer.
MODELS = (
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-flash",
    "deepseek/deepseek-v3.2",
    "meta-llama/llama-3.3-70b-instruct",
)
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
    "tool-loop calls=3 fault=reset at=2 cut_after=1200",
    "tool-loop calls=3 fault=error-mid at=3 error_after=2",
    "cached",
    "byok",
    "no-cost",
    "websearch",
)
CLIENTS = ("read", "read", "read", "read", "cancel", "cancel", "deadline", "disconnect")


@dataclass(frozen=True)
class PlannedTurn:
    """One turn, and what its client does to it after how many seconds."""

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
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    kills: int = 0


def plan(rng: random.Random, *, turns: int, sessions: int) -> list[PlannedTurn]:
    """Draw turns."""
    return [
        PlannedTurn(
            session=f"s{rng.randrange(sessions)}",
            scenario=rng.choice(SCENARIOS),
            model=rng.choice(MODELS),
            client=rng.choice(CLIENTS),
            after=rng.uniform(0.0, 0.35),
        )
        for _ in range(turns)
    ]


async def rage(
    world: World, servers: list[ServerProcess], rng: random.Random, *, turns: int, kills: int, clients: int
) -> Storm:
    """Let clients take turns while servers are killed and started again, until both are through."""
    storm = Storm()
    todo = asyncio.Queue[PlannedTurn]()
    for each in plan(rng, turns=turns, sessions=clients * 3):
        todo.put_nowait(each)
    killer = asyncio.create_task(_kill(servers, rng, storm, kills=kills))
    await asyncio.gather(
        *(_client(world, servers, todo=todo, storm=storm, killer=killer, rng=rng) for _ in range(clients))
    )
    await killer
    return storm


async def _client(
    world: World,
    servers: list[ServerProcess],
    *,
    todo: asyncio.Queue[PlannedTurn],
    storm: Storm,
    killer: asyncio.Task[None],
    rng: random.Random,
) -> None:
    """Take turns until none is left; while there is still somebody to kill, take them again."""
    done: list[PlannedTurn] = []
    while True:
        try:
            turn = todo.get_nowait()
        except asyncio.QueueEmpty:
            if killer.done() or not done:
                return
            turn = rng.choice(done)
        done.append(turn)
        outcome = await _take(world, servers[rng.randrange(len(servers))].address, turn)
        storm.outcomes[outcome] += 1
        if outcome in ("UNAVAILABLE", "ABORTED"):
            await asyncio.sleep(0.05)


async def _take(world: World, address: str, turn: PlannedTurn) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        call = stub.Converse(
            pb.ConverseRequest(session_id=turn.session, text=f"go @sandbox {turn.scenario}", model=turn.model),
            metadata=(("authorization", f"Bearer {world.api_key}"),),
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
        victim = servers[rng.randrange(len(servers))]
        await victim.kill()
        storm.kills += 1
        await victim.start()
