from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import grpc
import pytest
from godoty import FieldViolation, GodotyClient, GodotyError
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from tests.support.media import png

if TYPE_CHECKING:
    from tests.clients.conftest import Service


async def _turn(client: GodotyClient, text: str, session_id: str, user: str = "") -> list[turn_pb.TurnEvent]:
    return [response async for response in client.converse(text, session_id=session_id, user=user)]


def _text(turn: list[turn_pb.TurnEvent]) -> str:
    return "".join(response.text_delta.text for response in turn)


async def test_turn_is_streamed_from_start_to_end(client: GodotyClient, session_id: str) -> None:
    """`turn_started` comes first, the answer in between, `turn_finished` last, under rising sequences."""
    turn = await _turn(client, "@sandbox plain text=hello", session_id)

    assert turn[0].WhichOneof("event") == "turn_started"
    assert turn[0].turn_started.session_created
    assert turn[0].turn_started.session_id == session_id
    assert "hello" in _text(turn)
    assert turn[-1].turn_finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    sequences = [response.sequence for response in turn]
    assert sequences == sorted(set(sequences))


async def test_metrics_equal_the_totals_of_the_last_turn(client: GodotyClient, session_id: str) -> None:
    """The session's metrics equal the session totals of its last turn, to the last decimal."""
    await _turn(client, "one", session_id)
    last = (await _turn(client, "two", session_id))[-1].turn_finished

    metrics = await client.session_metrics(session_id)

    assert metrics.totals == last.session_totals
    assert metrics.totals.turns == 2
    assert Decimal(metrics.totals.cost_usd) > 0


async def test_tool_calls_are_streamed(client: GodotyClient, session_id: str) -> None:
    """Each tool call starts and finishes under one id."""
    turn = await _turn(client, "@sandbox tool-loop calls=4", session_id)

    started = [r.tool_call_started.tool_call_id for r in turn if r.HasField("tool_call_started")]
    finished = [r.tool_call_finished.tool_call_id for r in turn if r.HasField("tool_call_finished")]
    assert len(started) == 3
    assert sorted(started) == sorted(finished)


async def test_sessions_are_paged_to_the_end(client: GodotyClient, session_id: str) -> None:
    """All of an end user's sessions come, the last used first, however small the pages are."""
    ids = [f"{session_id}.{number}" for number in range(3)]
    for each in ids:
        await _turn(client, "hi", each, user=session_id)

    sessions = [session async for session in client.list_sessions(user=session_id, page_size=1)]

    assert [session.session_id for session in sessions] == ids[::-1]


async def test_messages_are_paged_to_the_end(client: GodotyClient, session_id: str) -> None:
    """All messages come, the oldest first, however small the pages are."""
    turn = await _turn(client, "@sandbox plain text=hello", session_id)

    messages = [message async for message in client.list_messages(session_id, page_size=1)]

    assert [message.role for message in messages] == [session_pb.ROLE_USER, session_pb.ROLE_ASSISTANT]
    assert [message.number for message in messages] == [1, 2]
    assert messages[1].content[-1].text == _text(turn)


async def test_deleted_session_is_not_found(client: GodotyClient, session_id: str) -> None:
    """Reading a session after its deletion fails with the reason and the id."""
    await _turn(client, "hi", session_id)
    assert (await client.get_session(session_id)).message_count == 2

    await client.delete_session(session_id)

    with pytest.raises(GodotyError) as caught:
        await client.get_session(session_id)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.reason == "SESSION_NOT_FOUND"
    assert caught.value.metadata["session_id"] == session_id


async def test_wrong_key_is_refused_without_showing_it(service: Service) -> None:
    """The error has its reason; neither it nor the client shows the key."""
    async with GodotyClient(service.target, "gdt_no_such_key") as client:
        with pytest.raises(GodotyError) as caught:
            await client.session_metrics("any")

        assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.reason == "INVALID_API_KEY"
        shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {client!r}"
        assert "no_such_key" not in shown


async def test_refused_fields_are_named(client: GodotyClient) -> None:
    """A bad field comes back as a violation that names it."""
    with pytest.raises(GodotyError) as caught:
        await _turn(client, "hi", "not a session id")

    assert caught.value.reason == "INVALID_FIELD"
    assert [violation.field for violation in caught.value.field_violations] == ["session_id"]
    assert isinstance(caught.value.field_violations[0], FieldViolation)
    assert caught.value.field_violations[0].description


async def test_attachments_are_uploaded_sent_and_read(client: GodotyClient, session_id: str) -> None:
    """By id, or with the message; messages name them."""
    data = png(30, 20, size=400_000)
    uploaded = await client.upload_attachment(data)
    model = "anthropic/claude-haiku-4.5"
    turn = [
        each
        async for each in client.converse(
            "look", session_id=session_id, model=model, attachments=[uploaded.attachment_id, png()]
        )
    ]
    (asked, _) = [each async for each in client.list_messages(session_id)]

    assert turn[-1].HasField("turn_finished")
    assert [each.WhichOneof("block") for each in asked.content] == ["text", "attachment", "attachment"]
    assert b"".join([each.data async for each in client.get_attachment(uploaded.attachment_id)]) == data
    with pytest.raises(GodotyError, match="ATTACHMENT_REJECTED"):
        await client.upload_attachment(b"no image")
