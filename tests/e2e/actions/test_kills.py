"""A server dies within a step with five tools: nothing runs twice, nothing is lost, and the answers still act."""

from __future__ import annotations

from typing import Any

from godoty.v1 import turn_pb2

from godoty_service.sessions.history_repair import UNKNOWN_OUTCOME
from tests.e2e.actions.conftest import (
    ACTION_REQUIRED,
    APPROVE,
    ASKS,
    CLIENT,
    DONE,
    END_TURN,
    FREE,
    STEP,
    Mcp,
    answered,
    asked,
    assert_sound,
    not_busy,
    outputs,
    prepare,
)
from tests.e2e.mcp.conftest import PREFIX
from tests.support.caller import Turn, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import soon


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
    ended = await read(other.caller.resume(seen[0].turn_id))
    assert ended.finished.stop_reason == ACTION_REQUIRED
    assert {each.action_id for each in ended.finished.actions} == {each.action_id for each in asked(Turn(tuple(seen)))}
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
        if {"current_time", CLIENT} <= outputs(Turn(tuple(ran))).keys():
            break
    await soon(lambda: mcp.calls("hang"))
    other = await survivor()
    turn = await answered(other, actions)
    mcp.release("step")

    assert turn.finished.stop_reason == END_TURN
    assert outputs(turn) == {f"{PREFIX}_hang": UNKNOWN_OUTCOME} or UNKNOWN_OUTCOME in str(
        other.requests()[-1]["messages"]
    )
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
    stream = asker.answering((hang, APPROVE), on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE)
    await soon(lambda: mcp.calls("hang"))
    other = await survivor()
    assert stream
    mcp.release("step")

    turn = await not_busy(lambda: other.ask("never mind"))
    assert turn.finished.stop_reason == END_TURN
    sent = str(other.requests()[-1]["messages"])
    assert UNKNOWN_OUTCOME in sent, sent
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
    of_tenant = {"tenant_id": asker.service.tenant_id}
    await soon(
        lambda: asker.service.database["messages"].count_documents(of_tenant) == len(("text", "calls", "results"))
    )
    other = await survivor()
    asker.service.backends.allow("mid")
    results = [(each, DONE if each.name == CLIENT else APPROVE) for each in actions]
    turn = await not_busy(lambda: other.answer(*results))

    assert turn.failure is not None
    assert turn.failure.reason == "ACTION_CLOSED"
    follow = await other.ask("and now?")
    assert follow.finished.stop_reason == END_TURN
    assert "42" in str(other.requests()[-1]["messages"])
    assert_valid_history(await other.caller.messages())
    assert mcp.calls("hang") == 1
    assert (await read(other.caller.resume(follow.responses[0].turn_id))).finished.stop_reason == END_TURN
