"""How many turns a tenant may start in a minute and run at once, across servers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from godoty_service.errors import QuotaExceeded, RateLimited, TooManyTurns
from godoty_service.mongo import Database, open_database
from godoty_service.tenancy.gates import Gates
from godoty_service.tenancy.local_gates import DefaultLimits, LocalGates
from godoty_service.tenancy.policy import NO_POLICY, Policy
from tests.budgets.test_hard_budget import converse
from tests.conftest import Start
from tests.faults.world import World, open_world
from tests.service.caller import Caller
from tests.service.service import Service


@pytest.fixture
async def world(mongodb_uri: str, tmp_path: Path) -> AsyncIterator[World]:
    """A world of its own."""
    name = f"godoty_test_gates_{secrets.token_hex(4)}"
    async with open_world(mongodb_uri=mongodb_uri, name=name, directory=tmp_path) as opened:
        yield opened


@pytest.fixture
async def database(mongodb_uri: str, new_database: str) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(uri=mongodb_uri, name=new_database)
    yield opened
    await opened.close()


def gates_of(database: Database) -> Gates:
    """Build the gates of a server whose own limits are out of the way."""

    async def living(among: Collection[str]) -> set[str]:
        return set(among)

    defaults = DefaultLimits(turns_per_minute=1_000_000, concurrent_turns=1_000_000)
    return Gates(database.collection("gates"), replica_id="replica", living=living, defaults=defaults)


async def refused(gates: Gates, policy: Policy) -> QuotaExceeded:
    """Try to let a turn in that is to be refused."""
    with pytest.raises(QuotaExceeded) as caught:
        await gates.enter("tenant", "turn_refused", policy)
    return caught.value


async def test_entry_that_lands_after_its_turn_has_left_is_not_counted(database: Database) -> None:
    """A turn that is over takes nobody's place, though the database has taken its entry in only now."""
    gates, one = gates_of(database), Policy(concurrent_turns=1)
    await gates.enter("tenant", "turn_1", one)
    await gates.leave("tenant", "turn_1", one)
    late = {"$set": {"running.turn_1": "replica"}}
    assert await database.collection("gates").update_one({"_id": "tenant"}, late)

    await gates.enter("tenant", "turn_2", one)
    assert isinstance(await refused(gates, one), TooManyTurns)


async def test_a_refusal_holds_only_for_the_rate_that_refused(database: Database) -> None:
    """Raised or removed, the limit lets the next turn in as soon as the new one has room; the old one refuses on."""
    gates, slow, fast = gates_of(database), Policy(turns_per_minute=1), Policy(turns_per_minute=6000)
    await gates.enter("tenant", "turn_1", slow)
    await refused(gates, slow)
    with pytest.raises(RateLimited):
        gates.check("tenant", slow)

    for policy in (NO_POLICY, fast):
        gates.check("tenant", policy)
    await asyncio.sleep(0.02)  # two turns' share of a minute
    await gates.enter("tenant", "turn_2", fast)
    with pytest.raises(RateLimited):
        gates.check("tenant", slow)


async def test_who_waits_as_long_as_told_may_start(database: Database) -> None:
    """A refusal tells how long it is to the next turn, not a whole share of the minute; and that is enough."""
    gates, policy = gates_of(database), Policy(turns_per_minute=120)
    await gates.enter("tenant", "turn_1", policy)
    almost: list[dict[str, Any]] = [{"$set": {"tokens": 0.8, "time": "$$NOW"}}]
    await database.collection("gates").update_one({"_id": "tenant"}, almost)
    refusal = await refused(gates, policy)
    assert refusal.retry_after is not None
    await asyncio.sleep(int(refusal.retry_after * 1000) / 1000)  # as a caller is told

    assert 0 < refusal.retry_after < 0.2 * 0.5 + 0.01
    gates.check("tenant", policy)
    await gates.enter("tenant", "turn_2", policy)


async def test_only_what_is_reached_is_told(database: Database) -> None:
    """Under both limits: too many at once while they run, and the rate when they have ended."""
    gates, policy = gates_of(database), Policy(turns_per_minute=2, concurrent_turns=1)
    await gates.enter("tenant", "turn_1", policy)
    first = await refused(gates, policy)
    await gates.leave("tenant", "turn_1", policy)
    gates.check("tenant", policy)
    await gates.enter("tenant", "turn_2", policy)
    await gates.leave("tenant", "turn_2", policy)
    second = await refused(gates, policy)

    assert [(type(each), each.quota) for each in (first, second)] == [
        (TooManyTurns, "turns/concurrent"),
        (RateLimited, "turns/minute"),
    ]


def test_a_server_counts_by_itself_where_a_policy_is_silent() -> None:
    """A full bucket at first, one turn more with each share of a minute, each tenant apart; what leaves makes room."""
    now = 0.0
    gates = LocalGates(DefaultLimits(turns_per_minute=60, concurrent_turns=50), tick=lambda: now)
    for number in range(50):
        gates.enter("tenant", f"turn_{number}", NO_POLICY)
    with pytest.raises(TooManyTurns):
        gates.enter("tenant", "turn_50", NO_POLICY)
    gates.enter("tenant", "turn_50", Policy(concurrent_turns=1))  # counted by the database
    for number in range(50):
        gates.leave("tenant", f"turn_{number}")
    for number in range(9):
        gates.enter("tenant", f"turn_{number}", NO_POLICY)
    with pytest.raises(RateLimited) as caught:
        gates.enter("tenant", "turn_9", NO_POLICY)
    gates.check("tenant", Policy(turns_per_minute=1))
    gates.enter("other", "turn_0", NO_POLICY)

    assert caught.value.retry_after == pytest.approx(1.0, abs=0.01)
    now = 1.0
    gates.enter("tenant", "turn_9", NO_POLICY)
    with pytest.raises(RateLimited):
        gates.check("tenant", NO_POLICY)


async def test_turns_beyond_the_rate_are_refused_with_advice(world: World) -> None:
    """As many turns as fit into a minute may start at once, on whatever server; the next must wait."""
    servers = [world.server(), world.server()]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await world.rooms.policies.set(world.tenant_id, Policy(turns_per_minute=6))
        outcomes = [await converse(world, servers[n % 2].address, "hello") for n in range(10)]

        assert [reason for reason, _ in outcomes[:6]] == ["", "", "", "", "", ""]
        assert {"RATE_LIMITED"} == {reason for reason, _ in outcomes[6:]}
    finally:
        for server in servers:
            await server.stop()


async def test_turns_at_the_same_time_are_bounded_and_let_out_again(world: World) -> None:
    """Two of six may run; when they have ended, also by a kill of their server, others may."""
    servers = [world.server(), world.server()]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await world.rooms.policies.set(world.tenant_id, Policy(concurrent_turns=2))
        slow = "@sandbox slow tokens=4 first_delay_ms=300 delay_ms=20"
        outcomes = await asyncio.gather(*(converse(world, servers[n % 2].address, slow) for n in range(6)))
        after, _ = await converse(world, servers[0].address, "hello")
        held = [asyncio.create_task(converse(world, servers[0].address, slow)) for _ in range(2)]
        await asyncio.sleep(0.2)
        await servers[0].kill()
        await asyncio.gather(*held)
        async with asyncio.timeout(5):
            while (await converse(world, servers[1].address, "hello"))[0] == "TOO_MANY_TURNS":
                await asyncio.sleep(0.2)

        assert sum(reason == "" for reason, _ in outcomes) == 2
        assert {"", "TOO_MANY_TURNS"} == {reason for reason, _ in outcomes}
        assert after == ""
    finally:
        for server in servers:
            await server.stop()


async def test_a_policy_names_the_models_that_may_be_asked(world: World) -> None:
    """Another model is refused before anything is written; the tenant's default model is asked where none is named."""
    server = world.server()
    await server.start()
    try:
        policy = Policy(
            allowed_models=("anthropic/*",), default_model="anthropic/claude-haiku-4.5", zero_data_retention=True
        )
        await world.rooms.policies.set(world.tenant_id, policy)
        refused, _ = await converse(world, server.address, "hello", model="openai/gpt-4o-mini")
        fallback, _ = await converse(
            world,
            server.address,
            "hello",
            model="anthropic/claude-haiku-4.5",
            fallback_models=["openai/gpt-4o-mini"],
        )
        served, _ = await converse(world, server.address, "hello")

        lines = world.sandbox.invoice.lines()
        assert (refused, fallback, served) == ("MODEL_NOT_ALLOWED", "MODEL_NOT_ALLOWED", "")
        assert [line.model for line in lines] == ["anthropic/claude-haiku-4.5"]
    finally:
        await server.stop()


async def test_a_session_is_free_when_its_turn_has_ended(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next turn of a session need not wait until the gate has let the last one out."""
    leave = Gates.leave

    async def slowly(gates: Gates, *given: Any) -> None:
        await asyncio.sleep(0.3)
        await leave(gates, *given)

    monkeypatch.setattr(Gates, "leave", slowly)
    caller = connect(await serve())
    assert (await caller.converse("hello")).finished
    assert (await caller.converse("and again")).finished
