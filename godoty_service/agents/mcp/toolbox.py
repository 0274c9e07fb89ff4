"""The MCP tools of all tenants: which a turn is offered, and what a check of a server finds."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from weakref import WeakKeyDictionary

from godoty_service.agents.definitions import McpTools
from godoty_service.agents.mcp.connection import McpConnection
from godoty_service.agents.mcp.errors import McpFailure
from godoty_service.agents.mcp.links import ServerLink, ServerLinks
from godoty_service.agents.mcp.lists import ToolLists
from godoty_service.agents.mcp.results import StoreImage, no_image
from godoty_service.agents.mcp.server import McpServer, matches
from godoty_service.agents.mcp.store import McpServers
from godoty_service.agents.mcp.tool_list import ToolList, make_tool_list
from godoty_service.agents.mcp.tools import NO_TOOLS, McpTool, OfferedTools, TurnConnections, combine
from godoty_service.aio.periodic import run_every

_START_SECONDS = 5.0  # for which a turn waits for the lists of its servers
_CHECK_SECONDS = 30.0  # in which a check must end
_MAX_OFFERS = 20  # of one list, which agents may allow in different parts


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCheck:
    """What a check of a server found.

    Attributes:
        problem: Why the server cannot be used; empty: it can.
        tools: Its tools; None: it did not list them.
        protocol_version: The version of the protocol that it speaks; empty: unknown.
        software: The name and version of its software, in its own words; may be empty.
        connect: How long it took to connect; None: that failed.
        list: How long it took to list the tools; None: that failed.
    """

    problem: str = ""
    tools: ToolList | None = None
    protocol_version: str = ""
    software: str = ""
    connect: timedelta | None = None
    list: timedelta | None = None


class McpToolbox:
    """Offers the tools of tenants' servers to turns."""

    def __init__(self, servers: McpServers, links: ServerLinks, *, max_bytes: int) -> None:
        """Create it.

        Args:
            servers: The servers.
            links: The links to them.
            max_bytes: Bytes of one answer of a server.
        """
        self._servers = servers
        self._links = links
        self._max_bytes = max_bytes
        self._lists = ToolLists(links, max_bytes=max_bytes)
        # By list, and by the tools that a definition allows of it; they live as long as their list does.
        self._offers: WeakKeyDictionary[ToolList, dict[tuple[str, ...], OfferedTools]] = WeakKeyDictionary()
        self._closing: set[asyncio.Task[None]] = set()

    async def offered(self, tenant_id: str, entries: Sequence[McpTools]) -> OfferedTools:
        """Return the tools that a turn is offered. Servers that fail are left out, with a note for the model.

        In the usual case nothing is read: servers and lists are cached.
        """
        if not entries:
            return NO_TOOLS
        servers = await self._servers.all(tenant_id)
        parts = await asyncio.gather(*(self._offer(servers.get(each.server), each) for each in entries))
        return combine(parts)

    def connections(self, store_image: StoreImage = no_image) -> TurnConnections:
        """Return the connections of a new turn; none of them is open.

        Args:
            store_image: Stores an image of a result for the turn's session.
        """
        return TurnConnections(self._links, max_bytes=self._max_bytes, store_image=store_image)

    async def check(self, server: McpServer) -> ServerCheck:
        """Connect to a server anew and list its tools."""
        connection: McpConnection | None = None
        link: ServerLink | None = None
        try:
            link = own = self._links.new(server)
            connection = McpConnection(lambda: own, max_bytes=self._max_bytes)
            async with asyncio.timeout(_CHECK_SECONDS):
                return await self._check(server, connection)
        except McpFailure as failure:
            return ServerCheck(problem=str(failure))
        except TimeoutError:
            return ServerCheck(problem=f"The server did not answer within {_CHECK_SECONDS:g} s.")
        finally:
            if link is not None and connection is not None:
                connection.close()
                closing = asyncio.get_running_loop().create_task(link.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    async def run(self, interval: float) -> None:
        """Keep the lists in use current, and close what is not in use, until cancelled."""
        await run_every(interval, self._maintain, failure="mcp_not_maintained", fault="mcp_fault")

    async def aclose(self) -> None:
        """Close all connections."""
        self._lists.close()
        await self._links.aclose()
        for each in self._closing:
            each.cancel()

    async def _maintain(self) -> None:
        await self._lists.maintain()
        await self._links.close_idle()

    async def _offer(self, server: McpServer | None, entry: McpTools) -> OfferedTools:
        if server is None:
            return _missing(entry.server, "there is no such MCP server")
        try:
            async with asyncio.timeout(_START_SECONDS):
                tools = await self._lists.get(server)
        except McpFailure as failure:
            return _missing(entry.server, failure.own_text)
        except TimeoutError:
            return _missing(entry.server, f"the server did not list them within {_START_SECONDS:g} s")
        offers = self._offers.setdefault(tools, {})
        if entry.allow not in offers:
            if len(offers) >= _MAX_OFFERS:
                offers.clear()
            offers[entry.allow] = _offered(server, tools, entry.allow)
        return offers[entry.allow]

    async def _check(self, server: McpServer, connection: McpConnection) -> ServerCheck:
        start = time.monotonic()
        session = await connection.open()
        connected = time.monotonic()
        information = session.server_info
        found = ServerCheck(
            protocol_version=session.protocol_version or "",
            software=connection.mask(f"{information.name} {information.version}")[:200] if information else "",
            connect=timedelta(seconds=connected - start),
        )
        try:
            tools = await make_tool_list(server, await connection.list_tools())
        except McpFailure as failure:
            return replace(found, problem=str(failure))
        self._lists.put(server, tools)
        return replace(found, tools=tools, list=timedelta(seconds=time.monotonic() - connected))


def _offered(server: McpServer, listed: ToolList, allow: tuple[str, ...]) -> OfferedTools:
    """Return the tools of a server that an agent may use."""
    usable = [each for each in listed.tools if not each.problem and matches(allow, each.name)]
    tools = [McpTool(server, each) for each in usable]
    return OfferedTools(
        tools={each.tool_name: each for each in tools},
        specs=tuple(each.tool_spec for each in tools),
        spec_bytes=sum(each.size for each in usable),
    )


def _missing(name: str, problem: str) -> OfferedTools:
    return OfferedTools(
        tools={}, specs=(), spec_bytes=0, notes=(f"The tools of {name} are not available at the moment: {problem}",)
    )
