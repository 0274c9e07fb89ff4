from datetime import UTC, datetime

import pytest
from strands.types.tools import AgentTool

from godoty_service.agents.built_in import BUILT_IN
from godoty_service.agents.definitions import AgentDefinition, AgentVersion, BuiltInTool, McpTools
from godoty_service.agents.profile import AgentDefaults, AgentInput, agent_profile
from godoty_service.agents.tools.current_time import current_time
from godoty_service.agents.tools.registry import built_in_tools

NOW = datetime(2026, 7, 1, 12, 30, 15, 999, tzinfo=UTC)


def clock() -> datetime:
    return NOW


async def use(tool: AgentTool, **given: str) -> tuple[str, str]:
    events = [e async for e in tool.stream({"toolUseId": "1", "name": "current_time", "input": given}, {})]
    result = events[-1]["tool_result"]
    return result["status"], result["content"][0]["text"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "2026-07-01T12:30:15+00:00 (Wednesday, UTC)"),
        ({"timezone": "Europe/Berlin"}, "2026-07-01T14:30:15+02:00 (Wednesday, Europe/Berlin)"),
        ({"timezone": "Pacific/Auckland"}, "2026-07-02T00:30:15+12:00 (Thursday, Pacific/Auckland)"),
    ],
)
async def test_time_is_returned_in_zone(given: dict[str, str], expected: str) -> None:
    """The clock's time is returned in the given zone, or in UTC by default."""
    assert ("success", expected) == await use(current_time(clock=clock), **given)


@pytest.mark.parametrize("zone", ["Mars/Base", "", "America", "../../etc/passwd", "/etc/localtime", "x" * 9_999])
async def test_unknown_zone_is_a_clear_error(zone: str) -> None:
    """An invalid zone is a short tool error with the expected form."""
    status, text = await use(current_time(clock=clock), timezone=zone)

    assert status == "error"
    assert "use an IANA name" in text
    assert len(text) < 200


def test_default_agent_has_both_tools() -> None:
    """The assistant has the calculator and the clock; models see the purpose of each tool."""
    profile = agent_profile(
        BUILT_IN.newest,
        AgentInput(),
        today=NOW.date(),
        tools=built_in_tools(clock=clock),
        defaults=AgentDefaults(window_size=9),
    )

    assert [tool.tool_name for tool in profile.tools] == ["calculator", "current_time"]
    assert all(tool.tool_spec["description"] for tool in profile.tools)
    assert (profile.window_size, profile.summarize) == (9, False)


def test_tool_that_this_build_lacks_is_left_out() -> None:
    """A later build applied the definition: its other tools are there."""
    definition = AgentDefinition(
        name="a", tools=(BuiltInTool(name="of_a_later_build"), McpTools(server="s"), BuiltInTool(name="calculator"))
    )
    profile = agent_profile(
        AgentVersion(definition=definition, version=1),
        AgentInput(),
        today=NOW.date(),
        tools=built_in_tools(clock=clock),
        defaults=AgentDefaults(),
    )

    assert [tool.tool_name for tool in profile.tools] == ["calculator"]
