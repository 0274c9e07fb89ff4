"""Three tenants on one server use each other's ids: none receives a byte of another's data, be that deleted or not.

6 runs of 20 moves, in each of which a tenant changes; GODOTY_TEST_LONG=1 makes 210 of 30, and shrinks what fails.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import billing_service_pb2 as billing_pb
from godoty.v1 import tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from godoty_service.bootstrap.components import open_components
from godoty_service.rpc.validation import LENGTHS
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mcp.server import McpSandbox
from tests.conftest import server_environment
from tests.e2e.admin.changing_tenants import CHANGES, END, START, WHO
from tests.e2e.admin.conftest import ENCRYPTION_KEY
from tests.e2e.admin.defining_tenants import DefiningTenants
from tests.e2e.admin.tenants import Answer, IsolationCheck, Tenant, converse
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.collectors import Received, http_collector

OK, MISSING, DENIED = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = bool(os.environ.get("GODOTY_TEST_LONG"))
MADE_UP = (
    *("$ne", '{"$ne": null}', '{"$gt": ""}', "a.b", "talk.$", "talk\0", "\0", "tаlk", "ｔalk", " talk", "*", ".*", "%"),  # noqa: RUF001 - look-alikes
    *("turn_" + "0" * 28, "tnt_" + "0" * 28, "0" * 16, "null", "../talk", "x" * 128, "x" * 129, ""),
)
FILTERS = [("session_id", "session-"), ("turn_id", "turn_"), ("api_key_id", ""), ("user", "")]
DRAWN = ("ListLedgerEntries", "ExportLedger")  # with ids that may be malformed
TURN, SESSION = re.compile(r"turn_[0-9a-f]{28}"), re.compile(r"[A-Za-z0-9._:-]{1,128}")
ADMIN_METHODS = tuple(admin_pb.DESCRIPTOR.services_by_name["AdminService"].methods)
OF_TENANT = ("CreateApiKey", "GetApiKey", "ListApiKeys", "RevokeApiKey", "RotateApiKey", "EraseUser")


class TenantIsolation(DefiningTenants):
    """The tenants' moves. Each id in a move is drawn: its own, another's, guessed or invented."""

    channel: ClassVar[grpc.Channel]

    @initialize(who=WHO, by_operator=st.booleans())
    def begin(self, who: int, by_operator: bool) -> None:  # noqa: FBT001 - Hypothesis passes it by name
        """Create three tenants, each with a session, and change one of them."""
        self.isolation = IsolationCheck(self.channel, [next(self.pool) for _ in range(3)])
        for number, tenant in enumerate(self.isolation.tenants):
            self.open_session(tenant, number)
        self.make_change(who, by_operator=by_operator)

    def agent(self, who: Tenant, method: str, **fields: Any) -> Answer:
        """Call AgentService."""
        request = getattr(agent_pb, f"{method}Request")(**fields)
        return self.isolation.ask(who, Scope.CONVERSE, "agent", method, request)

    def draw_id(self, data: st.DataObject, who: Tenant, prefix: str) -> str:
        """Draw an id: of this kind its own, another's or guessed; another's of any kind; or invented."""
        own = [each for each in (*who.ids, *who.sessions) if each.startswith(prefix)]
        others = [
            text
            for each in self.isolation.tenants
            if each is not who
            for text in (*each.ids, *each.sessions, each.tenant_id, each.user)
        ]
        guessed = [f"{each[:-1]}{'0' if each[-1] != '0' else '1'}" for each in own]
        stolen = [each for each in others if each.startswith(prefix)]
        choices = data.draw(st.sampled_from([stolen, own, guessed, others, MADE_UP]), label="whose") or others
        return choices[data.draw(st.integers(0, 10_000), label="which") % len(choices)]

    def refused(self, answer: Answer, requested: str, form: re.Pattern[str]) -> None:
        """Check a refusal; an impossible id may be named as such."""
        assert answer.code in ((MISSING, DENIED) if form.fullmatch(requested) else (MISSING, DENIED, INVALID))
        assert answer.messages == []

    @rule(who=WHO, data=st.data())
    def converse_anywhere(self, who: int, data: st.DataObject) -> None:
        """Another tenant's session id creates a session of its own; another's request id is unknown."""
        me = self.isolation.tenants[who]
        session_id, request_id = self.draw_id(data, me, "session-"), self.draw_id(data, me, "turn_")
        requested = converse(me, session_id, request_id=request_id)
        answer = self.isolation.ask(me, Scope.CONVERSE, "agent", "Converse", requested)
        if answer.code is not OK:
            assert answer.code in (INVALID, grpc.StatusCode.ALREADY_EXISTS)  # malformed, or used for another session
            return
        me.made.add(session_id)
        assert me.mark in "".join(each.event.text_delta.text for each in answer.messages)

    @rule(number=st.integers(0, 2))
    def retry_under_one_name(self, number: int) -> None:
        """The same request id names a turn of each tenant: a retry replays its own."""
        requested = [converse(each, each.sessions[0], request_id=f"same-{number}") for each in self.isolation.tenants]
        for _ in range(2):
            turns = set()
            for who, request in zip(self.isolation.tenants, requested, strict=True):
                answer = self.isolation.ask(who, Scope.CONVERSE, "agent", "Converse", request)
                assert answer.code is OK
                assert who.mark in "".join(each.event.text_delta.text for each in answer.messages)
                turns.add(answer.messages[0].event.turn_id)
            assert len(turns) == 3

    @rule(who=WHO, data=st.data(), method=st.sampled_from(["ResumeTurn", "CancelTurn", "GetTurn"]))
    def reach_a_turn(self, who: int, data: st.DataObject, method: str) -> None:
        """Another tenant's turn is not found."""
        me = self.isolation.tenants[who]
        turn_id = self.draw_id(data, me, "turn_")
        answer = self.agent(me, method, turn_id=turn_id)
        if turn_id in me.ids and turn_id not in me.erased and turn_id.startswith("turn_"):
            assert answer.code is OK
        else:
            self.refused(answer, turn_id, TURN)

    @rule(
        who=WHO,
        data=st.data(),
        method=st.sampled_from(["GetSession", "GetSessionMetrics", "ListMessages", "DeleteSession"]),
    )
    def reach_a_session(self, who: int, data: st.DataObject, method: str) -> None:
        """Another tenant's session is not found, unless the tenant created one of that id."""
        me = self.isolation.tenants[who]
        session_id = self.draw_id(data, me, "session-")
        mine = session_id in me.sessions or session_id in me.made
        if method == "DeleteSession" and mine:
            return  # keep it as a target for the others
        answer = self.agent(me, method, session_id=session_id)
        if mine:
            assert answer.code is OK
        else:
            self.refused(answer, session_id, SESSION)

    @rule(who=WHO, data=st.data())
    def list_with_anothers_filter_or_page(self, who: int, data: st.DataObject) -> None:
        """Another tenant's end user and session have nothing here, and another's page token is refused."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[(who + data.draw(st.integers(1, 2))) % 3]
        assert not self.agent(me, "ListSessions", user=other.user).messages[0].sessions
        session_id = other.sessions[0]
        listed = self.agent(me, "ListTurns", session_id=session_id).messages[0].turns
        assert session_id in me.made or not listed
        token = self.draw_id(data, me, "Wy")
        lists: list[tuple[str, dict[str, Any]]] = [
            ("ListSessions", {}),
            ("ListMessages", {"session_id": me.sessions[0]}),
            ("ListTurns", {}),
            ("ListTurns", {"session_id": me.sessions[0]}),
            ("ListTurns", {"state": turn_pb.TURN_STATE_ENDED}),
            ("ListModels", {}),
        ]
        for method, fields in lists:
            assert self.agent(me, method, page_size=1, **fields).code is OK
            assert self.agent(me, method, page_size=1, page_token=token, **fields).code in (OK, INVALID)

    @rule(
        who=WHO,
        data=st.data(),
        scope=st.sampled_from([Scope.BILLING, Scope.ADMIN, Scope.TENANT_ADMIN]),
        method=st.sampled_from(["GetUsage", "ListLedgerEntries", "ExportLedger", "GetBudget"]),
    )
    def read_the_bill(self, who: int, data: st.DataObject, scope: Scope, method: str) -> None:
        """Only an administrator reads another tenant's connect_billing, which contains no text of a conversation."""
        me = self.isolation.tenants[who]
        other = self.isolation.tenants[(who + data.draw(st.integers(1, 2))) % 3]
        known = [other.tenant_id, other.tenant_id, me.tenant_id, f"{other.tenant_id[:-1]}~"]
        requested = [*known, data.draw(st.sampled_from(MADE_UP))][data.draw(st.integers(0, len(known)))]
        fields: dict[str, Any] = {"tenant_id": requested}
        if method in ("GetUsage", "ExportLedger"):
            groups = [billing_pb.USAGE_GROUP_API_KEY, billing_pb.USAGE_GROUP_USER]
            fields |= {"start_time": START, "end_time": END} | ({"group_by": groups} if method == "GetUsage" else {})
        if method == "ListLedgerEntries":
            name, prefix = data.draw(st.sampled_from(FILTERS), label="filter")
            fields |= {"page_size": 1, name: other.user if name == "user" else self.draw_id(data, other, prefix)}
        if method == "ExportLedger" and data.draw(st.booleans(), label="continue"):
            fields |= {"cursor": self.draw_id(data, other, "Wy")}
        answer = self.isolation.ask(me, scope, "billing", method, getattr(billing_pb, f"{method}Request")(**fields))
        if scope is Scope.TENANT_ADMIN:
            assert answer.code is DENIED
        elif requested in ("", me.tenant_id) or (scope is Scope.ADMIN and requested == other.tenant_id):
            assert answer.code is OK or (method in DRAWN and answer.code is INVALID)
        else:
            too_long = len(requested) > LENGTHS["tenant_id"]
            assert answer.code in (MISSING, DENIED) or ((too_long or method in DRAWN) and answer.code is INVALID)

    @rule(who=WHO, data=st.data(), scope=st.sampled_from([Scope.CONVERSE, Scope.BILLING, Scope.TENANT_ADMIN]))
    def administer(self, who: int, data: st.DataObject, scope: Scope) -> None:
        """A key that is not the operator's is refused what it does not administer, and everything of another tenant."""
        me = self.isolation.tenants[who]
        other = self.isolation.tenants[data.draw(WHO)]
        method = data.draw(st.sampled_from(ADMIN_METHODS))
        request = getattr(admin_pb, method.input_type.name)()
        names = method.input_type.fields_by_name
        if "tenant_id" in names:
            request.tenant_id = other.tenant_id
        if "api_key_id" in names:
            request.api_key_id = other.keys[Scope.CONVERSE].split("_")[1]
        if "user" in names:
            request.user = other.user
        if "scopes" in names:
            request.scopes.append(tenant_pb2.API_SCOPE_CONVERSE)
        if scope is Scope.TENANT_ADMIN and method.name in OF_TENANT:
            if other is not me:
                assert self.isolation.ask(me, scope, "admin", method.name, request).code is MISSING
            elif method.name in ("GetApiKey", "ListApiKeys"):
                assert self.isolation.ask(me, scope, "admin", method.name, request).code is OK
            return
        assert self.isolation.ask(me, scope, "admin", method.name, request).code is DENIED

    @rule(who=WHO, data=st.data())
    def administer_the_own_tenant(self, who: int, data: st.DataObject) -> None:
        """A bound key manages the keys of its tenant; under another's id, and of the operator, it gets none."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[(who + 1) % 3]
        ask, scope = self.isolation.ask, Scope.TENANT_ADMIN
        create = admin_pb.CreateApiKeyRequest(
            tenant_id=me.tenant_id, scopes=[tenant_pb2.API_SCOPE_ADMIN], display_name="bound"
        )
        created = ask(me, scope, "admin", "CreateApiKey", create)
        assert created.code is OK
        assert not created.messages[0].api_key.operator
        key_id = created.messages[0].api_key.api_key_id
        for theirs in (other.keys[Scope.CONVERSE].split("_")[1], data.draw(st.sampled_from(MADE_UP))):
            for method in ("GetApiKey", "RevokeApiKey", "RotateApiKey"):
                request = getattr(admin_pb, f"{method}Request")(tenant_id=me.tenant_id, api_key_id=theirs)
                assert ask(me, scope, "admin", method, request).code in (MISSING, INVALID)
        create.operator = True
        assert ask(me, scope, "admin", "CreateApiKey", create).code is DENIED
        for method in ("RevokeApiKey", "RotateApiKey"):
            request = getattr(admin_pb, f"{method}Request")(
                tenant_id=me.tenant_id, api_key_id=me.keys[Scope.ADMIN].split("_")[1]
            )
            assert ask(me, scope, "admin", method, request).code is DENIED
        erase = admin_pb.EraseUserRequest(tenant_id=me.tenant_id, user=other.user)
        assert ask(me, scope, "admin", "EraseUser", erase).code is MISSING
        revoke = admin_pb.RevokeApiKeyRequest(tenant_id=me.tenant_id, api_key_id=key_id)
        assert ask(me, scope, "admin", "RevokeApiKey", revoke).code is OK

    @rule(who=WHO, data=st.data())
    def administer_with_the_key(self, who: int, data: st.DataObject) -> None:
        """The operator reads any tenant, but finds no key under another's id, and no conversation's text."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[(who + 1) % 3]
        key_id = other.keys[Scope.CONVERSE].split("_")[1]
        requested = data.draw(st.sampled_from(MADE_UP))
        ask = self.isolation.ask
        own = admin_pb.RevokeApiKeyRequest(tenant_id=me.tenant_id, api_key_id=key_id)
        assert ask(me, Scope.ADMIN, "admin", "RevokeApiKey", own).code is MISSING
        for method in ("GetTenant", "GetPolicy", "ListApiKeys"):
            request = getattr(admin_pb, f"{method}Request")
            assert ask(me, Scope.ADMIN, "admin", method, request(tenant_id=other.tenant_id)).code is OK
            assert ask(me, Scope.ADMIN, "admin", method, request(tenant_id=requested)).code in (MISSING, INVALID)
        changes = admin_pb.ListAdminChangesRequest(tenant_id=other.tenant_id)
        assert ask(me, Scope.ADMIN, "admin", "ListAdminChanges", changes).code is OK

    @rule(
        who=WHO, data=st.data(), scope=st.sampled_from([Scope.BILLING, Scope.AGENTS, Scope.ADMIN, Scope.TENANT_ADMIN])
    )
    def converse_without_the_scope(self, who: int, data: st.DataObject, scope: Scope) -> None:
        """A key of another scope opens no conversation, not even of its own tenant."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[data.draw(WHO)]
        for method, fields in (
            ("Converse", {"session_id": other.sessions[0], "text": "hi"}),
            ("GetSession", {"session_id": other.sessions[0]}),
            ("ListMessages", {"session_id": other.sessions[0]}),
            ("ListSessions", {}),
            ("ListTurns", {}),
            ("GetTurn", {"turn_id": "turn_" + "0" * 28}),
            ("ListModels", {}),
            ("ListAgents", {}),
        ):
            request = getattr(agent_pb, f"{method}Request")(**fields)
            assert self.isolation.ask(me, scope, "agent", method, request).code is DENIED


@dataclass(frozen=True)
class Deployment:
    """A server that shows as much as it can be set to.

    Attributes:
        target: Its address.
        database: Its database.
        mcp: An MCP server that it reaches.
        secrets: The secrets of all tenants' MCP servers.
    """

    target: str
    database: str
    mcp: McpSandbox
    secrets: list[str]


@pytest.fixture(scope="module")
def deployment(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server whose log and spans have all content; once it has stopped, they are searched for secrets."""
    log, received = tmp_path_factory.mktemp("server") / "server.log", Received()
    database, planted = backends.new_database(), list[str]()
    stack = AsyncExitStack()
    mcp = backends.run(stack.enter_async_context(McpSandbox()))
    everything = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": backends.run(stack.enter_async_context(http_collector(received))),
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "GODOTY_TRACE_CONTENT": "true",
        "GODOTY_LOG_CONTENT": "true",
        "GODOTY_LOG_LEVEL": "DEBUG",
        "GODOTY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
    }
    process = ServerProcess(environment=server_environment(backends, database) | everything, log=log)
    try:
        backends.run(process.start())
        yield Deployment(process.address, database, mcp, planted)
    finally:
        backends.run(process.stop())
        backends.run(stack.aclose())
    search(log, received, planted)


def search(log: Path, received: Received, planted: list[str]) -> None:
    """Search a log and spans for secrets."""
    logged, spans = log.read_text(), [str(each) for each in received]
    assert "turn_ended" in logged
    assert any("invoke_agent" in each for each in spans)
    for secret in planted:
        assert secret not in logged
        assert not any(secret in each for each in spans)


@pytest.fixture
def isolation_test(backends: Backends, deployment: Deployment) -> Iterator[type[TenantIsolation]]:
    """Return the state machine, with its tenants."""
    target, database = deployment.target, deployment.database

    async def some() -> list[Tenant]:
        async with open_components(backends.settings(database), indexes=False) as components:

            async def make() -> Tenant:
                tenants = components.tenancy.tenants
                new = tenants.new("stranger", tenant_id=f"stranger-{secrets.token_hex(8)}")
                tenant = await tenants.insert(new)
                keys = {
                    scope: (await components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset({scope})))[1]
                    for scope in Scope
                }
                return Tenant(tenant_id=tenant.tenant_id, keys=keys)

            return list(await asyncio.gather(*(make() for _ in range(8 if not LONG else 60))))

    def endless() -> Iterator[Tenant]:
        while True:
            for tenant in backends.run(some()):
                deployment.secrets.append(tenant.secret)
                yield tenant

    with grpc.insecure_channel(target) as channel:
        TenantIsolation.channel, TenantIsolation.pool = channel, endless()
        TenantIsolation.service, TenantIsolation.mcp = backends.service(target, database), deployment.mcp
        yield TenantIsolation


@pytest.mark.parametrize("change", CHANGES)
def test_no_tenant_receives_data_of_another(isolation_test: type[TenantIsolation], change: str) -> None:
    """All methods, with keys of every scope, and ids that are another's, guessed, malformed or injected."""
    isolation_test.change = change
    run_state_machine_as_test(
        isolation_test,
        settings=settings(
            max_examples=70 if LONG else 2,
            stateful_step_count=30 if LONG else 20,
            deadline=None,
            phases=[Phase.generate, *([Phase.shrink] if LONG else [])],  # to shrink takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
