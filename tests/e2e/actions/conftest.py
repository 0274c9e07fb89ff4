"""Tenants whose agents have tools that ask, and whose servers may call tools on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from godoty.v1 import action_pb2, turn_pb2
from godoty.v1 import agent_definition_service_pb2 as definitions_pb
from godoty.v1 import agent_definition_service_pb2_grpc as definitions
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import mcp_server_pb2 as mcp_pb

from godoty_service.tenancy.auth import Scope
from tests.conftest import Start, StartProcess
from tests.e2e.mcp.conftest import PREFIX, SETTINGS, Mcp, mcp
from tests.support.caller import Caller, EventStream, Failure, Turn, failure_of, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.leases import LONG_LEASE, LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.service import Service, eventually

ACTION_REQUIRED, END_TURN = turn_pb2.STOP_REASON_ACTION_REQUIRED, turn_pb2.STOP_REASON_END_TURN
ALWAYS: dict[str, Any] = {"approval": {}}
APPROVE: dict[str, Any] = {"approve": {}}
REFUND = {"tool_name": "refund", "description": "Refunds.", "input_schema": '{"type": "object"}'}
# A step with two free tools, two that need approval, and one of the caller's.
FREE, ASKS, CLIENT = ("calculator", f"{PREFIX}_echo"), ("current_time", f"{PREFIX}_hang"), "refund"
STEP_INPUT = '{"expression": "6 * 7", "text": "hi", "hold": "step"}'
STEP = f"@sandbox tool-loop calls=2 parallel=5 input='{STEP_INPUT}'"
DONE: dict[str, Any] = {"output": {"output_text": "done"}}
__all__ = ["Mcp", "mcp"]


def calls(*tools: str, times: int = 2, arguments: str = "{}") -> str:
    """Return a text by which the model calls a tool in all of its answers but the last."""
    tool = f" tool={tools[0]}" if tools else ""
    return f"@sandbox tool-loop calls={times}{tool} input='{arguments}'"


def asked(turn: Turn) -> list[action_pb2.Action]:
    """Return the actions that a turn asked for."""
    return [each.action_required for each in turn.responses if each.HasField("action_required")]


def outputs(turn: Turn, path: str = "") -> dict[str, str]:
    """Return the outputs of the tools that a turn has run, by name."""
    own = [each for each in turn.responses if each.agent_path == path]
    names = {
        each.tool_call_started.tool_call_id: each.tool_call_started.name
        for each in own
        if each.HasField("tool_call_started")
    }
    finished = [each.tool_call_finished for each in own if each.HasField("tool_call_finished")]
    return {names[each.tool_call_id]: each.output for each in finished}


@dataclass(frozen=True)
class Asker:
    """A tenant with agents whose tools ask.

    Attributes:
        caller: Runs its turns, with a key of the scope converse.
        issue: Creates further keys.
    """

    caller: Caller
    issue: Callable[..., str]

    @property
    def service(self) -> Service:
        """The server and the tenant."""
        return self.caller.service

    def at(self, caller: Caller) -> Asker:
        """Return the same tenant at another server."""
        return Asker(caller, self.issue)

    async def define(self, method: str, request: Any) -> Any:
        """Call AgentDefinitionService."""
        stub = definitions.AgentDefinitionServiceStub(self.caller.channel)  # type: ignore[no-untyped-call] # generated
        key = self.issue(self.service, scopes=frozenset({Scope.AGENTS}))
        return await getattr(stub, method)(request, metadata=(("authorization", f"Bearer {key}"),), timeout=90.0)

    async def agent(self, *tools: Any, name: str = "support", **fields: Any) -> None:
        """Apply an agent with tools."""
        listed = [{"builtin": each} if isinstance(each, str) else each for each in tools]
        definition = {"name": name, "system_prompt": "Be brief.", "tools": listed, **fields}
        await self.define("ApplyAgent", definitions_pb.ApplyAgentRequest(definition=definition))

    async def serve(self, mcp: Mcp) -> None:
        """Apply an MCP server."""
        server = {"name": PREFIX, "url": mcp.url()}
        await self.define("ApplyMcpServer", mcp_pb.ApplyMcpServerRequest(server=server))
        await self.check()

    async def check(self) -> None:
        """List the tools of the MCP server, for which a turn does not wait long on a busy machine."""
        await self.define("CheckMcpServer", mcp_pb.CheckMcpServerRequest(mcp_server=PREFIX))

    async def ask(self, text: str, *, agent: str = "support", **fields: Any) -> Turn:
        """Run a turn of an agent."""
        return await self.caller.converse(text, agent=agent, **fields)

    def answering(self, *results: Any, session_id: str = "talk", key: str = "", **fields: Any) -> EventStream:
        """Start a turn that goes on with answers, each of an action and the fields of its result."""
        given = [{"action_id": action.action_id, **result} for action, result in results]
        request = pb.ConverseRequest(session_id=session_id, action_results=given, **fields)
        metadata = (("authorization", f"Bearer {key or self.service.api_key}"),)
        return EventStream(self.caller.stub.Converse(request, metadata=metadata, timeout=90.0))

    async def answer(self, *results: Any, **fields: Any) -> Turn:
        """Run a turn that goes on with answers."""
        return await read(self.answering(*results, **fields))

    async def decide(
        self, action: action_pb2.Action, result: dict[str, Any], *, user: str = "", key: str = ""
    ) -> action_pb2.Action:
        """Answer an action without a conversation."""
        answer = {"action_id": action.action_id, **result}
        request = pb.DecideActionRequest(action_result=answer, user=user)
        metadata = (("authorization", f"Bearer {key or self.service.api_key}"),)
        found: pb.DecideActionResponse = await self.caller.stub.DecideAction(request, metadata=metadata, timeout=90.0)
        return found.action

    async def refused(self, action: action_pb2.Action, result: dict[str, Any], **fields: Any) -> Failure:
        """Answer an action without a conversation; return the error."""
        return await failure_of(self.decide(action, result, **fields))

    async def actions(self, *, key: str = "", **query: Any) -> list[action_pb2.Action]:
        """List actions."""
        metadata = (("authorization", f"Bearer {key or self.service.api_key}"),)
        request = pb.ListActionsRequest(**query)
        found: pb.ListActionsResponse = await self.caller.stub.ListActions(request, metadata=metadata, timeout=90.0)
        return list(found.actions)

    def requests(self) -> list[dict[str, Any]]:
        """Return the session's requests to the provider."""
        return self.service.requests("talk")


@pytest.fixture
def become(connect: Callable[[Service], Caller], issue: Callable[..., str]) -> Callable[[Service], Asker]:
    """Returns a tenant of a server."""
    return lambda service: Asker(connect(service), issue)


@pytest.fixture
def asker(caller: Caller, issue: Callable[..., str]) -> Asker:
    """A tenant of the shared server."""
    return Asker(caller, issue)


@pytest.fixture
async def local(serve: Start, become: Callable[[Service], Asker]) -> Asker:
    """A tenant of a server that lets MCP servers be on this machine."""
    return become(await serve(**SETTINGS))


async def prepare(asker: Asker, mcp: Mcp, *, idempotent: bool = False) -> None:
    """Apply an agent with two free tools, two that need approval, and one of the caller's."""
    await asker.serve(mcp)
    await asker.agent(
        "calculator",
        {"builtin": "current_time", "approval": {}},
        {"mcp": {"mcp_server": PREFIX, "allow": ["echo"]}},
        {"mcp": {"mcp_server": PREFIX, "allow": ["hang"]}, "approval": {}, "idempotent": idempotent},
        {"client": REFUND},
    )


async def not_busy(attempt: Callable[[], Awaitable[Turn]]) -> Turn:
    """Run a turn, again until the lease of a dead server has expired."""

    async def run() -> Any:
        turn = await attempt()
        return None if turn.failure is not None and turn.failure.reason == "SESSION_BUSY" else turn

    turn: Turn = await eventually(run)
    return turn


async def answered(asker: Asker, actions: list[action_pb2.Action]) -> Turn:
    """Answer all actions of the step with five tools, once the lease of a dead server has expired."""
    results = [(each, DONE if each.name == CLIENT else APPROVE) for each in actions]
    turn = await not_busy(lambda: asker.answer(*results))
    assert turn.failure is None, (turn.failure, stored(asker))
    return turn


def stored(asker: Asker) -> list[Any]:
    """Return what is stored of the steps of the tenant, for the message of a failed assertion."""
    query, database = {"tenant_id": asker.service.tenant_id}, asker.service.database
    fields = {"messages": ("number", "turn_id", "role"), "steps": ("_id", "message", "turn_ids", "closed")}
    fields["actions"] = ("_id", "step_id", "turn_id", "name", "state", "started", "next_turn_id")
    return [
        {"in": name, **{one: each.get(one) for one in of}}
        for name, of in fields.items()
        for each in database[name].find(query)
    ]


async def assert_sound(asker: Asker, mcp: Mcp, *, model_calls: int) -> None:
    """Check that each tool ran at most once, and that the history is one that strict providers accept."""
    assert mcp.calls("echo") == 1
    assert mcp.calls("hang") <= 1
    assert_valid_history(await asker.caller.messages())
    assert_valid_request(asker.requests()[-1]["messages"])
    assert len(asker.service.entries("talk")) == model_calls


@pytest.fixture
async def servers(
    serve_process: StartProcess, serve: Start, become: Callable[[Service], Asker], mcp: Mcp
) -> tuple[Asker, Callable[[], Awaitable[Asker]]]:
    """A tenant of a server that can be killed, and what kills it and returns the tenant at another server."""
    process, service = await serve_process(**LONG_LEASE_ENVIRONMENT)
    asker = become(service)

    async def survivor() -> Asker:
        await process.kill()
        end_leases(service.database, process.replica_id)
        other = await serve(database=service.database.name, lease=LONG_LEASE, **SETTINGS)
        restarted = become(service.at(other.target))
        await restarted.check()
        return restarted

    await prepare(asker, mcp)
    return asker, survivor


async def goes_on(asker: Asker, action_id: str) -> str:
    """Wait until a turn has taken the answer to an action, and has ended; return its id."""

    async def ended() -> str:
        (found,) = [each for each in await asker.actions() if each.action_id == action_id]
        if not found.next_turn_id:
            return ""
        turn = await asker.caller.call("GetTurn", pb.GetTurnRequest(turn_id=found.next_turn_id))
        return str(found.next_turn_id) if turn.turn.stop_reason == END_TURN else ""

    return await eventually(ended)
