"""MCP tools in a turn: what models are offered, and the connections by which it is called."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Final

from strands import Agent
from strands.types._events import ToolResultEvent, ToolStreamEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolSpec, ToolUse

from godoty_service.agents.mcp.connection import McpConnection
from godoty_service.agents.mcp.errors import McpFailure, cut
from godoty_service.agents.mcp.links import ServerLinks
from godoty_service.agents.mcp.results import StoreImage, error_result, no_image, store_images, tool_result
from godoty_service.agents.mcp.server import McpServer
from godoty_service.agents.mcp.tool_list import ListedTool
from godoty_service.agents.tools.outcomes import ToolRefused, ToolTimedOut

MCP: Final = "mcp"  # in the invocation state: the turn's connections
MAX_OFFERED = 512  # tools of all servers of an agent
MAX_OFFERED_BYTES = 1024 * 1024  # of their schemas and descriptions: each request to the model has them
_ALL_REPORTED = 20  # reports of progress of one call that are all shown; later ones at most once a second
_SECONDS_BETWEEN = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport:
    """How far a tool call has come.

    Attributes:
        progress: Increases with each report.
        total: The progress at its end; None: unknown.
        message: The tool's own words; may be empty.
    """

    progress: float
    total: float | None
    message: str


class McpTool(AgentTool):
    """A tool of a server, without anything of a turn: all turns of the tenant share it."""

    def __init__(self, server: McpServer, listed: ListedTool) -> None:
        super().__init__()
        self.server = server
        self.listed = listed
        self._spec = listed.spec

    @property
    def tool_name(self) -> str:
        """The name that models see."""
        return self.listed.offered_name

    @property
    def tool_spec(self) -> ToolSpec:
        """The tool as Strands describes it."""
        return self._spec

    @property
    def tool_type(self) -> str:
        """The kind of tool, for Strands."""
        return "mcp"

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **_: Any) -> ToolGenerator:
        """Call the tool; yield its reports of progress, then its result, which is an error if the call failed."""
        turn: TurnConnections = invocation_state[MCP]
        call = _Call(self, tool_use, turn)
        try:
            while (report := await call.next_report()) is not None:
                yield ToolStreamEvent(tool_use, report)
            yield call.result()
        finally:
            call.cancel()


class _Call:
    """A call of a tool: at most as long as its server may take, from its first moment."""

    def __init__(self, tool: McpTool, tool_use: ToolUse, turn: "TurnConnections") -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._tool = tool
        self._id = tool_use["toolUseId"]
        self._reports: deque[ProgressReport] = deque(maxlen=_ALL_REPORTED)
        self._reported = 0
        self._last_report = 0.0
        self._wake = asyncio.Event()
        self._end = loop.time() + tool.server.timeout.total_seconds()
        self._task = loop.create_task(self._run(turn, tool_use["input"]))
        self._task.add_done_callback(lambda _: self._wake.set())

    async def next_report(self) -> ProgressReport | None:
        """Return the next report of progress; None: the call has ended, or its time has."""
        while not self._reports:
            if self._task.done() or self._loop.time() >= self._end:
                return None
            self._wake.clear()
            waiting = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait({waiting}, timeout=self._end - self._loop.time())
            finally:
                waiting.cancel()
        return self._reports.popleft()

    def result(self) -> ToolResultEvent:
        """Return the result of the call, or why there is none."""
        if self._task.cancelled():
            return ToolResultEvent(error_result(self._id, "The call was cancelled."))
        if self._task.done():
            return self._task.result()
        limit = self._tool.server.timeout.total_seconds()
        text = f"The tool did not answer within {limit:g} s; the call was cancelled."
        return ToolResultEvent(error_result(self._id, text), exception=ToolTimedOut(text))

    def cancel(self) -> None:
        """Cancel the call, unless it has ended. The server is notified in the background."""
        self._task.cancel()

    async def _run(self, turn: "TurnConnections", arguments: Any) -> ToolResultEvent:
        if not isinstance(arguments, dict):
            text = "The input of this tool must be a JSON object."
            return ToolResultEvent(error_result(self._id, text), exception=ToolRefused(text))
        try:
            connection = turn.connection(self._tool.server)
            report = partial(self._report, connection)
            result = await connection.call(self._tool.listed.name, arguments, report)
        except McpFailure as failure:
            return ToolResultEvent(error_result(self._id, str(failure)))
        images = await store_images(result, turn.store_image)
        return ToolResultEvent(
            tool_result(self._id, result, max_bytes=self._tool.server.output_bytes, mask=connection.mask, images=images)
        )

    async def _report(
        self, connection: McpConnection, progress: float, total: float | None, message: str | None
    ) -> None:
        """Take a report: the first ones all, then the newest once a second."""
        now = self._loop.time()
        if not (isfinite(progress) and (total is None or isfinite(total))):
            return
        if self._reported >= _ALL_REPORTED and now - self._last_report < _SECONDS_BETWEEN:
            return
        self._reported, self._last_report = self._reported + 1, now
        words = cut(connection.mask(message or ""))
        self._reports.append(ProgressReport(progress=progress, total=total, message=words))
        self._wake.set()


class TurnConnections:
    """A turn's connections to MCP servers: each is opened when a tool of its server is first called.

    Attributes:
        store_image: Stores an image of a result; it returns its content block, or None if the bytes are none.
    """

    def __init__(self, links: ServerLinks, *, max_bytes: int, store_image: StoreImage = no_image) -> None:
        """Create it without a connection.

        Args:
            links: The links to the servers.
            max_bytes: Bytes of one answer.
            store_image: Stores an image of a result for the turn's session.
        """
        self._links = links
        self._max_bytes = max_bytes
        self.store_image = store_image
        self._connections: dict[tuple[str, str, str], McpConnection] = {}
        self._closed = False

    def connection(self, server: McpServer) -> McpConnection:
        """Return the connection to a server.

        Raises:
            McpFailure: The turn has ended.
        """
        if self._closed:
            raise McpFailure("The turn has ended.")
        found = self._connections.get(server.key)
        if found is None:
            link = partial(self._links.get, server)
            found = self._connections[server.key] = McpConnection(link, max_bytes=self._max_bytes)
        return found

    def close(self) -> None:
        """Close all connections soon, without waiting for it."""
        self._closed = True
        for each in self._connections.values():
            each.close()


class SharedSpecs(list[ToolSpec]):
    """Tool specifications that are never changed, so that a copy of them is the list itself.

    Strands copies all of them for each model call.
    """

    def __deepcopy__(self, _: dict[int, Any]) -> "SharedSpecs":
        """Return the list itself."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTools:
    """The MCP tools of a turn.

    Attributes:
        tools: The tools by the names that the model sees.
        specs: Their specifications.
        spec_bytes: The bytes of these.
        notes: For the model: which servers' tools are missing, and why.
    """

    tools: Mapping[str, McpTool]
    specs: tuple[ToolSpec, ...]
    spec_bytes: int
    notes: tuple[str, ...] = ()


NO_TOOLS: Final = OfferedTools(tools={}, specs=(), spec_bytes=0)


def offer(agent: Agent, offered: OfferedTools) -> None:
    """Give an agent that was just built its MCP tools, beside those that it was built with, and all specifications.

    Strands' registry would change their schemas (it gives an `enum` of numbers the type string), copy and check all of
    them for each model call, each tool call and twice for the turn's span, and compare each name with all others.
    """
    registry = agent.tool_registry
    own = [tool.tool_spec for tool in registry.registry.values()]
    taken = {name.replace("-", "_") for name in registry.registry}
    added = {name: tool for name, tool in offered.tools.items() if name.replace("-", "_") not in taken}
    registry.registry.update(added)
    specs = SharedSpecs([*own, *(spec for spec in offered.specs if spec["name"] in added)])
    by_name = {spec["name"]: spec for spec in specs}
    registry.get_all_tool_specs = lambda: specs  # type: ignore[method-assign] # it is read by name
    registry.get_all_tools_config = lambda: by_name  # type: ignore[method-assign] # the same


def combine(parts: Iterable[OfferedTools]) -> OfferedTools:
    """Return the tools of several servers together, up to a number and a size.

    Of two with the same name the first remains.
    """
    parts = tuple(parts)
    if len(parts) == 1:
        return parts[0]
    tools: dict[str, McpTool] = {}
    taken: set[str] = set()
    notes: list[str] = []
    total = left_out = 0
    for part in parts:
        notes += part.notes
        for name, tool in part.tools.items():
            if (key := name.replace("-", "_")) in taken:
                continue
            if len(tools) >= MAX_OFFERED or total + tool.listed.size > MAX_OFFERED_BYTES:
                left_out += 1
                continue
            taken.add(key)
            tools[name] = tool
            total += tool.listed.size
    if left_out:
        notes.append(f"{left_out:,} more tools are left out: there are too many.")
    return OfferedTools(
        tools=tools,
        specs=tuple(tool.tool_spec for tool in tools.values()),
        spec_bytes=total,
        notes=tuple(notes),
    )
