"""Turns of agents that call other agents: one tree, on one meter, under the limits of the turn."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import agent_service_pb2 as service_pb
from godoty.v1 import budget_pb2, metering_pb2, turn_pb2

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.entries import CallPurpose, ModelCall
from godoty_service.tenancy.policies import Policy
from tests.conftest import Start
from tests.e2e.agents.conftest import INVALID, NOT_FOUND, Definer
from tests.support.caller import Caller, Turn, read
from tests.support.service import Service, soon

CHEAP, OTHER = "openai/gpt-4o-mini", "openai/gpt-4o"


def asks(agent: str, task: str, *, calls: int = 2, parallel: int = 1) -> str:
    """Return a text by which the model asks a sub-agent, once in each of its answers but the last."""
    arguments = json.dumps({"task": task}).replace("@", "\\u0040").replace("'", "\\u0027")
    return f"@sandbox tool-loop calls={calls} parallel={parallel} tool=agent_{agent} input='{arguments}'"


def tools(*agents: str) -> list[dict[str, Any]]:
    """Return the tools by which an agent calls others."""
    return [{"agent": {"agent": each, "description": f"Knows what {each} knows."}} for each in agents]


async def tree(definer: Definer, *, model: str = CHEAP, **top: Any) -> None:
    """Apply three agents, each of which calls the next one."""
    await definer.apply("checker", system_prompt="You check.", tools=[{"builtin": "calculator"}])
    await definer.apply("researcher", system_prompt="You research.", model=model, tools=tools("checker"))
    await definer.apply("coordinator", system_prompt="You coordinate.", tools=tools("researcher"), **top)


def paths(turn: Turn, kind: str) -> list[str]:
    """Return the paths of a turn's events of a kind."""
    return [each.agent_path for each in turn.responses if each.HasField(kind)]  # type: ignore[arg-type] # a name


def results(turn: Turn, path: str = "") -> list[tuple[bool, str]]:
    """Return whether each tool call of an agent succeeded, and its output."""
    found = [each for each in turn.responses if each.HasField("tool_call_finished") and each.agent_path == path]
    done = session_pb2.TOOL_CALL_STATUS_SUCCESS
    return [(each.tool_call_finished.status == done, each.tool_call_finished.output) for each in found]


def total(entries: Sequence[ModelCall]) -> Decimal:
    """Return the sum of what entries cost."""
    return sum((each.cost or Decimal(0) for each in entries), Decimal(0))


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
    caller.service.backends.sandbox.allow("both")
    turn = await read(stream)

    entries = caller.service.entries("talk")
    assert [each.agent_path for each in entries] == [None, "researcher#1", "researcher#2", None]
    assert [each.number for each in entries] == [1, 2, 3, 4]
    assert sorted(paths(turn, "model_call_finished")) == ["", "", "researcher#1", "researcher#2"]
    assert [succeeded for succeeded, _ in results(turn)] == [True, True]
    assert Decimal(turn.finished.turn_totals.cost_usd) == total(entries) == caller.service.invoiced("talk")
