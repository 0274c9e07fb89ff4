"""Turns of agents that call other agents: one tree, on one meter, in one log."""

import gc
import json
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import agent_service_pb2 as service_pb
from godoty.v1 import metering_pb2

from godoty_service.agents.definitions import AgentDefinition, AgentReference, SubAgent
from godoty_service.bootstrap.components import open_components
from godoty_service.ledger.entries import CallPurpose
from godoty_service.openrouter.model import OpenRouterModel
from godoty_service.turns.agents.sub_agent_tool import SubAgentTool
from godoty_service.turns.agents.sub_agents import SubAgents
from godoty_service.turns.event_log.log import EventLog
from tests.conftest import Start
from tests.e2e.agents.conftest import Definer
from tests.e2e.agents.trees import (
    CHEAP,
    OTHER,
    asks,
    chain,
    paths,
    reaching,
    results,
    settled,
    stop_of,
    summing,
    tools,
    total,
    tree,
)
from tests.support.caller import Caller, read
from tests.support.service import soon


async def test_tree_of_three_levels_is_one_turn(definer: Definer, caller: Caller) -> None:
    """Entries, events, metrics and the invoice say who did what; nothing of a sub-agent is in the answer."""
    await tree(definer, model=OTHER)
    deepest = "@sandbox tool-loop calls=2 tool=calculator"
    turn = await caller.converse(asks("researcher", asks("checker", deepest)), agent="coordinator")

    entries = caller.service.entries("talk")
    researcher, checker = "researcher#1", "researcher#1/checker#2"
    own, sub = CallPurpose.AGENT, CallPurpose.SUB_AGENT
    assert [(each.agent, each.agent_version, each.purpose, each.agent_path) for each in entries] == [
        ("coordinator", 1, own, None),
        ("researcher", 1, sub, researcher),
        ("checker", 1, sub, checker),
        ("checker", 1, sub, checker),
        ("researcher", 1, sub, researcher),
        ("coordinator", 1, own, None),
    ]
    assert [each.number for each in entries] == [1, 2, 3, 4, 5, 6]
    assert [each.requested_model for each in entries] == [CHEAP, OTHER, CHEAP, CHEAP, OTHER, CHEAP]
    spent = turn.finished.turn_totals
    assert Decimal(spent.cost_usd) == total(entries) == caller.service.invoiced("talk")
    assert spent.model_calls == 6

    assert paths(turn, "model_call_finished") == ["", researcher, checker, checker, researcher, ""]
    assert [each.agent_path for each in turn.calls] == ["", researcher, checker, checker, researcher, ""]
    assert turn.calls[1].purpose == metering_pb2.CALL_PURPOSE_SUB_AGENT
    assert paths(turn, "tool_call_started") == ["", researcher, checker]
    assert paths(turn, "tool_call_finished") == [checker, researcher, ""]
    assert set(paths(turn, "text_delta")) == {""}
    started = [each.tool_call_started for each in turn.responses if each.HasField("tool_call_started")]
    assert [(each.name, each.sub_agent_path) for each in started] == [
        ("agent_researcher", researcher),
        ("agent_checker", checker),
        ("calculator", ""),
    ]
    ((succeeded, output),) = results(turn)
    assert succeeded
    assert output
    used = {each.name: each.calls for each in turn.finished.tools}
    assert used == {"calculator": 1, "agent_checker": 1, "agent_researcher": 1}

    metrics = await caller.metrics()
    assert {each.agent: each.totals.model_calls for each in metrics.by_agent} == {
        "coordinator": 2,
        "researcher": 2,
        "checker": 2,
    }
    assert metrics.totals.cost_usd == spent.cost_usd
    shown = (await caller.call("GetTurn", service_pb.GetTurnRequest(turn_id=turn.responses[0].turn_id))).turn
    assert shown.agent == "coordinator"


async def test_sub_agent_sees_its_prompt_and_task_alone(definer: Definer, caller: Caller) -> None:
    """Its history begins empty, also at its second call; it is offered its own tools."""
    await tree(definer)
    await caller.converse(asks("researcher", "Find it.", calls=3), agent="coordinator")

    requests = [each for each in caller.service.requests("talk") if "You research." in str(each["messages"][0])]
    assert [[each["role"] for each in request["messages"]] for request in requests] == [["system", "user"]] * 2
    assert "Find it." in str(requests[1]["messages"][1]["content"])
    assert [each["function"]["name"] for each in requests[0]["tools"]] == ["agent_checker"]


async def test_two_calls_of_one_sub_agent_run_side_by_side(definer: Definer, caller: Caller) -> None:
    """Both wait at once; the events of each have its own path, and every entry has its own number."""
    await tree(definer)
    task = "@sandbox plain tokens=4 hold_after=2 hold=both"
    stream = caller.start(asks("researcher", task, parallel=2), agent="coordinator")
    await soon(lambda: [each for each in caller.service.entries("talk") if each.generation_id][2:])
    caller.service.backends.allow("both")
    turn = await read(stream)

    entries = caller.service.entries("talk")
    assert [each.agent_path for each in entries] == [None, "researcher#1", "researcher#2", None]
    assert [each.number for each in entries] == [1, 2, 3, 4]
    assert sorted(paths(turn, "model_call_finished")) == ["", "", "researcher#1", "researcher#2"]
    assert [succeeded for succeeded, _ in results(turn)] == [True, True]
    assert Decimal(turn.finished.turn_totals.cost_usd) == total(entries) == caller.service.invoiced("talk")


@pytest.mark.parametrize(
    "fault", ["@sandbox error-before status=400", "@sandbox error-mid n=3 code=502", "@sandbox reset n=900"]
)
async def test_sub_agent_that_fails_is_an_error_that_the_model_sees(
    definer: Definer, caller: Caller, fault: str
) -> None:
    """Its calls are in the ledger; the turn goes on to its end."""
    await tree(definer)
    turn = await caller.converse(asks("researcher", fault), agent="coordinator")

    ((succeeded, output),) = results(turn)
    assert not succeeded
    assert output.startswith("The agent researcher failed: ")
    assert stop_of(turn) == "STOP_REASON_END_TURN"
    entries = await settled(caller.service, 3)
    assert {each.agent_path for each in entries} == {None, "researcher#1"}
    assert total(entries) == caller.service.invoiced("talk")


async def test_agent_that_is_gone_or_would_call_itself_is_an_error_at_the_turn(
    definer: Definer, caller: Caller
) -> None:
    """Definitions change after they were checked; the model sees why it got no answer."""
    await tree(definer)
    await definer.apply("other", tools=tools("checker"))
    await definer.call("DeleteAgent", agent="checker")
    turn = await caller.converse(asks("checker", "Check."), agent="other", session_id="gone")
    assert results(turn) == [(False, "The agent checker failed: There is no agent checker.")]

    service, back = caller.service, SubAgent(agent=AgentReference("coordinator"), description="All.")

    async def record(*_: object) -> None:
        """Record nothing."""

    async with open_components(service.backends.settings(service.database.name), indexes=False) as components:
        circle = AgentDefinition(name="researcher", tools=(back,))  # as two definitions that are applied at once
        await components.conversations.agents.apply(service.tenant_id, circle, etag="", by="", record=record)
    turn = await caller.converse(asks("researcher", asks("coordinator", "You!")), agent="coordinator")
    text = "The agent coordinator would call itself: coordinator -> researcher -> coordinator."
    assert results(turn, "researcher#1") == [(False, text)]
    assert stop_of(turn) == "STOP_REASON_END_TURN"


async def test_sub_agent_knows_what_the_session_has_cost(definer: Definer, caller: Caller) -> None:
    """`session_cost` counts the calls of the whole tree until then."""
    await definer.apply("clerk", tools=[{"builtin": "session_cost"}])
    await definer.apply("coordinator", tools=tools("clerk"))
    turn = await caller.converse(asks("clerk", "@sandbox tool-loop calls=2 tool=session_cost"), agent="coordinator")

    ((succeeded, report),) = results(turn, "clerk#1")
    assert succeeded
    known = sorted(caller.service.entries("talk"), key=lambda each: each.number)[:2]  # the coordinator's, the clerk's
    assert Decimal(json.loads(report)["total_cost"]) == total(known) > 0


@pytest.mark.parametrize("deepest", [summing(calls=2), "@sandbox error-before status=400", "@sandbox reset"])
async def test_conversations_of_sub_agents_are_freed_without_garbage_collection(
    serve: Start, connect: Any, define: Any, deepest: str
) -> None:
    """Once their turn has ended, also if they failed, at once or after retries: no agent refers to itself."""
    caller: Caller = connect(await serve())
    await chain(define(caller))
    gc.collect()
    gc.disable()
    kinds = {EventLog, OpenRouterModel, SubAgents, SubAgentTool}

    def found() -> set[int]:
        return {id(each) for each in gc.get_objects() if type(each) in kinds}  # `isinstance` asks dead proxies

    before = found()  # of other servers in this process

    def present() -> set[int]:
        return found() - before

    try:
        stream = caller.start(reaching(3, deepest), agent="coordinator")
        await anext(aiter(stream))
        assert present()
        assert (await read(stream)).failure is None
        await soon(lambda: not present())
    finally:
        gc.enable()
