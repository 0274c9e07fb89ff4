"""Moves of the isolation test with agents and MCP servers, under shared names and under those of others."""

from typing import Any, ClassVar

import grpc
from godoty.v1 import agent_definition_service_pb2 as definitions_pb
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import mcp_server_pb2 as mcp_pb
from godoty.v1 import webhook_pb2 as webhook_pb
from hypothesis import strategies as st
from hypothesis.stateful import rule

from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mcp.leaks import LEAKY, WAYS
from openrouter_sandbox.mcp.server import McpSandbox
from tests.e2e.admin.changing_tenants import WHO, ChangingTenants
from tests.e2e.admin.tenants import Answer, Tenant, converse
from tests.e2e.contract.requests import METHODS, new_message
from tests.support.service import stored_bytes

OK, MISSING, INVALID = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
SHARED = "helper"  # a name of agents and servers that every tenant may have
PREFIX = "crm"
PATHS = (LEAKY, f"/redirect?to={LEAKY}")
BROKEN = ("/secret", "/nothing", "/nonsense?kind=html")  # paths of servers that refuse or fail
SERVICES = {
    "AgentService": ("agent", Scope.CONVERSE),
    "AgentDefinitionService": ("definitions", Scope.AGENTS),
    "BillingService": ("billing", Scope.BILLING),
    "AdminService": ("admin", Scope.TENANT_ADMIN),
}
FILTERED = {"ListSessions", "ListTurns"}  # a name of another tenant's finds nothing


def use(tool: str, arguments: str) -> str:
    """Return the end of a text by which the model uses a tool once."""
    return f" @sandbox tool-loop calls=2 tool={tool} input='{arguments}'"


class DefiningTenants(ChangingTenants):
    """The moves, and what is done and searched after each run.

    Attributes:
        mcp: An MCP server, which repeats what it gets.
    """

    mcp: ClassVar[McpSandbox]

    def definitions(self, who: Tenant, method: str, **fields: Any) -> Answer:
        """Call AgentDefinitionService."""
        modules: tuple[Any, ...] = (definitions_pb, mcp_pb, webhook_pb)
        messages = next(each for each in modules if hasattr(each, f"{method}Request"))
        request = getattr(messages, f"{method}Request")(**fields)
        return self.isolation.ask(who, Scope.AGENTS, "definitions", method, request)

    def define(self, who: Tenant, name: str, **fields: Any) -> Answer:
        """Apply an agent whose texts are the tenant's."""
        definition = {"name": name, "description": who.mark, "system_prompt": who.mark} | fields
        return self.definitions(who, "ApplyAgent", definition=definition)

    def answer(self, who: Tenant, agent: str, text: str = "") -> Answer:
        """Run the first turn of a session with an agent."""
        request = converse(who, "", agent=agent)
        request.text += text
        return self.isolation.ask(who, Scope.CONVERSE, "agent", "Converse", request)

    @rule(who=WHO, others=WHO, name=st.sampled_from([SHARED, None]))
    def define_an_agent(self, who: int, others: int, name: str | None) -> None:
        """An agent of a name that others use, too, is the tenant's own; another tenant's is not found."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[others]
        named = name or me.agent
        assert self.define(me, named).code is OK
        for reference in (named, f"{named}@1"):
            found = self.definitions(me, "GetAgent", agent=reference)
            assert found.messages[0].agent_version.definition.system_prompt == me.mark
        assert self.answer(me, named).messages[0].event.turn_started.agent == named
        for method, fields in {"ListAgentDefinitions": {}, "ListAgentVersions": {"agent": named}}.items():
            assert self.definitions(me, method, **fields).code is OK
        listed = agent_pb.ListAgentsRequest()
        assert self.isolation.ask(me, Scope.CONVERSE, "agent", "ListAgents", listed).code is OK
        if other is not me:
            self.define(other, other.agent)
            for method in ("GetAgent", "ListAgentVersions", "DeleteAgent"):
                assert self.definitions(me, method, agent=other.agent).code is MISSING
            assert self.definitions(me, "GetAgent", agent=f"{other.agent}@1").code is MISSING
            assert self.answer(me, other.agent).code is MISSING
            own = converse(me, me.sessions[0], agent=other.agent)
            assert self.isolation.ask(me, Scope.CONVERSE, "agent", "Converse", own).code is MISSING

    @rule(who=WHO, others=WHO)
    def ask_a_sub_agent(self, who: int, others: int) -> None:
        """It is the tenant's own, also under a name that others use; another tenant's is not found."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[others]
        for each in (me, other):
            assert self.define(each, SHARED).code is OK
            assert self.define(each, each.agent).code is OK
        tool = {"agent": {"agent": SHARED, "description": me.mark}}
        assert self.define(me, "asker", tools=[tool]).code is OK
        asked = self.answer(me, "asker", use(f"agent_{SHARED}", '{"task": "Hi."}'))
        outputs = [each.event.tool_call_finished.output for each in asked.messages]
        assert any("Hi." in each for each in outputs)
        if other is not me:
            for theirs in (other.agent, f"{other.agent}@1"):
                thief = {"agent": {"agent": theirs, "description": "Steals."}}
                assert self.define(me, "thief", tools=[thief]).code is MISSING

    @rule(who=WHO, others=WHO)
    def delete_an_agent(self, who: int, others: int) -> None:
        """It is gone for its tenant alone; its versions remain, and no other tenant reads them."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[others]
        for each in (me, other):
            assert self.define(each, SHARED).code is OK
        assert self.definitions(me, "DeleteAgent", agent=SHARED).code is OK
        assert self.definitions(me, "GetAgent", agent=SHARED).code is MISSING
        assert self.answer(me, SHARED).code is MISSING
        versions = self.definitions(me, "ListAgentVersions", agent=SHARED).messages[0].agent_versions
        assert {each.definition.system_prompt for each in versions} == {me.mark}
        if other is not me:
            found = self.definitions(other, "GetAgent", agent=SHARED).messages[0]
            assert found.agent_version.definition.system_prompt == other.mark
            assert self.define(me, SHARED, description="again").code is OK
            refused = self.definitions(me, "DeleteAgent", agent=SHARED, etag=f"{found.etag}-theirs")
            assert refused.code is grpc.StatusCode.ABORTED

    def serve(self, who: Tenant, name: str, path: str, *, oauth: bool = False) -> None:
        """Apply an MCP server with the tenant's secret, and an agent with its tools."""
        server: dict[str, Any] = {
            "name": name,
            "url": self.mcp.url(path),
            "prefix": PREFIX,
            "headers": [{"name": "X-Api-Key", "secret": who.secret}],
        }
        if oauth:
            token_url = self.mcp.url("/token")
            server["oauth"] = {"token_url": token_url, "client_id": who.server, "client_secret": who.secret}
        assert self.definitions(who, "ApplyMcpServer", server=server).code is OK
        assert self.define(who, "user", tools=[{"mcp": {"mcp_server": name}}]).code is OK

    @rule(
        who=WHO,
        others=WHO,
        name=st.sampled_from([SHARED, None]),
        path=st.sampled_from(PATHS),
        way=st.sampled_from(WAYS),
    )
    def use_a_server(self, who: int, others: int, name: str | None, path: str, way: str) -> None:
        """Its tenant's own, also under a name that others use; no one gets the secret that it repeats."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[others]
        named = name or me.server
        self.serve(me, named, path)
        assert self.definitions(me, "GetMcpServer", mcp_server=named).messages[0].server.url == self.mcp.url(path)
        assert self.definitions(me, "ListMcpServers").code is OK
        check = self.definitions(me, "CheckMcpServer", mcp_server=named).messages[0]
        assert (check.problem, check.tools[-1].name) == ("", "leak")
        used = self.answer(me, "user", use(f"{PREFIX}_leak", f'{{"way": "{way}"}}'))
        assert used.code is OK
        assert any("[secret]" in str(each) for each in used.messages)
        if other is not me:
            self.serve(other, other.server, LEAKY)
            for method in ("GetMcpServer", "DeleteMcpServer", "CheckMcpServer"):
                assert self.definitions(me, method, mcp_server=other.server).code is MISSING
            assert self.define(me, "thief", tools=[{"mcp": {"mcp_server": other.server}}]).code is MISSING

    @rule(who=WHO, path=st.sampled_from(BROKEN), oauth=st.booleans())
    def use_a_broken_server(self, who: int, path: str, oauth: bool) -> None:  # noqa: FBT001 - Hypothesis passes it by name
        """What is wrong is said without the secret; the turn goes on."""
        me = self.isolation.tenants[who]
        self.serve(me, me.server, path, oauth=oauth)
        assert self.definitions(me, "CheckMcpServer", mcp_server=me.server).messages[0].problem
        assert self.answer(me, "user").code is OK

    @rule(who=WHO, others=WHO)
    def delete_a_server(self, who: int, others: int) -> None:
        """It is gone for its tenant alone; its secret is not taken over by another server of its name."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[others]
        for each in (me, other):
            self.serve(each, SHARED, LEAKY)
        assert self.definitions(me, "DeleteMcpServer", mcp_server=SHARED).code is OK
        assert self.definitions(me, "GetMcpServer", mcp_server=SHARED).code is MISSING
        without = {"name": SHARED, "url": self.mcp.url(LEAKY), "headers": [{"name": "X-Api-Key"}]}
        assert self.definitions(me, "ApplyMcpServer", server=without).code is INVALID
        if other is not me:
            assert self.definitions(other, "GetMcpServer", mcp_server=SHARED).code is OK

    @rule(who=WHO, others=WHO)
    def use_webhooks_of_others(self, who: int, others: int) -> None:
        """A webhook is its own tenant's, under a shared name and under one that no other has."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[others]
        url = f"https://hooks.example/{other.tenant_id}"
        for name in (SHARED, other.server):
            assert self.definitions(other, "ApplyWebhook", webhook={"name": name, "url": url}).code is OK
        if other is me:
            return
        mine = {"name": SHARED, "url": "https://hooks.example/mine"}
        assert self.definitions(me, "ApplyWebhook", webhook=mine).code is OK
        for method in ("ListDeliveries", "DeleteWebhook"):
            assert self.definitions(me, method, webhook_name=other.server).code is MISSING
        assert self.definitions(me, "DeleteWebhook", webhook_name=SHARED).code is OK
        listed = self.definitions(other, "ListWebhooks").messages[0].webhooks
        assert {SHARED, other.server} <= {each.name for each in listed}
        assert {each.url for each in listed} == {url}

    @rule(who=WHO, others=WHO)
    def read_pages_of_definitions(self, who: int, others: int) -> None:
        """A page token of another tenant is refused."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[others]
        for each in (me, other):
            for name in (SHARED, "user"):
                self.serve(each, name, LEAKY)
                self.define(each, SHARED, description=name)
        lists = {"ListAgentDefinitions": {}, "ListAgentVersions": {"agent": SHARED}, "ListMcpServers": {}}
        for method, fields in lists.items():
            token = self.definitions(other, method, page_size=1, **fields).messages[0].next_page_token
            assert token
            answer = self.definitions(me, method, page_size=1, page_token=token, **fields)
            assert answer.code is (OK if other is me else INVALID)

    def call_everything(self, who: Tenant, other: Tenant) -> None:
        """Call every method of the contract with another tenant's names in each field that has one."""
        turns = [each for each in other.ids if each.startswith("turn_")] or ["turn_" + "0" * 28]
        calls = [each for each in other.ids if each.startswith("call_")] or ["call_" + "0" * 28]
        sessions = [each for each in other.sessions if each not in who.made] or ["none"]
        names: dict[str, Any] = {
            "session_id": sessions[0],
            "turn_id": turns[0],
            "call_id": calls[0],
            "agent": other.agent,
            "mcp_server": other.server,
            "webhook_name": other.server,
            "tenant_id": other.tenant_id,
            "api_key_id": other.keys[Scope.CONVERSE].split("_")[1],
            "definition": {"name": "thief", "tools": [{"mcp": {"mcp_server": other.server}}]},
        }
        given: dict[str, Any] = {"text": "hi", "number": 1, "user": other.user}
        for method in METHODS:
            fields = {each.name for each in method.input_type.fields}
            named = {name: value for name, value in names.items() if name in fields}
            request = new_message(method.input_type)(
                **named, **{name: value for name, value in given.items() if name in fields}
            )
            service, scope = SERVICES[method.containing_service.name]
            answer = self.isolation.ask(who, scope, service, method.name, request)
            if named and method.name not in FILTERED:
                assert answer.code is not OK, f"{method.name} with another tenant's {', '.join(named)}"

    def teardown(self) -> None:
        """Call everything, and search what the run leaves in the database and at the provider."""
        if not hasattr(self, "isolation"):
            return
        tenants = self.isolation.tenants
        for number, who in enumerate(tenants):
            self.call_everything(who, tenants[(number + 1) % 3])
        stored = stored_bytes(self.service)
        sandbox = self.service.backends.sandbox
        requested = [str(each["body"]) for each in self.service.backends.ask(sandbox.request_log.entries)]
        for each in self.isolation.everyone:
            assert each.secret.encode() not in stored
            assert not any(each.secret in text for text in requested)
        for text in requested:
            assert sum(each.mark in text for each in self.isolation.everyone) <= 1, "of two tenants"
