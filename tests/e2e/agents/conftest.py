"""Applies and reads agents as a tenant of the shared server, or of another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_definition_service_pb2 as pb
from godoty.v1 import agent_definition_service_pb2_grpc as stubs
from godoty.v1 import agent_pb2

from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy
from tests.support.caller import Caller, Failure, Turn
from tests.support.service import Service


@dataclass(frozen=True)
class Definer:
    """Calls AgentDefinitionService with a key of the scope agents.

    Attributes:
        service: The server and the tenant.
        stub: The service's stub.
        key: The key.
    """

    service: Service
    stub: Any
    key: str

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method."""
        request = getattr(pb, f"{method}Request")(**fields)
        metadata = (("authorization", f"Bearer {self.key}"),)
        return await getattr(self.stub, method)(request, metadata=metadata, timeout=90.0)

    async def apply(self, name: str = "support", *, etag: str = "", **definition: Any) -> pb.ApplyAgentResponse:
        """Apply a definition."""
        found: pb.ApplyAgentResponse = await self.call("ApplyAgent", definition={"name": name, **definition}, etag=etag)
        return found

    async def get(self, agent: str = "support") -> agent_pb2.AgentVersion:
        """Return a version of an agent."""
        found: agent_pb2.AgentVersion = (await self.call("GetAgent", agent=agent)).agent_version
        return found


@pytest.fixture
def define(issue: Callable[..., str]) -> Callable[[Caller], Definer]:
    """Returns what applies agents for a caller's tenant."""

    def for_tenant_of(caller: Caller) -> Definer:
        key = issue(caller.service, scopes=frozenset({Scope.AGENTS}))
        stub = stubs.AgentDefinitionServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
        return Definer(caller.service, stub, key)

    return for_tenant_of


@pytest.fixture
def definer(define: Callable[[Caller], Definer], caller: Caller) -> Definer:
    """Applies agents for the test's tenant."""
    return define(caller)


@pytest.fixture
async def restricted(caller: Caller) -> Callable[..., Any]:
    """Returns what sets the policy of the caller's tenant, before the server reads one, and returns the caller."""
    service = caller.service

    async def restrict(**policy: Any) -> Caller:
        service.backends.set_policy(service.database.name, service.tenant_id, Policy(**policy))
        return caller

    return restrict


def refused(turn: Turn) -> Failure:
    """Return the failure of a turn that was refused before it began."""
    assert turn.failure is not None, turn.kinds
    assert turn.responses == ()
    return turn.failure


def prompt_of(request: dict[str, Any]) -> str:
    """Return the system prompt of a request to the provider; empty: it has none."""
    texts = [each["content"] for each in request["messages"] if each["role"] == "system"]
    return "".join(text if isinstance(text, str) else "".join(part["text"] for part in text) for text in texts)


NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
