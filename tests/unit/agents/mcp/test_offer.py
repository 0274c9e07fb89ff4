"""The tools of MCP servers in an agent that Strands has built."""

from typing import Any

from strands import Agent, tool
from strands.models.openai import OpenAIModel

from godoty_service.agents.mcp.tool_list import make_tool_list
from godoty_service.agents.mcp.tools import McpTool, OfferedTools, offer
from tests.unit.agents.mcp.servers import server
from tests.unit.agents.mcp.servers import tool as listed

NUMBERS = {"type": "object", "properties": {"a": {"enum": [1, 2, 3]}}}


@tool(name="own")
def own() -> str:
    """Have a schema that Strands has made."""
    return ""


async def offering(*names: str) -> tuple[Agent, OfferedTools]:
    """Return an agent with a tool of its own and some of a server."""
    found = await make_tool_list(server(), [listed(name, NUMBERS) for name in names])
    tools = [McpTool(server(), each) for each in found.tools]
    offered = OfferedTools(
        tools={each.tool_name: each for each in tools}, specs=tuple(each.tool_spec for each in tools), spec_bytes=1
    )
    model = OpenAIModel(model_id="a/b", client_args={"api_key": "none"})
    agent = Agent(model=model, tools=[own], callback_handler=None)
    offer(agent, offered)
    return agent, offered


async def test_offered_tools_are_passed_on_as_they_are() -> None:
    """No copy of a schema is made or changed, for any call of Strands."""
    agent, offered = await offering("one", "two")
    registry: Any = agent.tool_registry

    assert agent.tool_names == ["own", "crm_one", "crm_two"]
    assert [spec["name"] for spec in registry.get_all_tool_specs()] == agent.tool_names
    for spec in offered.specs:
        assert any(each is spec for each in registry.get_all_tool_specs())
        assert registry.get_all_tools_config()[spec["name"]] is spec
        assert spec["inputSchema"]["json"] == NUMBERS
    assert registry.get_all_tools_config() is registry.get_all_tools_config()


async def test_agents_own_tool_comes_before_one_of_the_same_name() -> None:
    """Names that differ in a hyphen are the same to Strands."""
    agent, offered = await offering("one")
    other, _ = await offering()
    taken = {"own": offered.tools["crm_one"], **offered.tools}
    offer(other, OfferedTools(tools=taken, specs=offered.specs, spec_bytes=1))

    assert agent.tool_names == other.tool_names == ["own", "crm_one"]
    assert not isinstance(other.tool_registry.registry["own"], McpTool)
