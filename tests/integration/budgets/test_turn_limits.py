"""Limits of the turns that a tenant may start in a minute and run at once, across servers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from godoty_service.errors import QuotaExceeded, RateLimited, TooManyTurns
from godoty_service.mongo.client import Database, open_database
from godoty_service.tenancy.policies import NO_POLICY, Policy
from godoty_service.tenancy.turn_limits import DefaultLimits, LocalTurnLimiter, TurnLimiter
from tests.conftest import Start
from tests.faults.cluster import Cluster, open_cluster
from tests.integration.budgets.test_hard_budget import converse
from tests.support.caller import Caller
from tests.support.service import Service, soon


@pytest.fixture
async def cluster(mongodb_uri: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster of its own."""
    name = f"godoty_test_limits_{secrets.token_hex(4)}"
    async with open_cluster(mongodb_uri=mongodb_uri, name=name, directory=tmp_path) as opened:
        yield opened


@pytest.fixture
async def database(mongodb_uri: str, prepared_database: str) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(uri=mongodb_uri, name=prepared_database)
    yield opened
    await opened.close()


def limiter_of(database: Database) -> TurnLimiter:
    """Return the limiter of a server without limits of its own."""

    async def alive(among: Collection[str]) -> set[str]:
        return set(among)

    defaults = DefaultLimits(turns_per_minute=1_000_000, concurrent_turns=1_000_000)
    return TurnLimiter(database.collection("turn_limits"), replica_id="replica", living=alive, defaults=defaults)


async def refused(limiter: TurnLimiter, policy: Policy) -> QuotaExceeded:
    """Acquire for a turn that must be refused; return the error."""
    with pytest.raises(QuotaExceeded) as caught:
        await limiter.acquire("tenant", "turn_refused", policy)
    return caught.value


async def test_entry_inserted_after_its_turn_ended_is_not_counted(database: Database) -> None:
    """A turn that is over takes no slot, even if the database inserts its entry only now."""
    limiter, one = limiter_of(database), Policy(concurrent_turns=1)
    await limiter.acquire("tenant", "turn_1", one)
    await limiter.release("tenant", "turn_1", one)
    late = {"$set": {"running.turn_1": "replica"}}
    assert await database.collection("turn_limits").update_one({"_id": "tenant"}, late)

    await limiter.acquire("tenant", "turn_2", one)
    assert isinstance(await refused(limiter, one), TooManyTurns)


async def test_refusal_applies_only_to_the_limit_that_refused(database: Database) -> None:
    """If the limit is raised or removed, the next turn is admitted as soon as the new one permits it."""
    limiter, slow, fast = limiter_of(database), Policy(turns_per_minute=1), Policy(turns_per_minute=6000)
    await limiter.acquire("tenant", "turn_1", slow)
    await refused(limiter, slow)
    with pytest.raises(RateLimited):
        limiter.check("tenant", slow)

    for policy in (NO_POLICY, fast):
        limiter.check("tenant", policy)
    await asyncio.sleep(0.02)  # two turns' share of a minute
    await limiter.acquire("tenant", "turn_2", fast)
    with pytest.raises(RateLimited):
        limiter.check("tenant", slow)


async def test_turn_is_admitted_after_retry_after(database: Database) -> None:
    """A refusal has the time to the next turn, not a whole interval of the rate, and waiting for it is enough."""
    limiter, policy = limiter_of(database), Policy(turns_per_minute=4)
    await limiter.acquire("tenant", "turn_1", policy)
    almost: list[dict[str, Any]] = [{"$set": {"tokens": 0.7, "time": "$$NOW"}}]
    await database.collection("turn_limits").update_one({"_id": "tenant"}, almost)
    refusal = await refused(limiter, policy)
    assert refusal.retry_after is not None
    await asyncio.sleep(int(refusal.retry_after * 1000) / 1000)  # as a caller does

    assert 0 < refusal.retry_after < 0.3 * 15 + 0.01
    limiter.check("tenant", policy)
    await limiter.acquire("tenant", "turn_2", policy)


async def test_refusal_names_only_the_limit_that_is_reached(database: Database) -> None:
    """Under both limits: concurrency while turns run, and the rate when they have ended."""
    limiter, policy = limiter_of(database), Policy(turns_per_minute=2, concurrent_turns=1)
    await limiter.acquire("tenant", "turn_1", policy)
    first = await refused(limiter, policy)
    await limiter.release("tenant", "turn_1", policy)
    limiter.check("tenant", policy)
    await limiter.acquire("tenant", "turn_2", policy)
    await limiter.release("tenant", "turn_2", policy)
    second = await refused(limiter, policy)

    assert [(type(each), each.quota) for each in (first, second)] == [
        (TooManyTurns, "turns/concurrent"),
        (RateLimited, "turns/minute"),
    ]


def test_server_applies_its_own_limits_without_a_policy() -> None:
    """A full bucket at first, one more turn with each interval of the rate, each tenant apart; release frees a slot."""
    now = 0.0
    limiter = LocalTurnLimiter(DefaultLimits(turns_per_minute=60, concurrent_turns=50), tick=lambda: now)
    for number in range(50):
        limiter.acquire("tenant", f"turn_{number}", NO_POLICY)
    with pytest.raises(TooManyTurns):
        limiter.acquire("tenant", "turn_50", NO_POLICY)
    limiter.acquire("tenant", "turn_50", Policy(concurrent_turns=1))  # counted by the database
    for number in range(50):
        limiter.release("tenant", f"turn_{number}")
    for number in range(9):
        limiter.acquire("tenant", f"turn_{number}", NO_POLICY)
    with pytest.raises(RateLimited) as caught:
        limiter.acquire("tenant", "turn_9", NO_POLICY)
    limiter.check("tenant", Policy(turns_per_minute=1))
    limiter.acquire("other", "turn_0", NO_POLICY)

    assert caught.value.retry_after == pytest.approx(1.0, abs=0.01)
    now = 1.0
    limiter.acquire("tenant", "turn_9", NO_POLICY)
    with pytest.raises(RateLimited):
        limiter.check("tenant", NO_POLICY)


async def test_turns_beyond_the_rate_are_refused_with_retry_info(cluster: Cluster) -> None:
    """The turns of one minute may start at once, on any server; the next must wait."""
    servers = [cluster.server(), cluster.server()]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await cluster.components.tenancy.policies.set(cluster.tenant_id, Policy(turns_per_minute=6))
        outcomes = []
        for number in range(10):
            outcomes.append(await converse(cluster, servers[number % 2].address, "hello"))
            # However long that took: no token has been added meanwhile.
            await cluster.components.database.collection("turn_limits").update_many({}, [{"$set": {"time": "$$NOW"}}])

        assert [reason for reason, _ in outcomes[:6]] == ["", "", "", "", "", ""]
        assert {"RATE_LIMITED"} == {reason for reason, _ in outcomes[6:]}
    finally:
        for server in servers:
            await server.stop()


async def test_concurrent_turns_are_limited_and_released(cluster: Cluster) -> None:
    """Two of six may run; when they have ended, also by a kill of their server, others may."""
    servers = [cluster.server(), cluster.server()]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await cluster.components.tenancy.policies.set(cluster.tenant_id, Policy(concurrent_turns=2))
        held = "@sandbox plain tokens=4 hold_after=1 hold="
        turns = [asyncio.create_task(converse(cluster, servers[n % 2].address, f"{held}six")) for n in range(6)]
        await soon(lambda: sum(each.done() for each in turns) == 4)
        cluster.sandbox.holds.allow("six")
        outcomes = await asyncio.gather(*turns)
        after, _ = await converse(cluster, servers[0].address, "hello")
        ledger = cluster.components.database.collection("ledger")
        running = [asyncio.create_task(converse(cluster, servers[0].address, f"{held}killed")) for _ in range(2)]
        async with asyncio.timeout(180):
            while len(await ledger.find({})) < 5:
                await asyncio.sleep(0.05)
        await servers[0].kill()
        await asyncio.gather(*running)
        async with asyncio.timeout(180):
            while (await converse(cluster, servers[1].address, "hello"))[0] == "TOO_MANY_TURNS":
                await asyncio.sleep(0.2)

        assert sum(reason == "" for reason, _ in outcomes) == 2
        assert {"", "TOO_MANY_TURNS"} == {reason for reason, _ in outcomes}
        assert after == ""
    finally:
        for server in servers:
            await server.stop()


async def test_policy_restricts_the_models(cluster: Cluster) -> None:
    """Another model is refused before anything is written; without a model, the tenant's default is requested."""
    server = cluster.server()
    await server.start()
    try:
        policy = Policy(
            allowed_models=("anthropic/*",), default_model="anthropic/claude-haiku-4.5", zero_data_retention=True
        )
        await cluster.components.tenancy.policies.set(cluster.tenant_id, policy)
        refused, _ = await converse(cluster, server.address, "hello", model="openai/gpt-4o-mini")
        fallback, _ = await converse(
            cluster,
            server.address,
            "hello",
            model="anthropic/claude-haiku-4.5",
            fallback_models=["openai/gpt-4o-mini"],
        )
        served, _ = await converse(cluster, server.address, "hello")

        lines = cluster.sandbox.invoice.lines()
        assert (refused, fallback, served) == ("MODEL_NOT_ALLOWED", "MODEL_NOT_ALLOWED", "")
        assert [line.model for line in lines] == ["anthropic/claude-haiku-4.5"]
    finally:
        await server.stop()


async def test_session_is_free_once_its_turn_has_ended(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next turn of a session does not wait for the limiter to release the last one."""
    release = TurnLimiter.release

    async def slowly(limiter: TurnLimiter, *given: Any) -> None:
        await asyncio.sleep(0.3)
        await release(limiter, *given)

    monkeypatch.setattr(TurnLimiter, "release", slowly)
    caller = connect(await serve())
    assert (await caller.converse("hello")).finished
    assert (await caller.converse("and again")).finished
