"""What reasons are raised with: callers, administrators and servers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import (
    admin_service_pb2_grpc,
    agent_definition_service_pb2,
    agent_definition_service_pb2_grpc,
    billing_service_pb2,
    billing_service_pb2_grpc,
)

from godoty_service.ids import new_id
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy
from tests.conftest import Start
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller, Failure, failure_of
from tests.support.service import Service


@dataclass
class Environment:
    """What the reasons are raised with.

    Attributes:
        caller: A new tenant of the shared server.
        other_tenant: Another one.
        serve: Starts a server in the test's event loop.
        connect: Connects a caller.
        issue: Creates keys.
        monkeypatch: Changes a server in the test's event loop.
    """

    caller: Caller
    other_tenant: Caller
    serve: Start
    connect: Callable[[Service], Caller]
    issue: Callable[..., str]
    monkeypatch: pytest.MonkeyPatch

    @property
    def service(self) -> Service:
        """The shared server and the tenant."""
        return self.caller.service

    async def admin(self, method: str, *, scope: Scope = Scope.ADMIN, **fields: Any) -> Failure:
        """Call a method of AdminService with a key of a scope, which fails."""
        return await failure_of(self.administer(self.issue(self.service, scopes=frozenset({scope})), method, **fields))

    def administer(self, key: str, method: str, **fields: Any) -> Awaitable[Any]:
        """Call a method of AdminService for the tenant, or for the one that the fields name."""
        stub: Any = admin_service_pb2_grpc.AdminServiceStub(self.caller.channel)  # type: ignore[no-untyped-call] # generated
        request = getattr(admin_pb, f"{method}Request")(**{"tenant_id": self.service.tenant_id, **fields})
        call: Awaitable[Any] = getattr(stub, method)(request, metadata=(("authorization", f"Bearer {key}"),))
        return call

    def define(self, **definition: Any) -> Awaitable[Any]:
        """Apply the definition of an agent."""
        return self.manage("ApplyAgent", agent_definition_service_pb2.ApplyAgentRequest(definition=definition))

    def manage(self, method: str, request: Any) -> Awaitable[Any]:
        """Call a method of AgentDefinitionService."""
        stub: Any = agent_definition_service_pb2_grpc.AgentDefinitionServiceStub(self.caller.channel)  # type: ignore[no-untyped-call] # generated
        key = self.issue(self.service, scopes=frozenset({Scope.AGENTS}))
        call: Awaitable[Any] = getattr(stub, method)(request, metadata=(("authorization", f"Bearer {key}"),))
        return call

    async def usage(self, scope: Scope, **fields: Any) -> Failure:
        """Call GetUsage with a key of a scope, which fails."""
        stub: Any = billing_service_pb2_grpc.BillingServiceStub(self.caller.channel)  # type: ignore[no-untyped-call] # generated
        key = self.issue(self.service, scopes=frozenset({scope}))
        request = billing_service_pb2.GetUsageRequest(start_time={"seconds": 1}, end_time={"seconds": 2}, **fields)
        return await failure_of(stub.GetUsage(request, metadata=(("authorization", f"Bearer {key}"),)))

    async def policy(self, **limits: Any) -> None:
        """Set the tenant's policy, before the server has read one."""
        self.service.backends.set_policy(self.service.database.name, self.service.tenant_id, Policy(**limits))

    async def held(self, caller: Caller | None = None, **fields: Any) -> tuple[Any, Callable[[], None]]:
        """Start a turn whose answer waits; return its stream, and what lets it end."""
        who, hold = caller or self.caller, new_id("hold")
        call = who.start(f"@sandbox plain tokens=9 hold_after=3 hold={hold}", **fields)
        await until_text(call, "t2 ")
        return call, lambda: who.service.backends.allow(hold)
