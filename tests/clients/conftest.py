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
from godoty import AsyncGodoty
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import metering_pb2
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server

from tests.clients.kinds import KINDS, Driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

REPOSITORY = Path(__file__).parents[2]
GRACE = 600.0  # seconds: what ends a turn sooner is not the loss of its reader

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
    script: Callable[[pb.ConverseRequest, Context], AsyncIterator[turn_pb.TurnEvent]] | None = None
    resumed: Callable[[pb.ResumeTurnRequest, Context], AsyncIterator[turn_pb.TurnEvent]] | None = None
    refusals: list[grpc.StatusCode] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    totals: metering_pb2.Totals = field(default_factory=metering_pb2.Totals)

    async def Converse(  # noqa: N802 - gRPC's name
        self, request: pb.ConverseRequest, context: Context
    ) -> AsyncIterator[pb.ConverseResponse]:
        """Plays the script."""
        self.metadata.append(dict(context.invocation_metadata() or ()))
        assert self.script is not None
        async for event in self.script(request, context):
            yield pb.ConverseResponse(event=event)

    async def ResumeTurn(  # noqa: N802 - gRPC's name
        self, request: pb.ResumeTurnRequest, context: Context
    ) -> AsyncIterator[pb.ResumeTurnResponse]:
        """Plays the script of what follows."""
        assert self.resumed is not None
        async for event in self.resumed(request, context):
            yield pb.ResumeTurnResponse(event=event)

    async def CancelTurn(  # noqa: N802 - gRPC's name
        self, request: pb.CancelTurnRequest, context: Context
    ) -> pb.CancelTurnResponse:
        """Remembers the turn."""
        self.cancelled.append(request.turn_id)
        return pb.CancelTurnResponse()

    async def GetSession(  # noqa: N802 - gRPC's name
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """Knows every session, after the refusals."""
        if self.refusals:
            await context.abort(self.refusals.pop(0), "not now")
        return pb.GetSessionResponse(session=session_pb.Session(session_id=request.session_id, cost_usd="0"))

    async def ListMessages(  # noqa: N802 - gRPC's name
        self, request: pb.ListMessagesRequest, context: Context
    ) -> pb.ListMessagesResponse:
        """Knows no messages."""
        return pb.ListMessagesResponse()

    async def GetSessionMetrics(  # noqa: N802 - gRPC's name
        self, request: pb.GetSessionMetricsRequest, context: Context
    ) -> pb.GetSessionMetricsResponse:
        """Knows the totals that the test sets."""
        return pb.GetSessionMetricsResponse(totals=self.totals)


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
async def client(service: Service) -> AsyncIterator[AsyncGodoty]:
    async with AsyncGodoty(service.target, service.api_key, disconnect_grace=GRACE) as connected:
        yield connected


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> type[Any]:
    """The class of a client: each test that asks for it is run with both."""
    return KINDS[request.param]


@pytest.fixture
async def connect_to(kind: type[Any]) -> AsyncIterator[Callable[..., Driver]]:
    """Connects clients of the kind; they are closed after the test."""
    drivers: list[Driver] = []

    def connect(target: str, api_key: str, **options: Any) -> Driver:
        drivers.append(Driver(kind(target, api_key, **options)))
        return drivers[-1]

    yield connect
    for driver in drivers:
        await driver.do(driver.client.close)


@pytest.fixture
def driver(service: Service, connect_to: Callable[..., Driver]) -> Driver:
    """A client of the shared server."""
    return connect_to(service.target, service.api_key, disconnect_grace=GRACE)


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
