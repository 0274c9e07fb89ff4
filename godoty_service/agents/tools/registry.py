"""The registry of the server's tools, by the names that definitions use. A tool is added here, once."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from strands.types.tools import AgentTool

from godoty_service.agents.tools.calculator import calculator
from godoty_service.agents.tools.current_time import current_time
from godoty_service.agents.tools.http_fetch import NAME as HTTP_FETCH
from godoty_service.agents.tools.http_fetch import Fetcher, http_fetch
from godoty_service.agents.tools.limits import LimitedTool
from godoty_service.agents.tools.notebook import notebook
from godoty_service.agents.tools.session_cost import session_cost

NEED_SETTINGS: Final = {HTTP_FETCH: "GODOTY_FETCH_HOSTS"}  # tools that a server has only if the operator sets this


def built_in_tools(*, clock: Callable[[], datetime], fetcher: Fetcher | None = None) -> Mapping[str, AgentTool]:
    """Return the tools by name: each is built once and shared by all turns, so it keeps nothing of a turn.

    Args:
        clock: Returns the current time, with its zone.
        fetcher: Fetches documents by HTTP; None: the operator permits no host, and the tool is not there.
    """
    local = (calculator, current_time(clock=clock), notebook, session_cost)
    limited: list[AgentTool] = [LimitedTool(each) for each in local]
    if fetcher is not None:
        limited.append(http_fetch(fetcher))
    return {tool.tool_name: tool for tool in limited}
