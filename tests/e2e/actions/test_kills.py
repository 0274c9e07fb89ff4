"""A server dies within a step with five tools: nothing runs twice, nothing is lost, and the answers still act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from godoty.v1 import action_pb2, turn_pb2

from godoty_service.turns.agents.action_guard import INTERRUPTED
from tests.conftest import Start, StartProcess
from tests.e2e.actions.conftest import ACTION_REQUIRED, APPROVE, END_TURN, REFUND, Asker, Mcp, asked, outputs
from tests.e2e.mcp.conftest import PREFIX, SETTINGS
from tests.support.caller import Turn, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.leases import SHORT_LEASE, SHORT_LEASE_ENVIRONMENT
from tests.support.service import Service, eventually, soon

FREE, ASKS, CLIENT = ("calculator", f"{PREFIX}_echo"), ("current_time", f"{PREFIX}_hang"), "refund"
ARGUMENTS = '{"expression": "6 * 7", "text": "hi", "hold": "step"}'
STEP = f"@sandbox tool-loop calls=2 parallel=5 input='{ARGUMENTS}'"
DONE: dict[str, Any] = {"output": {"output_text": "done"}}
Become = Callable[[Service], Asker]


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


async def answered(asker: Asker, actions: list[action_pb2.Action]) -> Turn:
    """Answer all actions, once the lease of a dead server has expired."""
    results = [(each, DONE if each.name == CLIENT else APPROVE) for each in actions]

    async def attempt() -> Any:
        turn = await asker.answer(*results)
        return None if turn.failure is not None and turn.failure.reason == "SESSION_BUSY" else turn

    turn: Turn = await eventually(attempt)
    return turn


async def assert_sound(asker: Asker, mcp: Mcp, *, model_calls: int) -> None:
    """Check that each tool ran at most once, and that the history is one that strict providers accept."""
    assert mcp.calls("echo") == 1
    assert mcp.calls("hang") <= 1
    assert_valid_history(await asker.caller.messages())
    assert_valid_request(asker.requests()[-1]["messages"])
    assert len(asker.service.entries("talk")) == model_calls


@pytest.fixture
async def servers(serve_process: StartProcess, serve: Start, become: Become, mcp: Mcp) -> Any:
    """A tenant of a server that can be killed, and what returns it at another server."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    asker = become(service)

    async def survivor() -> Asker:
        await process.kill()
        other = await serve(database=service.database.name, **SHORT_LEASE, **SETTINGS)
        restarted = become(service.at(other.target))
        await restarted.check()
        return restarted

    await prepare(asker, mcp)
    return asker, survivor


async def test_kill_after_the_turn_has_asked(servers: Any, mcp: Mcp) -> None:
    """The answers act at another server; the free tools have run once, at once."""
    asker, survivor = servers
    first = await asker.ask(STEP)
    assert first.finished.stop_reason == ACTION_REQUIRED
    assert list(outputs(first)) == list(FREE) or set(outputs(first)) == set(FREE)
    actions = asked(first)
    assert {each.name for each in actions} == {*ASKS, CLIENT}

    other = await survivor()
    mcp.release("step")
    turn = await answered(other, actions)
    assert turn.finished.stop_reason == END_TURN
    assert set(outputs(turn)) == {*ASKS, CLIENT}
    await assert_sound(other, mcp, model_calls=2)


async def test_kill_while_the_asking_turn_runs(servers: Any, mcp: Mcp) -> None:
    """The actions were shown, so they are stored: the session waits for their answers, although the turn has no end."""
    asker, survivor = servers
    stream = asker.caller.start(STEP, agent="support", on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE)
    seen = []
    async for event in stream:
        seen.append(event)
        if len(asked(Turn(tuple(seen)))) == len((*ASKS, CLIENT)):
            break
    other = await survivor()
    mcp.release("step")
    turn = await answered(other, asked(Turn(tuple(seen))))

    assert turn.finished.stop_reason == END_TURN
    assert mcp.calls("echo") <= 1
    assert mcp.calls("hang") == 1
    assert_valid_history(await other.caller.messages())
    assert_valid_request(other.requests()[-1]["messages"])
    assert len(other.service.entries("talk")) == 2


async def test_kill_while_an_approved_tool_runs(servers: Any, mcp: Mcp) -> None:
    """Its outcome is unknown, so it is not run again; what has finished is kept; the same answers go on."""
    asker, survivor = servers
    actions = asked(await asker.ask(STEP))
    results = [(each, DONE if each.name == CLIENT else APPROVE) for each in actions]
    stream = asker.answering(*results, on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE)
    ran: list[Any] = []
    async for event in stream:
        ran.append(event)
        if {"current_time", CLIENT} <= outputs(Turn(tuple(ran))).keys() and mcp.calls("hang"):
            break
    other = await survivor()
    turn = await answered(other, actions)
    mcp.release("step")

    assert turn.finished.stop_reason == END_TURN
    assert outputs(turn) == {f"{PREFIX}_hang": INTERRUPTED} or INTERRUPTED in str(other.requests()[-1]["messages"])
    assert "done" in str(other.requests()[-1]["messages"])
    await assert_sound(other, mcp, model_calls=2)


async def test_idempotent_tool_is_called_again(servers: Any, mcp: Mcp) -> None:
    """With the same id, as its definition permits it: an unknown outcome does no harm."""
    asker, survivor = servers
    await prepare(asker, mcp, idempotent=True)
    actions = asked(await asker.ask(STEP))
    results = [(each, DONE if each.name == CLIENT else APPROVE) for each in actions]
    stream = asker.answering(*results, on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE)
    await soon(lambda: mcp.calls("hang"))
    other = await survivor()
    assert stream
    mcp.release("step")
    turn = await answered(other, actions)

    assert turn.finished.stop_reason == END_TURN
    assert outputs(turn)[f"{PREFIX}_hang"] == "released"
    assert (mcp.calls("hang"), mcp.calls("echo")) == (2, 1)


async def test_new_message_after_a_kill_keeps_what_has_finished(servers: Any, mcp: Mcp) -> None:
    """What was open was not carried out, and what had begun has an unknown outcome."""
    asker, survivor = servers
    actions = asked(await asker.ask(STEP))
    hang = next(each for each in actions if each.name == f"{PREFIX}_hang")
    asker.answering((hang, APPROVE), on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE)
    await soon(lambda: mcp.calls("hang"))
    other = await survivor()
    mcp.release("step")

    async def attempt() -> Any:
        turn = await other.ask("never mind")
        return None if turn.failure is not None and turn.failure.reason == "SESSION_BUSY" else turn

    turn: Turn = await eventually(attempt)
    assert turn.finished.stop_reason == END_TURN
    sent = str(other.requests()[-1]["messages"])
    assert INTERRUPTED in sent, sent
    assert "not carried out" in sent
    assert "42" in sent
    await assert_sound(other, mcp, model_calls=2)


async def test_kill_while_the_model_answers(servers: Any, mcp: Mcp) -> None:
    """The results are in the history; the answers have acted, and cannot act again."""
    asker, survivor = servers
    mcp.release("step")
    actions = asked(await asker.ask(f"{STEP} hold_after=150 hold=mid tokens=200"))
    results = [(each, DONE if each.name == CLIENT else APPROVE) for each in actions]
    stream = asker.answering(*results, on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE)
    async for event in stream:
        if event.HasField("text_delta"):
            break
    stored = {"tenant_id": asker.service.tenant_id}
    await soon(lambda: asker.service.database["messages"].count_documents(stored) == len(("text", "calls", "results")))
    other = await survivor()
    asker.service.backends.allow("mid")
    turn = await answered(other, actions)

    assert turn.failure is not None
    assert turn.failure.reason == "ACTION_CLOSED"
    follow = await other.ask("and now?")
    assert follow.finished.stop_reason == END_TURN
    assert "42" in str(other.requests()[-1]["messages"])
    assert_valid_history(await other.caller.messages())
    assert mcp.calls("hang") == 1
    assert (await read(other.caller.resume(follow.responses[0].turn_id))).finished.stop_reason == END_TURN
