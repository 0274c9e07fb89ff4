"""An MCP server in the test's event loop, and what calls its tools."""

import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from godoty_service.agents.mcp.links import ServerLinks
from godoty_service.agents.mcp.server import Credentials, McpServer
from godoty_service.agents.mcp.tool_list import ListedTool
from godoty_service.agents.mcp.tools import MCP, McpTool, ProgressReport, TurnConnections
from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.pool import Network
from openrouter_sandbox.mcp.server import McpSandbox
from tests.unit.agents.mcp.servers import server

MAX_BYTES = 1024 * 1024
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
_CERTIFICATES = httpx2.create_ssl_context()


@pytest.fixture
async def sandbox() -> AsyncIterator[McpSandbox]:
    """An MCP server."""
    async with McpSandbox() as started:
        yield started


class Client:
    """Calls tools as turns do.

    Attributes:
        links: The links to the servers.
        credentials: What the servers' credentials are.
    """

    def __init__(self, links: ServerLinks, credentials: dict[str, Credentials]) -> None:
        self.links = links
        self.credentials = credentials
        self._turns: list[TurnConnections] = []

    def turn(self) -> TurnConnections:
        """Return the connections of a new turn."""
        turn = TurnConnections(self.links, max_bytes=MAX_BYTES)
        self._turns.append(turn)
        return turn

    def close(self) -> None:
        """End all turns."""
        for each in self._turns:
            each.close()


async def call(turn: TurnConnections, at: McpServer, name: str, **arguments: Any) -> "Outcome":
    """Call a tool and return what the model sees."""
    use: Any = {"toolUseId": "t1", "name": f"crm_{name}", "input": arguments}
    return Outcome(await events_of(turn, at, use))


async def events_of(turn: TurnConnections, at: McpServer, use: Any) -> list[Any]:
    """Call a tool and return its events."""
    name = use["name"].removeprefix("crm_")
    listed = ListedTool(name=name, offered_name=use["name"], description="", schema={}, schema_bytes=0)
    events: list[Any] = []
    async for event in McpTool(at, listed).stream(use, {MCP: turn}):
        events.append(event)  # noqa: PERF401 - the events before an error count
    return events


async def content_of(turn: TurnConnections, at: McpServer, use: Any) -> list[Any]:
    """Call a tool and return the content blocks of its result."""
    content: list[Any] = (await events_of(turn, at, use))[-1].tool_result["content"]
    return content


class Outcome:
    """The events of a call.

    Attributes:
        reports: The reports of progress.
        status: "success" or "error".
        text: The text of the result.
    """

    def __init__(self, events: list[Any]) -> None:
        *earlier, last = events
        self.reports: list[ProgressReport] = [each["tool_stream_event"]["data"] for each in earlier]
        self.status: str = last.tool_result["status"]
        self.text = "\n".join(each["text"] for each in last.tool_result["content"])

    def __repr__(self) -> str:
        return f"{self.status}: {self.text}"


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Client]]:
    """Builds clients under given address rules; they are closed after the test."""
    async with AsyncExitStack() as stack:

        def build(networks: tuple[Any, ...] = LOOPBACK) -> Client:
            credentials: dict[str, Credentials] = {}
            network = Network(rules=AddressRules(networks), certificates=_CERTIFICATES)
            links = ServerLinks(network, unseal=lambda each: credentials.get(each.name, Credentials()))
            client = Client(links, credentials)
            stack.push_async_callback(links.aclose)
            stack.callback(client.close)
            return client

        yield build


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    """A client that may connect to this machine."""
    return connect()


@pytest.fixture
def at(sandbox: McpSandbox) -> Callable[..., McpServer]:
    """Returns the server under one of its paths."""

    def path(path: str = "/mcp", **fields: Any) -> McpServer:
        return server(url=sandbox.url(path), **fields)

    return path
