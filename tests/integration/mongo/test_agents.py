"""Agents as the database has them: versions that a dead server left behind, limits, and what is cached."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from godoty_service.agents import store
from godoty_service.agents.built_in import BUILT_IN
from godoty_service.agents.definitions import Agent, AgentDefinition, AgentVersion, McpTools
from godoty_service.agents.errors import AgentChanged, AgentLimit, AgentNotFound
from godoty_service.agents.store import Agents
from godoty_service.agents.versions import AgentVersions
from godoty_service.clock import utc_now
from godoty_service.mongo.client import Database

ONE = AgentDefinition(name="support", description="one")
TWO = replace(ONE, description="two")


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def agents_of(database: Database, tick: Any = None) -> Agents:
    """Return the agents of a server."""
    for kind in (Agents, AgentVersions):
        await database.collection(kind.COLLECTION).ensure(kind.INDEXES)
    versions = AgentVersions(database.collection("agent_versions"))
    return Agents(database.collection("agents"), versions, tick=tick or Clock())


async def unrecorded(_: Agent | None, __: AgentVersion | None) -> None:
    """Record nothing."""


async def apply(agents: Agents, definition: AgentDefinition, etag: str = "") -> Agent:
    """Apply a definition."""
    return (await agents.apply("tenant", definition, etag=etag, by="key", record=unrecorded))[0]


async def test_version_that_a_dead_server_left_is_completed(database: Database) -> None:
    """It was inserted and not yet the newest: the next change makes it the newest, and has the number after it."""
    agents = await agents_of(database)
    versions = AgentVersions(database.collection("agent_versions"))
    left = AgentVersion(definition=TWO, version=1, create_time=utc_now(), by="dead")
    await versions.insert("tenant", left)
    with pytest.raises(AgentNotFound):
        await agents.get("tenant", "support")

    assert (await apply(agents, ONE)).newest.version == 2
    await versions.insert("tenant", replace(left, version=3))
    assert (await apply(agents, ONE)).newest.version == 2  # the content of the newest: nothing changes
    assert (await apply(agents, replace(ONE, description="three"))).newest.version == 4
    numbers = [
        each.version for each in await agents.lists.versions("tenant", "support", before=None, limit=9, max_bytes=9999)
    ]
    assert numbers == [4, 3, 2, 1]


async def test_retry_of_a_server_that_died_is_the_same_version(database: Database) -> None:
    """The version has the content that is applied again, with the etag of before."""
    agents = await agents_of(database)
    before = await apply(agents, ONE)
    versions = AgentVersions(database.collection("agent_versions"))
    await versions.insert("tenant", AgentVersion(definition=TWO, version=2, create_time=utc_now(), by="dead"))

    assert (await apply(agents, TWO, etag=before.etag)).newest.version == 2


async def test_change_while_another_is_recorded_has_the_next_number(database: Database) -> None:
    """Each attempt is recorded with the state that it changes; with an etag the later one is refused."""
    agents = await agents_of(database)
    first = await apply(agents, ONE)
    recorded: list[tuple[int | None, int | None]] = []

    async def overtaken(old: Agent | None, new: AgentVersion | None) -> None:
        recorded.append((old.newest.version if old is not None else None, new.version if new is not None else None))
        if len(recorded) == 1:
            await apply(agents, replace(ONE, description="meanwhile"))

    agent, changed = await agents.apply("tenant", TWO, etag="", by="key", record=overtaken)
    assert (agent.newest.version, changed, recorded) == (3, True, [(1, 2), (2, 3)])
    recorded.clear()
    with pytest.raises(AgentChanged):
        await agents.apply("tenant", ONE, etag=agent.etag, by="key", record=overtaken)
    assert recorded == [(3, 4)]
    assert first.etag != agent.etag


async def test_deletion_while_a_version_is_applied_is_one_or_the_other(database: Database) -> None:
    """The agent is deleted, or has the version; its number is used once."""
    agents = await agents_of(database)
    await apply(agents, ONE)
    delete = agents.delete("tenant", "support", etag="", record=unrecorded)
    await asyncio.gather(delete, *(apply(agents, replace(ONE, description=str(each))) for each in range(5)))
    agent = await agents.read("tenant", "support")

    assert agent is not None
    assert agent.newest.version == 6
    assert agent.newest == await agents.get_version("tenant", "support", 6)


async def test_change_is_seen_here_at_once_and_elsewhere_soon(database: Database) -> None:
    """Two seconds later at most, also of a name that had no agent."""
    tick = Clock()
    here, there = await agents_of(database, tick), await agents_of(database, tick)
    for agents in (here, there):
        with pytest.raises(AgentNotFound):
            await agents.get("tenant", "support")
    await apply(here, ONE)
    assert (await here.get("tenant", "support")).newest.version == 1
    with pytest.raises(AgentNotFound):
        await there.get("tenant", "support")
    tick.now += 2.0
    assert (await there.get("tenant", "support")).newest.version == 1
    await here.delete("tenant", "support", etag="", record=unrecorded)
    assert (await here.get("tenant", "support")).deleted
    assert not (await there.get("tenant", "support")).deleted
    tick.now += 2.0
    assert (await there.get("tenant", "support")).deleted


async def test_cached_agents_need_no_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that exist, nor names without one, nor versions, nor the server's own."""
    agents = await agents_of(database)
    await apply(agents, ONE)
    for _ in range(2):
        assert await agents.get("tenant", "assistant") is BUILT_IN
        assert (await agents.get("tenant", "support")).newest == await agents.get_version("tenant", "support", 1)
        assert await agents.get_version("tenant", "assistant", 0) is BUILT_IN.newest

        def find_one(*_: Any, **__: Any) -> Any:
            raise AssertionError("it was read")

        monkeypatch.setattr("godoty_service.mongo.collection.Collection.find_one", find_one)


async def test_page_is_bounded_by_all_that_its_definitions_have(database: Database) -> None:
    """Not by their prompts alone."""
    agents = await agents_of(database)
    large = replace(ONE, tools=tuple(McpTools(server="crm", allow=("x" * 128, str(each))) for each in range(60)))
    for number in range(6):
        await apply(agents, replace(large, name=f"a{number}"))
        await apply(agents, replace(large, description=str(number)))
    lists = agents.lists

    assert len(await lists.page("tenant", after="", limit=9, max_bytes=20_000)) == 3
    assert len(await lists.versions("tenant", "support", before=None, limit=9, max_bytes=20_000)) == 3


async def test_cache_is_bounded_by_the_size_of_its_definitions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agents used least recently are read again."""
    monkeypatch.setattr(store, "_CACHED_CHARACTERS", 50_000)
    agents = await agents_of(database)
    for number in range(4):
        await apply(agents, replace(ONE, name=f"a{number}", system_prompt="x" * 20_000))
    for number in range(4):
        await agents.get("tenant", f"a{number}")

    assert len(agents._known) == 2


async def test_content_that_a_later_build_has_written_is_another(database: Database) -> None:
    """This build does not read all of it: the definition that it reads is not the same content."""
    agents = await agents_of(database)
    await apply(agents, ONE)
    (stored,) = await database.collection("agents").find({})
    later = {**json.loads(stored["definition"]), "output_schema": {}}
    await database.collection("agents").update_one({"_id": stored["_id"]}, {"$set": {"definition": json.dumps(later)}})

    assert (await apply(agents, ONE)).newest.version == 2


async def test_tenant_has_a_limited_number_of_agents_and_versions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted ones count, because their versions remain; what exists can still be changed."""
    monkeypatch.setattr(store, "MAX_AGENTS", 2)
    monkeypatch.setattr(store, "MAX_VERSIONS", 2)
    agents = await agents_of(database)
    await apply(agents, ONE)
    await apply(agents, replace(ONE, name="other"))
    await agents.delete("tenant", "other", etag="", record=unrecorded)
    with pytest.raises(AgentLimit):
        await apply(agents, replace(ONE, name="third"))
    assert (await apply(agents, TWO)).newest.version == 2
    with pytest.raises(AgentLimit):
        await apply(agents, ONE)
    assert (await apply(agents, replace(ONE, name="other"))).newest.version == 1


async def test_erased_tenant_has_no_agent(database: Database) -> None:
    """Nor versions; other tenants keep theirs."""
    agents = await agents_of(database)
    await apply(agents, ONE)
    await agents.apply("other", ONE, etag="", by="key", record=unrecorded)
    await agents.erase("tenant")

    assert await database.collection("agents").count({}) == 1
    assert await database.collection("agent_versions").count({}) == 1
    assert await agents.read("tenant", "support") is None
