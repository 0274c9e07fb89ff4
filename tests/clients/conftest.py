"""The clients' tests: against the real service, and against a stand-in for what it does not do at will."""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio
import pytest
from godoty import GodotyClient
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

REPOSITORY = Path(__file__).parents[2]

Context = grpc.aio.ServicerContext[Any, Any]


class Service(Protocol):
    """What `tests/conftest.py` serves."""

    target: str
    api_key: str


@dataclass
class FakeAgentService(AgentServiceServicer):
    """A server whose turns follow a test's script."""

    target: str = ""
    api_key: str = "gdt_standin_secret"
    script: Callable[[pb.ConverseRequest, Context], AsyncIterator[pb.ConverseResponse]] | None = None
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    async def Converse(  # noqa: N802 - gRPC's name
        self, request: pb.ConverseRequest, context: Context
    ) -> AsyncIterator[pb.ConverseResponse]:
        """Plays the script."""
        self.metadata.append(dict(context.invocation_metadata() or ()))
        assert self.script is not None
        async for response in self.script(request, context):
            yield response

    async def GetSession(  # noqa: N802 - gRPC's name
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """Knows every session."""
        return pb.GetSessionResponse(session=pb.Session(session_id=request.session_id, cost_usd="0"))

    async def ListMessages(  # noqa: N802 - gRPC's name
        self, request: pb.ListMessagesRequest, context: Context
    ) -> pb.ListMessagesResponse:
        """Knows no messages."""
        return pb.ListMessagesResponse()

    async def GetSessionMetrics(  # noqa: N802 - gRPC's name
        self, request: pb.GetSessionMetricsRequest, context: Context
    ) -> pb.GetSessionMetricsResponse:
        """Knows no calls."""
        return pb.GetSessionMetricsResponse()


@pytest.fixture
async def fake_service() -> AsyncIterator[FakeAgentService]:
    server = grpc.aio.server()
    servicer = FakeAgentService()
    add_AgentServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(grace=None)


@pytest.fixture
async def client(service: Service) -> AsyncIterator[GodotyClient]:
    async with GodotyClient(service.target, service.api_key) as connected:
        yield connected


@pytest.fixture
def session_id() -> str:
    return f"clients-{uuid.uuid4().hex}"


@pytest.fixture
def chat_command() -> list[str]:
    return [sys.executable, "-m", "godoty.chat"]


@pytest.fixture
def chat_environment() -> dict[str, str]:
    """The environment without any setting of ours, and with the checkout's client."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GODOTY_")}
    return kept | {"PYTHONPATH": str(REPOSITORY / "clients/python"), "TERM": "xterm", "NO_COLOR": "1"}
