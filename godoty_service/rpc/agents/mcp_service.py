"""The methods of AgentDefinitionService for MCP servers: one short method per RPC."""

from collections.abc import Sequence

from godoty.v1 import mcp_server_pb2 as pb

from godoty_service.agents.definitions import McpTools, ToolEntry
from godoty_service.agents.mcp.changes import McpComponents, Record, Values
from godoty_service.agents.mcp.errors import McpServerNotFound
from godoty_service.agents.mcp.server import McpServer
from godoty_service.agents.mcp.store import MAX_SERVERS
from godoty_service.agents.mcp.toolbox import McpToolbox
from godoty_service.rpc.agents import mcp_codec
from godoty_service.rpc.interceptor import CallContext
from godoty_service.rpc.pagination import PageRequest
from godoty_service.tenancy.admin import Administration
from godoty_service.tenancy.audit import Actor, ActorKind

_PAGE = 50  # servers


def recorder(administration: Administration, actor: Actor, method: str, tenant_id: str) -> Record:
    """Return a function that records a change of a tenant's server in the audit log."""

    async def record(old: Values | None, new: Values | None) -> None:
        await administration.record_mcp_change(actor, method, tenant_id, old=old, new=new or {})

    return record


class McpServerMethods:
    """Reads, changes and checks the servers of the key's own tenant."""

    def __init__(
        self, mcp: McpComponents, toolbox: McpToolbox, *, administration: Administration, page_bytes: int
    ) -> None:
        """Create the methods.

        Args:
            mcp: What manages the servers.
            toolbox: The tools of the servers.
            administration: Records changes.
            page_bytes: Bytes at which a page ends.
        """
        self._mcp = mcp
        self._toolbox = toolbox
        self._administration = administration
        self._page_bytes = page_bytes

    async def ApplyMcpServer(self, request: pb.ApplyMcpServerRequest, call: CallContext) -> pb.ApplyMcpServerResponse:
        """Create or change a server."""
        terms = mcp_codec.parse_server(request, self._mcp.rules)
        record = recorder(self._administration, _actor(call), "ApplyMcpServer", call.tenant_id)
        server, changed = await self._mcp.changes.apply(call.tenant_id, terms, etag=request.etag, record=record)
        return pb.ApplyMcpServerResponse(server=mcp_codec.server_message(server), changed=changed)

    async def GetMcpServer(self, request: pb.GetMcpServerRequest, call: CallContext) -> pb.GetMcpServerResponse:
        """Return a server."""
        server = await self._server(call, request.mcp_server)
        return pb.GetMcpServerResponse(server=mcp_codec.server_message(server))

    async def ListMcpServers(self, request: pb.ListMcpServersRequest, call: CallContext) -> pb.ListMcpServersResponse:
        """Return a page of servers."""
        page = PageRequest(request, ("mcp_servers", call.tenant_id), str, default_size=_PAGE)
        after = page.position[0] if page.position else ""
        found = await self._mcp.servers.page(call.tenant_id, after=after, limit=page.limit)
        servers, token = page.cut(
            found,
            [mcp_codec.server_message(each) for each in found[: page.size]],
            position=lambda each: [each.name],
            max_bytes=self._page_bytes,
        )
        return pb.ListMcpServersResponse(servers=servers, next_page_token=token)

    async def DeleteMcpServer(
        self, request: pb.DeleteMcpServerRequest, call: CallContext
    ) -> pb.DeleteMcpServerResponse:
        """Delete a server."""
        name = mcp_codec.parse_name(request.mcp_server)
        record = recorder(self._administration, _actor(call), "DeleteMcpServer", call.tenant_id)
        await self._mcp.changes.delete(call.tenant_id, name, etag=request.etag, record=record)
        return pb.DeleteMcpServerResponse()

    async def CheckMcpServer(self, request: pb.CheckMcpServerRequest, call: CallContext) -> pb.CheckMcpServerResponse:
        """Connect to a server and list its tools."""
        server = await self._server(call, request.mcp_server)
        return mcp_codec.check_message(await self._toolbox.check(server))

    async def _require_servers(self, call: CallContext, tools: Sequence[ToolEntry]) -> None:
        """Check that a definition names servers of the tenant alone.

        Raises:
            McpServerNotFound: It names another one.
        """
        named = [each.server for each in tools if isinstance(each, McpTools)]
        if named:
            known = {
                each.name for each in await self._mcp.servers.page(call.tenant_id, after="", limit=2 * MAX_SERVERS)
            }
            for name in named:
                if name not in known:
                    raise McpServerNotFound.of(name)

    async def _server(self, call: CallContext, name: str) -> McpServer:
        """Return a server from the database.

        Raises:
            McpServerNotFound: The tenant has no server of this name.
        """
        server = await self._mcp.servers.read(call.tenant_id, mcp_codec.parse_name(name))
        if server is None:
            raise McpServerNotFound.of(name)
        return server


def _actor(call: CallContext) -> Actor:
    """Return the author of a call's changes."""
    return Actor(kind=ActorKind.KEY, id=call.principal.key_id, peer=call.peer)
