"""Tenants with MCP servers on this machine, and such a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest
from godoty.v1 import agent_definition_service_pb2 as pb
from godoty.v1 import agent_definition_service_pb2_grpc as stubs
from godoty.v1 import mcp_server_pb2 as mcp_pb

from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mcp.server import McpSandbox
from tests.conftest import ENCRYPTION_KEY
from tests.support.backends import Backends
from tests.support.caller import Caller, Turn
from tests.support.service import Service

SETTINGS: dict[str, Any] = {"mcp_networks": "127.0.0.0/8", "encryption_keys": ENCRYPTION_KEY}
PREFIX = "crm"
_READY: pytest.StashKey[set[str]] = pytest.StashKey()  # the servers that have imported the client


@dataclass
class Mcp:
    """An MCP server in the thread of the backends.

    Attributes:
        backends: The backends.
        sandbox: The server: call it by `ask` and `run`.
    """

    backends: Backends
    sandbox: McpSandbox = field(default_factory=McpSandbox)

    def url(self, path: str = "/mcp") -> str:
        """Return the URL of one of its endpoints."""
        return self.sandbox.url(path)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine function of it."""

        async def run() -> Any:
            return await work()

        return self.backends.run(run())

    async def later(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine function of it without blocking the test's loop."""
        return await asyncio.to_thread(self.run, work)

    def ask(self, question: Callable[[McpSandbox], Any]) -> Any:
        """Return what a function of it returns."""
        return self.backends.ask(lambda: question(self.sandbox))

    def calls(self, name: str) -> int:
        """Return the number of calls of a tool."""
        return int(self.ask(lambda sandbox: sandbox.state.calls[name]))

    def cancelled(self, name: str) -> int:
        """Return the number of cancelled calls of a tool."""
        return int(self.ask(lambda sandbox: sandbox.state.cancelled[name]))

    def release(self, hold: str) -> None:
        """Let the tools go on that wait for a hold."""
        self.ask(lambda sandbox: sandbox.state.release(hold))


@pytest.fixture
def mcp(backends: Backends) -> Iterator[Mcp]:
    """An MCP server; servers of this process have the client at once, which others import when it is first needed."""
    import_module("godoty_service.agents.mcp.client")
    made = Mcp(backends)
    made.run(made.sandbox.start)
    yield made
    made.run(made.sandbox.stop)


@dataclass(frozen=True)
class Tenant:
    """A tenant with agents that use MCP servers.

    Attributes:
        caller: Runs its turns.
        stub: AgentDefinitionService.
        key: A key of the scope agents.
    """

    caller: Caller
    stub: Any
    key: str

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method of AgentDefinitionService."""
        requests = pb if hasattr(pb, f"{method}Request") else mcp_pb
        request = getattr(requests, f"{method}Request")(**fields)
        metadata = (("authorization", f"Bearer {self.key}"),)
        return await getattr(self.stub, method)(request, metadata=metadata, timeout=90.0)

    async def serve(self, url: str, *, name: str = PREFIX, **fields: Any) -> mcp_pb.McpServer:
        """Apply an MCP server."""
        applied: mcp_pb.ApplyMcpServerResponse = await self.call(
            "ApplyMcpServer", server={"name": name, "url": url, **fields}
        )
        return applied.server

    async def agent(self, *servers: str, name: str = "support", **fields: Any) -> None:
        """Apply an agent with the calculator and the tools of servers."""
        tools = [{"builtin": "calculator"}, *({"mcp": {"mcp_server": each}} for each in servers)]
        definition = {"name": name, "system_prompt": "Be brief.", "tools": tools} | fields
        await self.call("ApplyAgent", definition=definition)

    async def use(self, tool: str, arguments: str = "{}", *, session_id: str = "talk", **fields: Any) -> Turn:
        """Run a turn in which the model calls a tool once."""
        text = f"@sandbox tool-loop calls=2 tool={PREFIX}_{tool} input='{arguments}'"
        return await self.caller.converse(text, session_id=session_id, agent="support", **fields)

    def prompts(self, session_id: str = "talk") -> list[str]:
        """Return the system prompts of the session's requests to the provider."""
        return [str(each["messages"][0]["content"]) for each in self.caller.service.requests(session_id)]

    def offered(self, session_id: str = "talk") -> list[dict[str, Any]]:
        """Return the tools that the last request offered."""
        tools: list[dict[str, Any]] = self.caller.service.requests(session_id)[-1]["tools"]
        return tools


Become = Callable[[Service], Tenant]


@pytest.fixture
def become(connect: Callable[[Service], Caller], issue: Callable[..., str]) -> Become:
    """Returns a tenant with a key of the scope agents."""

    def for_service(service: Service) -> Tenant:
        caller = connect(service)
        stub = stubs.AgentDefinitionServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
        return Tenant(caller, stub, issue(service, scopes=frozenset({Scope.AGENTS})))

    return for_service


@pytest.fixture
async def tenant(request: pytest.FixtureRequest, service: Service, become: Become) -> Tenant:
    """A tenant of the shared server, which lets MCP servers be on this machine."""
    ready = request.session.stash.setdefault(_READY, set())
    if service.target not in ready:  # the import takes long on a busy machine, and a turn waits 5 s for a list of tools
        another = become(service.another_tenant())
        await another.serve("https://127.0.0.1:1/mcp")
        await another.call("CheckMcpServer", mcp_server=PREFIX)
        ready.add(service.target)
    return become(service)


def output(turn: Turn) -> tuple[bool, str]:
    """Return the outcome of a turn's only tool call: whether it succeeded, and what the model sees."""
    (finished,) = [each.tool_call_finished for each in turn.responses if each.HasField("tool_call_finished")]
    return finished.status == 1, finished.output
