"""The tools of the server, by the names that definitions use. A tool is added here, once."""

from collections.abc import Callable, Mapping
from datetime import datetime

from strands.types.tools import AgentTool

from godoty_service.agents.tools.calculator import calculator
from godoty_service.agents.tools.current_time import current_time


def built_in_tools(*, clock: Callable[[], datetime]) -> Mapping[str, AgentTool]:
    """Return the tools by name: each is built once and shared by all turns, so it keeps nothing of a turn.

    Args:
        clock: Returns the current time, with its zone.
    """
    return _by_name(calculator, current_time(clock=clock))


def _by_name(*tools: AgentTool) -> Mapping[str, AgentTool]:
    return {tool.tool_name: tool for tool in tools}
