"""Sub-agents that use the tools of an MCP server: their calls and reports have their path, and a cancel reaches all."""

from decimal import Decimal
from typing import Any

from godoty.v1 import agent_service_pb2

from tests.e2e.agents.trees import asks, results, tools, total
from tests.e2e.mcp.conftest import Mcp, Tenant
from tests.support.caller import read
from tests.support.service import soon


async def family(tenant: Tenant, mcp: Mcp) -> None:
    """Apply a server, an agent with its tools, and one that calls this agent."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm", name="clerk")
    await tenant.call("ApplyAgent", definition={"name": "support", "tools": tools("clerk")})


def uses(tool: str, arguments: str, *, parallel: int = 1) -> str:
    """Return a text by which the sub-agent uses a tool of the server."""
    return asks("clerk", f"@sandbox tool-loop calls=2 tool=crm_{tool} input='{arguments}'", parallel=parallel)


async def test_sub_agent_uses_a_server(tenant: Tenant, mcp: Mcp) -> None:
    """Its tools are not its caller's; progress is reported with its path."""
    await family(tenant, mcp)
    turn = await tenant.caller.converse(uses("progress", '{"steps": 2}'), agent="support")

    assert results(turn, "clerk#1") == [(True, "2 steps done")]
    reports = [each for each in turn.responses if each.HasField("tool_progress")]
    assert [(each.agent_path, each.tool_progress.message) for each in reports] == [
        ("clerk#1", "step 1"),
        ("clerk#1", "step 2"),
    ]
    offered: list[list[Any]] = [
        [tool["function"]["name"] for tool in each["tools"]] for each in tenant.caller.service.requests("talk")
    ]
    assert offered[0] == offered[3] == ["agent_clerk"]
    assert "crm_progress" in offered[1]
    entries = tenant.caller.service.entries("talk")
    assert Decimal(turn.finished.turn_totals.cost_usd) == total(entries) == tenant.caller.service.invoiced("talk")


async def test_cancel_reaches_the_tools_of_sub_agents(tenant: Tenant, mcp: Mcp) -> None:
    """Of two that run side by side: the server gets both cancels."""
    await family(tenant, mcp)
    stream = tenant.caller.start(uses("hang", '{"hold": "never"}', parallel=2), agent="support")
    await soon(lambda: mcp.calls("hang") == 2)
    turn_id = (await anext(aiter(stream))).turn_id
    await tenant.caller.call("CancelTurn", agent_service_pb2.CancelTurnRequest(turn_id=turn_id))
    turn = await read(stream)

    assert turn.failure is not None
    assert turn.failure.reason == "TURN_CANCELLED"
    await soon(lambda: mcp.cancelled("hang") == 2)
    entries = tenant.caller.service.entries("talk")
    assert total(entries) == tenant.caller.service.invoiced("talk")
    assert (await tenant.caller.converse("on", agent="support")).failure is None
