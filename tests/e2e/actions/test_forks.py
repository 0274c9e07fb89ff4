"""Forks of sessions with tool loops, attachments, approvals and the caller's tools, at every message."""

from __future__ import annotations

from typing import Any

import grpc
from godoty.v1 import action_pb2, session_pb2

from tests.e2e.actions.conftest import ACTION_REQUIRED, APPROVE, DONE, END_TURN, REFUND, Asker, asked
from tests.e2e.attachments.conftest import VISION
from tests.e2e.forks.conftest import FORKED, Forker
from tests.support.caller import failure_of
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.media import png

CALCULATE = '@sandbox tool-loop calls=3 tool=calculator input=\'{"expression": "6 * 7"}\''
MIXED = '@sandbox tool-loop calls=2 parallel=3 input=\'{"expression": "6 * 7"}\''


async def talk(asker: Asker, forker: Forker) -> list[list[dict[str, Any]]]:
    """Hold a conversation that ends with open actions; return what the provider got first in each of its turns."""
    await asker.agent("calculator", {"builtin": "current_time", "approval": {}}, {"client": REFUND})
    firsts: list[list[dict[str, Any]]] = []

    async def run(text: str, *attachments: bytes) -> Any:
        before = len(asker.requests())
        turn = await forker.converse(text, *attachments, agent="support")
        firsts.append(asker.requests()[before]["messages"])
        return turn

    assert (await run("What is this?", png())).finished.stop_reason == END_TURN
    assert (await run(CALCULATE)).finished.stop_reason == END_TURN
    actions = asked(await run(MIXED, png(20, 20)))
    answers = [(each, DONE if each.name == "refund" else APPROVE) for each in actions]
    part = await asker.answer(answers[0])
    assert part.finished.stop_reason == ACTION_REQUIRED
    assert (await asker.answer(*answers[1:])).finished.stop_reason == END_TURN
    assert (await run("hello")).finished.stop_reason == END_TURN
    assert (await run(MIXED)).finished.stop_reason == ACTION_REQUIRED
    return firsts


async def test_fork_at_every_message(asker: Asker) -> None:
    """Its next turn sees the history up to there; open actions are closed in it; the origin and its totals stay."""
    forker = Forker(asker.caller)
    firsts = await talk(asker, forker)
    messages, before = await asker.caller.messages(), asker.service.session("talk")
    metrics, open_before = await asker.caller.metrics(), await asker.actions(state=action_pb2.ACTION_STATE_OPEN)
    starts = [each for each in messages if each.role == session_pb2.ROLE_USER and each.content[0].HasField("text")]
    points = []
    for message in messages:
        fork_id = f"fork-{message.number}"
        kinds = {str(block.WhichOneof("block")) for block in message.content}
        last = message.number == len(messages)
        if kinds & {"tool_use", "tool_result"} and not last:
            failure = await failure_of(forker.fork(number=message.number, fork_session_id=fork_id))
            assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FORK_POINT_REFUSED")
            continue
        fork = await forker.fork(number=message.number, fork_session_id=fork_id)
        points.append(message.number)
        assert fork.session.cost_usd == "0"
        if message.role == session_pb2.ROLE_USER:
            turn = [each.number for each in starts].index(message.number)
            carried = [each.attachment_id for each in fork.next_message.attachments]
            assert (await forker.converse(fork.next_message.text, *carried, session_id=fork_id)).responses
            assert asker.service.requests(fork_id)[0]["messages"] == firsts[turn]
        else:
            assert (await forker.converse("another way", session_id=fork_id)).finished.stop_reason == END_TURN
            sent = asker.service.requests(fork_id)[-1]["messages"]
            assert_valid_request(sent)
            later = [index for index, each in enumerate(starts) if each.number == message.number + 1]
            assert not later or sent[:-1] == firsts[later[0]][:-1]
            if last:
                assert [each["content"].startswith("Not carried over") for each in sent if each["role"] == "tool"][
                    -3:
                ] == [
                    False,
                    True,
                    True,
                ]
                copied = await asker.caller.messages(fork_id)
                assert_valid_history(copied)
                assert [each.content[0].text for each in copied if each.content[0].text == FORKED] == [FORKED]
        own = await asker.actions(session_id=fork_id)
        assert [each.session_id for each in own] == [fork_id] * len(own)

    assert len(points) == len(starts) * 2
    assert await asker.caller.messages() == messages
    assert asker.service.session("talk") == before
    assert await asker.caller.metrics() == metrics
    assert await asker.actions(session_id="talk", state=action_pb2.ACTION_STATE_OPEN) == [
        each for each in open_before if each.session_id == "talk"
    ]
    answers = [(each, DONE if each.name == "refund" else APPROVE) for each in open_before]
    assert (await asker.answer(*answers)).finished.stop_reason == END_TURN
    assert VISION in {each.requested_model for each in asker.service.entries("talk")}
