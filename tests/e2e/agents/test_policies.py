"""Policies that allow some agents and some tools."""

from typing import Any

import grpc
from godoty.v1 import agent_service_pb2 as pb

from tests.e2e.agents.conftest import Definer, refused
from tests.support.caller import failure_of

DENIED = grpc.StatusCode.PERMISSION_DENIED


async def test_agent_that_is_not_allowed_runs_no_turn(restricted: Any, define: Any) -> None:
    """Nor does the default agent, if no request names another; ListAgents shows what may run."""
    caller = await restricted(allowed_agents=("support-*",))
    definer: Definer = define(caller)
    for name in ("support-1", "support-2", "sales"):
        await definer.apply(name)

    for fields in ({}, {"agent": "sales"}):
        failure = refused(await caller.converse("hello", **fields))
        assert (failure.code, failure.reason) == (DENIED, "AGENT_NOT_ALLOWED")
    assert caller.service.session("talk") is None
    assert (await caller.converse("hello", agent="support-1")).failure is None
    listed = await caller.call("ListAgents", pb.ListAgentsRequest(page_size=1))
    assert [each.name for each in listed.agents] == ["support-1"]
    listed = await caller.call("ListAgents", pb.ListAgentsRequest(page_token=listed.next_page_token))
    assert ([each.name for each in listed.agents], listed.next_page_token) == (["support-2"], "")


async def test_tool_that_is_not_allowed_is_neither_applied_nor_run(restricted: Any, define: Any) -> None:
    """An agent that was applied before is refused, not run without its tool."""
    caller = await restricted(allowed_tools=("current_*",))
    definer: Definer = define(caller)
    failure = await failure_of(definer.apply(tools=[{"builtin": "current_time"}, {"builtin": "calculator"}]))
    assert (failure.code, failure.metadata) == (DENIED, {"agent": "support", "tool": "calculator"})
    await definer.apply(tools=[{"builtin": "current_time"}])
    assert (await caller.converse("hello", agent="support")).failure is None

    failure = refused(await caller.converse("hello", session_id="s"))
    assert (failure.reason, failure.metadata) == ("TOOL_NOT_ALLOWED", {"agent": "assistant", "tool": "calculator"})
    assert caller.service.session("s") is None
