"""AgentDefinitionService: one short method per RPC. Each change is recorded in the audit log before it is made."""

from collections.abc import Callable, Collection

from godoty.v1 import agent_definition_service_pb2 as pb
from godoty.v1 import agent_definition_service_pb2_grpc

from godoty_service.agents.call_graph import check_sub_agents
from godoty_service.agents.definitions import Agent, AgentReference, AgentVersion
from godoty_service.agents.errors import AgentNotFound
from godoty_service.agents.mcp.changes import McpComponents
from godoty_service.agents.mcp.toolbox import McpToolbox
from godoty_service.agents.output.schemas import OutputSchemas
from godoty_service.agents.store import Agents
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.rpc.agents.codec import parse_agent, parse_agent_name, parse_application, version_message
from godoty_service.rpc.agents.mcp_service import McpServerMethods
from godoty_service.rpc.agents.tool_codec import read_conditions
from godoty_service.rpc.agents.webhook_service import WebhookMethods
from godoty_service.rpc.interceptor import CallContext
from godoty_service.rpc.pagination import PageRequest
from godoty_service.tenancy.admin import Administration
from godoty_service.tenancy.audit import Actor, ActorKind
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policies
from godoty_service.webhooks.changes import WebhookComponents

_SERVICE = pb.DESCRIPTOR.services_by_name["AgentDefinitionService"]
SERVICE_NAME: str = _SERVICE.full_name
SCOPES = {f"/{SERVICE_NAME}/{method.name}": (Scope.AGENTS,) for method in _SERVICE.methods}


class AgentDefinitionService(
    McpServerMethods, WebhookMethods, agent_definition_service_pb2_grpc.AgentDefinitionServiceServicer
):
    """A tenant's agents, its MCP servers and its webhooks."""

    def __init__(
        self,
        *,
        agents: Agents,
        schemas: OutputSchemas,
        tools: Collection[str],
        mcp: McpComponents,
        toolbox: McpToolbox,
        webhooks: WebhookComponents,
        administration: Administration,
        policies: Policies,
        catalogue: Callable[[], Catalogue | None],
        page_bytes: int,
    ) -> None:
        """Create the service.

        Args:
            agents: The tenants' agents.
            schemas: Reads output schemas.
            tools: The names of the server's tools.
            mcp: What manages the tenants' MCP servers.
            toolbox: The tools of these servers.
            webhooks: What manages the tenants' webhooks.
            administration: Records the changes.
            policies: The tenants' policies.
            catalogue: Returns the provider's models, or None if they are unknown.
            page_bytes: Bytes at which a page ends.
        """
        McpServerMethods.__init__(self, mcp, toolbox, administration=administration, page_bytes=page_bytes)
        WebhookMethods.__init__(self, webhooks, administration=administration, page_bytes=page_bytes)
        self._agents = agents
        self._schemas = schemas
        self._tools = tools
        self._policies = policies
        self._catalogue = catalogue

    async def ApplyAgent(self, request: pb.ApplyAgentRequest, call: CallContext) -> pb.ApplyAgentResponse:
        """Make a definition the newest version of its agent."""
        output = await self._schemas.read(request.definition.output_schema)
        conditions = await read_conditions(self._schemas, request.definition)
        definition = parse_application(
            request, output=output, conditions=conditions, catalogue=self._catalogue(), tools=self._tools
        )
        await self._require_servers(call, definition.tools)
        await check_sub_agents(self._agents, call.tenant_id, definition)
        (await self._policies.get(call.tenant_id)).check_tools(definition.name, definition.policy_names)

        async def record(old: Agent | None, new: AgentVersion | None) -> None:
            await self._record(call, "ApplyAgent", old, new)

        agent, changed = await self._agents.apply(
            call.tenant_id, definition, etag=request.etag, by=call.principal.key_id, record=record
        )
        return pb.ApplyAgentResponse(agent_version=version_message(agent.newest), changed=changed, etag=agent.etag)

    async def GetAgent(self, request: pb.GetAgentRequest, call: CallContext) -> pb.GetAgentResponse:
        """Return a version of an agent."""
        reference = parse_agent(request.agent)
        if reference.version is not None:
            found = await self._agents.get_version(call.tenant_id, reference.name, reference.version)
            return pb.GetAgentResponse(agent_version=version_message(found))
        agent = await self._agents.read_in_force(call.tenant_id, reference.name)
        if agent.deleted:
            raise AgentNotFound.of(AgentReference(reference.name))
        return pb.GetAgentResponse(agent_version=version_message(agent.newest), etag=agent.etag)

    async def ListAgentDefinitions(
        self, request: pb.ListAgentDefinitionsRequest, call: CallContext
    ) -> pb.ListAgentDefinitionsResponse:
        """Return a page of agents."""
        page = PageRequest(request, ("agent_definitions", call.tenant_id), str, default_size=50)
        after = page.position[0] if page.position else ""
        found = await self._agents.lists.page(call.tenant_id, after=after, limit=page.limit, max_bytes=self._page_bytes)
        messages = [version_message(each.newest) for each in found[: page.size]]
        shown, token = page.cut(found, messages, position=lambda each: [each.name], max_bytes=self._page_bytes)
        return pb.ListAgentDefinitionsResponse(agent_versions=shown, next_page_token=token)

    async def ListAgentVersions(
        self, request: pb.ListAgentVersionsRequest, call: CallContext
    ) -> pb.ListAgentVersionsResponse:
        """Return a page of an agent's versions."""
        name = parse_agent_name(request.agent)
        page = PageRequest(request, ("agent_versions", call.tenant_id, name), int, default_size=50)
        before = page.position[0] if page.position else None
        found = await self._agents.lists.versions(
            call.tenant_id, name, before=before, limit=page.limit, max_bytes=self._page_bytes
        )
        messages = [version_message(each) for each in found[: page.size]]
        shown, token = page.cut(found, messages, position=lambda each: [each.version], max_bytes=self._page_bytes)
        return pb.ListAgentVersionsResponse(agent_versions=shown, next_page_token=token)

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, call: CallContext) -> pb.DeleteAgentResponse:
        """Hide an agent."""
        name = parse_agent_name(request.agent)

        async def record(old: Agent | None, _: AgentVersion | None) -> None:
            await self._record(call, "DeleteAgent", old, None)

        await self._agents.delete(call.tenant_id, name, etag=request.etag, record=record)
        return pb.DeleteAgentResponse()

    async def _record(self, call: CallContext, method: str, old: Agent | None, new: AgentVersion | None) -> None:
        """Record a change: by its version, which has the content."""
        actor = Actor(kind=ActorKind.KEY, id=call.principal.key_id, peer=call.peer)
        before = _values(old.newest, deleted=old.deleted) if old is not None else None
        newest = new or (old.newest if old is not None else None)
        after = _values(newest, deleted=new is None) if newest is not None else {}
        await self._administration.record_agent(actor, call.tenant_id, method=method, old=before, new=after)


def _values(version: AgentVersion, *, deleted: bool) -> dict[str, object]:
    """Return what the audit log records of an agent."""
    return {"agent": version.name, "version": version.version, "deleted": deleted}
