"""Messages that a moderation flagged are shown to people, and are not sent to a model again."""

import grpc

from tests.support.caller import Caller
from tests.support.history import assert_valid_history, assert_valid_request

FLAGGED = 'forbidden words @sandbox error-before status=403 message="Your input was flagged"'


async def test_flagged_text_is_not_sent_again(caller: Caller) -> None:
    """The turn is refused as an invalid request; later turns send a note in place of the flagged text."""
    await caller.converse("hello")
    refused = await caller.converse(FLAGGED)
    turn = await caller.converse("and now?")

    assert refused.failure is not None
    assert (refused.failure.code, refused.failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "PROVIDER_REJECTED_REQUEST",
    )
    assert turn.finished
    sent = caller.service.requests("talk")[-1]["messages"]
    assert "forbidden" not in str(sent)
    assert "hello" in str(sent)
    assert_valid_request(sent)
    shown = await caller.messages()
    assert_valid_history(shown)
    assert shown[2].content[0].text == FLAGGED


async def test_flagged_turn_retains_tool_use_pairs(caller: Caller) -> None:
    """A loop that is flagged at its second call retains its tool uses and results as pairs, without their text."""
    await caller.converse(
        'forbidden @sandbox tool-loop calls=3 tool=calculator at=2 status=403 message="Your input was flagged"'
    )
    turn = await caller.converse("and now?")

    assert turn.finished
    sent = caller.service.requests("talk")[-1]["messages"]
    assert_valid_request(sent)
    assert "forbidden" not in str(sent)
    assert any(each["role"] == "tool" for each in sent)
