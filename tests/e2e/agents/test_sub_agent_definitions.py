"""Definitions that name other agents as tools: which are refused, when they are applied and at the turn."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.e2e.agents.conftest import INVALID, NOT_FOUND, Definer
from tests.e2e.agents.trees import CHEAP, OTHER, asks, results, tools, tree
from tests.support.caller import Caller, failure_of
from tests.support.service import Service


async def test_definition_that_calls_itself_is_refused(definer: Definer) -> None:
    """Through others, too, and with any version."""
    failure = await failure_of(definer.apply("loop", tools=tools("loop")))
    assert failure.code == NOT_FOUND  # it is not there yet
    await definer.apply("loop")
    await definer.apply("middle", tools=tools("loop"))
    for named in ("loop", "loop@1", "middle", "middle@1"):
        failure = await failure_of(definer.apply("loop", tools=tools(named)))
        assert failure.code == INVALID
        assert list(failure.fields) == ["definition.tools[0].agent.agent"]
        assert "would call itself: loop -> " in failure.text


async def test_definition_that_is_too_deep_is_refused(definer: Definer) -> None:
    """Three agents below the turn's are possible, a fourth is not."""
    await definer.apply("a0")
    for number in range(1, 4):
        await definer.apply(f"a{number}", tools=tools(f"a{number - 1}"))
    failure = await failure_of(definer.apply("a4", tools=tools("a3")))
    assert failure.code == INVALID
    assert "at most 3 deep" in failure.text


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"agent": "No name", "description": "x"}, "agent"),
        ({"agent": "a" * 59, "description": "x"}, "agent"),
        ({"agent": "checker@x", "description": "x"}, "agent"),
        ({"agent": "checker"}, "description"),
        ({"agent": "checker", "description": "a\nb"}, "description"),
        ({"agent": "checker", "description": "x" * 1001}, "description"),
    ],
)
async def test_tool_that_can_be_no_agent_is_refused(definer: Definer, tool: dict[str, str], field: str) -> None:
    """The violation names the field."""
    failure = await failure_of(definer.apply(tools=[{"agent": tool}]))
    assert failure.code == INVALID
    assert [each.rpartition(".")[2] for each in failure.fields] == [field]


async def test_agent_is_there_once(definer: Definer) -> None:
    """Two versions of an agent would be two tools of one name."""
    await definer.apply("checker")
    failure = await failure_of(definer.apply(tools=tools("checker", "checker@1")))
    assert list(failure.fields) == ["definition.tools[1]"]


async def test_agent_of_another_tenant_is_not_found(
    definer: Definer, define: Callable[[Caller], Definer], connect: Callable[[Service], Caller]
) -> None:
    """Like an agent that no tenant has."""
    await define(connect(definer.service.another_tenant())).apply("theirs")
    failure = await failure_of(definer.apply(tools=tools("theirs")))
    assert (failure.code, failure.reason, failure.metadata) == (NOT_FOUND, "AGENT_NOT_FOUND", {"agent": "theirs"})


async def test_policy_holds_for_sub_agents(restricted: Any, define: Any) -> None:
    """As a tool it is allowed by `agent:NAME`; the agent itself must be allowed, too."""
    caller: Caller = await restricted(allowed_tools=("agent:re*",), allowed_agents=("coordinator",))
    definer: Definer = define(caller)
    for name in ("researcher", "sales"):
        await definer.apply(name)
    failure = await failure_of(definer.apply(tools=tools("sales")))
    assert (failure.code, failure.metadata["tool"]) == (grpc.StatusCode.PERMISSION_DENIED, "agent:sales")
    await definer.apply("coordinator", tools=tools("researcher"))

    turn = await caller.converse(asks("researcher", "Hi."), agent="coordinator")
    text = "The agent researcher failed: The tenant's policy does not allow the agent researcher."
    assert results(turn) == [(False, text)]


async def test_policy_holds_for_the_models_of_sub_agents(restricted: Any, define: Any) -> None:
    """A definition may name any model of the catalogue: the calling model sees that this one is not allowed."""
    caller: Caller = await restricted(allowed_models=(CHEAP,))
    await tree(define(caller), model=OTHER)
    turn = await caller.converse(asks("researcher", "Hi."), agent="coordinator")

    text = "The agent researcher failed: The tenant's policy does not allow the model."
    assert results(turn) == [(False, text)]
    assert {each.requested_model for each in caller.service.entries("talk")} == {CHEAP}
