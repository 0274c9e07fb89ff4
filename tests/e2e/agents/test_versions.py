"""Versions of agents: they never change, each turn takes one, and what it leaves says which."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import grpc
from bson import encode
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import billing_service_pb2, billing_service_pb2_grpc

from godoty_service.ids import new_id
from godoty_service.tenancy.auth import Scope
from tests.conftest import Start
from tests.e2e.agents.conftest import Definer, prompt_of, refused
from tests.e2e.agents.trees import asks, tools
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller, Turn, read
from tests.support.service import LONG_PAUSE, Document, Service, eventually, soon

MODEL, OTHER = "openai/gpt-4o-mini", "openai/gpt-4o"


def stored_versions(service: Service) -> dict[str, bytes]:
    """Return the documents of the tenant's versions, as the database has them, by id."""
    found = service.database["agent_versions"].find({"tenant_id": service.tenant_id})
    return {each["_id"]: encode(each) for each in found}


async def test_version_never_changes(definer: Definer, caller: Caller) -> None:
    """Neither by later versions, nor by a turn, a deletion, or by applying its content anew."""
    first = (await definer.apply(system_prompt="one", model=OTHER, parameters={"seed": 1})).agent_version
    stored = stored_versions(caller.service)
    second = (await definer.apply(system_prompt="two")).agent_version
    await caller.converse("hello", agent="support@1", parameters={"seed": 2}, model=MODEL)
    await definer.call("DeleteAgent", agent="support")
    again = (await definer.apply(system_prompt="two")).agent_version
    third = (await definer.apply(system_prompt="one", model=OTHER, parameters={"seed": 1})).agent_version

    assert (first.version, second.version, third.version) == (1, 2, 3)
    assert again == second
    assert third.definition == first.definition
    assert [await definer.get(f"support@{number}") for number in (1, 2, 3)] == [first, second, third]
    listed = (await definer.call("ListAgentVersions", agent="support")).agent_versions
    assert list(listed) == [third, second, first]
    assert stored_versions(caller.service).items() >= stored.items()
    assert len(stored_versions(caller.service)) == 3


async def test_session_whose_agent_changes_goes_on_with_the_new_one(definer: Definer, caller: Caller) -> None:
    """With its prompt, model, tools and parameters from the next turn on; what has run says which version it was."""
    hold = new_id("hold")
    await definer.apply(system_prompt="one", model=MODEL, tools=[{"builtin": "calculator"}], parameters={"seed": 1})
    running = caller.start(f"@sandbox tool-loop calls=2 hold_after=2 hold={hold}", agent="support")
    await soon(lambda: len(caller.service.requests("talk")) == 1)
    await definer.apply(system_prompt="two", model=OTHER, tools=[{"builtin": "current_time"}], parameters={"seed": 2})
    caller.service.backends.allow(hold)
    turns = [await read(running), await caller.converse("and now?")]

    def given(request: Document) -> tuple[Any, ...]:
        names = [each["function"]["name"] for each in request["tools"]]
        return prompt_of(request), request["model"], names, request["seed"]

    before, after = ("one", MODEL, ["calculator"], 1), ("two", OTHER, ["current_time"], 2)
    assert [given(each) for each in caller.service.requests("talk")] == [before, before, after]
    assert [each.started.agent_version for each in turns] == [1, 2]
    assert [[call.agent_version for call in each.calls] for each in turns] == [[1, 1], [2]]
    shown = [
        (await caller.call("GetTurn", pb.GetTurnRequest(turn_id=each.responses[0].turn_id))).turn for each in turns
    ]
    assert [(each.agent, each.agent_version) for each in shown] == [("support", 1), ("support", 2)]
    assert await billed_versions(caller.service) == [1, 1, 2]
    roles = [each["role"] for each in caller.service.requests("talk")[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]  # the same conversation


async def test_agent_that_is_deleted_in_a_running_turn_ends_it(definer: Definer, caller: Caller) -> None:
    """As it began, and the session goes on with the last version."""
    hold = new_id("hold")
    await definer.apply(system_prompt="one", tools=[{"builtin": "calculator"}])
    running = caller.start(f"@sandbox tool-loop calls=2 hold_after=2 hold={hold}", agent="support")
    await soon(lambda: len(caller.service.requests("talk")) == 1)
    await definer.call("DeleteAgent", agent="support")
    caller.service.backends.allow(hold)
    turn = await read(running)

    assert [each.agent_version for each in turn.calls] == [1, 1]
    assert (await caller.converse("and now?")).started.agent_version == 1
    assert [prompt_of(each) for each in caller.service.requests("talk")] == ["one"] * 3


async def test_changed_agent_acts_as_before_in_the_running_turn(definer: Definer, caller: Caller) -> None:
    """Anew in the next turn, and as it is pinned where it is pinned; entries say which."""
    await definer.apply(system_prompt="first", tools=[{"builtin": "calculator"}])
    await caller.converse("hello", session_id="pinned", agent="support@1")
    hold = new_id("hold")
    running = caller.start(f"@sandbox tool-loop calls=2 hold_after=2 hold={hold}", agent="support")
    await soon(lambda: len(caller.service.requests("talk")) == 1)
    await definer.apply(system_prompt="second")
    caller.service.backends.allow(hold)
    turn = await read(running)
    assert turn.failure is None, turn.failure
    await caller.converse("and now?")
    await caller.converse("and now?", session_id="pinned", agent="support")
    await caller.converse("this one", agent="support@1")
    await caller.converse("this one", session_id="pinned", agent="support@2")
    await caller.converse("and the last")

    prompts = [prompt_of(each) for each in caller.service.requests("talk")]
    assert prompts == ["first", "first", "second", "first", "second"]
    assert [prompt_of(each) for each in caller.service.requests("pinned")] == ["first", "first", "second"]
    assert [each.agent_version for each in caller.service.entries("talk")] == [1, 1, 2, 1, 2]
    assert [each.agent_version for each in caller.service.entries("pinned")] == [1, 1, 2]


async def test_session_of_a_deleted_agent_goes_on(definer: Definer, caller: Caller) -> None:
    """With its last version, and as it is pinned; no new session begins with it."""
    await definer.apply(system_prompt="first")
    await definer.apply(system_prompt="second")
    await caller.converse("hello", agent="support")
    await caller.converse("hello", session_id="pinned", agent="support@1")
    await definer.call("DeleteAgent", agent="support")

    for fields in ({}, {"agent": "support"}, {"agent": "support@1"}):
        assert (await caller.converse("and now?", **fields)).failure is None
    assert (await caller.converse("and now?", session_id="pinned")).failure is None
    assert [prompt_of(each) for each in caller.service.requests("talk")] == ["second"] * 3 + ["first"]
    assert [prompt_of(each) for each in caller.service.requests("pinned")] == ["first"] * 2
    for agent in ("support", "support@1"):
        assert refused(await caller.converse("hello", session_id="new", agent=agent)).reason == "AGENT_NOT_FOUND"
    assert caller.service.session("new") is None


async def test_metrics_have_the_totals_by_agent(definer: Definer, caller: Caller) -> None:
    """One agent has the session's totals; in GetUsage each version has a row of its own."""
    await definer.apply(tools=[{"builtin": "calculator"}])
    await caller.converse("@sandbox tool-loop calls=2", agent="support")
    await definer.apply(description="two")
    await caller.converse("hello")
    await soon(lambda: all(each.cost is not None for each in caller.service.entries("talk")))
    metrics = await caller.metrics()

    (by_agent,) = metrics.by_agent
    assert (by_agent.agent, by_agent.totals) == ("support", metrics.totals)
    assert metrics.totals.turns == 2
    rows = await usage_rows(caller.service, "USAGE_GROUP_AGENT_VERSION", "USAGE_GROUP_AGENT")
    entries = caller.service.entries("talk")
    expected = {
        f"support@{version}": sum(
            (each.cost or Decimal(0) for each in entries if each.agent_version == version), Decimal(0)
        )
        for version in (1, 2)
    }
    assert {keys[0].agent_version: Decimal(totals.cost_usd) for keys, totals in rows} == expected
    assert {keys[1].agent for keys, _ in rows} == {"support"}


async def usage_rows(service: Service, *groups: str) -> list[tuple[Any, Any]]:
    """Return the rows of the tenant's usage by some groups."""
    start = min(each.start_time for each in service.entries("talk"))
    request = billing_service_pb2.GetUsageRequest(group_by=groups)
    request.start_time.FromDatetime(start.replace(minute=0, second=0, microsecond=0))
    request.end_time.seconds = request.start_time.seconds + 7200
    async with billing(service) as (stub, metadata):
        found = await stub.GetUsage(request, metadata=metadata)
    return [(row.keys, row.totals) for row in found.rows]


async def billed_versions(service: Service) -> list[int]:
    """Return the versions of the tenant's ledger entries, as ListLedgerEntries and ExportLedger have them."""
    listed, token = [], ""
    async with billing(service) as (stub, metadata):
        stream = stub.ExportLedger(billing_service_pb2.ExportLedgerRequest(), metadata=metadata)
        exported = [entry.call.agent_version async for page in stream for entry in page.entries]
        while True:
            request = billing_service_pb2.ListLedgerEntriesRequest(page_token=token)
            page = await stub.ListLedgerEntries(request, metadata=metadata)
            listed += [entry.call.agent_version for entry in page.entries]
            if not (token := page.next_page_token):
                break
    assert listed == exported
    return listed


@asynccontextmanager
async def billing(service: Service) -> AsyncIterator[tuple[Any, Any]]:
    """Open BillingService for a tenant: a stub, and the metadata of its calls."""
    key = service.backends.issue_key(service.database.name, service.tenant_id, scopes=frozenset({Scope.BILLING}))
    async with grpc.aio.insecure_channel(service.target) as channel:
        stub: Any = billing_service_pb2_grpc.BillingServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        yield stub, (("authorization", f"Bearer {key}"),)


async def test_change_reaches_another_server_within_seconds(
    definer: Definer, caller: Caller, serve: Start, connect: Any
) -> None:
    """Its next turn takes the version once its cache has expired."""
    other = await serve(database=caller.service.database.name)
    elsewhere: Caller = connect(caller.service.at(other.target))
    await definer.apply(description="one")
    assert (await elsewhere.converse("hello", agent="support")).started.agent_version == 1
    await definer.apply(description="two")
    assert (await caller.converse("hello", session_id="s", agent="support")).started.agent_version == 2

    async def takes_it() -> bool:
        return bool((await elsewhere.converse("hello")).started.agent_version == 2)

    await eventually(takes_it, pause=LONG_PAUSE)


async def test_replay_of_another_server_has_the_agent(
    definer: Definer, caller: Caller, serve: Start, connect: Any
) -> None:
    """The stored log says which version answered."""
    await definer.apply()
    turn = await caller.converse("hello", agent="support")
    other = await serve(database=caller.service.database.name)
    elsewhere: Caller = connect(caller.service.at(other.target))
    replayed: Turn = await read(elsewhere.resume(turn.responses[0].turn_id))

    assert (replayed.started.agent, replayed.started.agent_version) == ("support", 1)


async def test_waiting_turn_takes_the_version_of_its_start(definer: Definer, caller: Caller) -> None:
    """One that was applied while it waited for its session is newer than its request."""
    await definer.apply(description="one")
    hold = new_id("hold")
    running = caller.start(f"@sandbox plain tokens=9 hold_after=3 hold={hold}", agent="support")
    await until_text(running, "t2 ")
    waiting = caller.start("and now?", on_busy="ON_BUSY_WAIT")
    waiter = asyncio.create_task(read(waiting))
    await soon(lambda: caller.service.database["turns"].count_documents({"tenant_id": caller.service.tenant_id}) == 2)
    await definer.apply(description="two")
    caller.service.backends.allow(hold)
    await read(running)

    assert (await waiter).started.agent_version == 2


async def test_turn_takes_one_version_of_a_sub_agent(definer: Definer, caller: Caller) -> None:
    """A version that is applied between two calls of it is for the next turn; a pinned one for no turn."""
    await definer.apply("researcher", system_prompt="First.")
    await definer.apply("coordinator", tools=tools("researcher"))
    await definer.apply("pinned", tools=tools("researcher@1"))
    task = "@sandbox plain tokens=3 hold_after=1 hold=version"
    stream = caller.start(asks("researcher", task, calls=3), agent="coordinator")
    await soon(lambda: [each for each in caller.service.entries("talk") if each.generation_id][1:])
    await definer.apply("researcher", system_prompt="Second.")
    caller.service.backends.allow("version")
    await read(stream)

    def versions(session_id: str) -> list[int | None]:
        return [each.agent_version for each in caller.service.entries(session_id) if each.agent == "researcher"]

    assert versions("talk") == [1, 1]
    await caller.converse(asks("researcher", "Hi."), agent="pinned", session_id="pinned")
    await caller.converse(asks("researcher", "Hi."), agent="coordinator", session_id="next")
    assert (versions("pinned"), versions("next")) == ([1], [2])
