"""How many turns a tenant may start in a minute and run at once, across servers."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from godoty_service.tenancy.policy import Policy
from tests.budgets.test_hard_budget import converse
from tests.faults.world import World, open_world


@pytest.fixture
async def world(mongodb_uri: str, tmp_path: Path) -> AsyncIterator[World]:
    """A world of its own."""
    name = f"godoty_test_gates_{secrets.token_hex(4)}"
    async with open_world(mongodb_uri=mongodb_uri, name=name, directory=tmp_path) as opened:
        yield opened


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
