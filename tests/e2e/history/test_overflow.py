"""A history that does not fit the model is trimmed in a few attempts, and the trimmed history is retained."""

from collections.abc import Callable

import pytest
from godoty.v1 import turn_pb2 as turn_pb

from tests.conftest import Start
from tests.e2e.turns.streams import insert_messages
from tests.support.caller import Caller, Turn
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import Service

SMALL = "openai/gpt-3.5-turbo-0613"  # its context is 4,095 tokens; the sandbox counts 4 bytes a token
LONG = "long words " * 300  # 3,300 bytes
SCRIPTS = {
    "latin": LONG,
    "cyrillic": "слова " * 300,
    "cjk": "長い言葉" * 280,
}  # bytes a character: 1, 2, 3


async def _filled(caller: Caller, session_id: str = "talk", words: str = LONG, *, turns: int) -> None:
    assert (await caller.converse(words, session_id=session_id)).finished
    insert_messages(caller.service, session_id, 2 * (turns - 1), words)


def _answered(turn: Turn) -> int:
    """Return the number of model calls of a successful turn."""
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    return len(turn.calls)


@pytest.mark.parametrize("summary", [False, True])
async def test_overflow_takes_three_calls_and_the_next_turn_one(
    serve: Start, connect: Callable[[Service], Caller], *, summary: bool
) -> None:
    """Turns after the one that overflowed begin with the trimmed history, also on another server."""
    service = await serve(history_summary=summary)
    other = await serve(database=service.database.name, history_summary=summary)
    caller, second_caller = connect(service), connect(service.at(other.target))
    for script, words in SCRIPTS.items():
        await _filled(caller, script, words, turns=12)
        first = await caller.converse("and now?", session_id=script, model=SMALL)
        second = await second_caller.converse("and then?", session_id=script)
        third = await caller.converse("and after that?", session_id=script)

        assert _answered(first) <= 3, script
        assert (_answered(second), _answered(third)) == (1, 1), script
        sent = caller.service.requests(script)[-1]["messages"]
        assert_valid_request(sent)
        assert "and now?" in str(sent)
        messages = await caller.messages(script)
        assert_valid_history(messages)
        assert len(messages) == 30  # the conversation itself is complete


async def test_few_model_calls_are_enough_after_an_overflow(caller: Caller) -> None:
    """A turn with five model calls answers although its history did not fit."""
    await _filled(caller, turns=16)
    turn = await caller.converse("and now?", model=SMALL, limits=turn_pb.TurnLimits(max_model_calls=5))

    assert _answered(turn) <= 3


async def test_too_long_message_is_refused_and_does_not_block_next_turn(caller: Caller) -> None:
    """A single message that cannot fit is CONTEXT_WINDOW_EXCEEDED; the next turn is answered."""
    await caller.converse("hello", model=SMALL)
    refused = await caller.converse("word " * 8_000)
    turn = await caller.converse("and now?")

    assert refused.failure is not None
    assert refused.failure.reason == "CONTEXT_WINDOW_EXCEEDED"
    assert _answered(turn) <= 3
    assert _answered(await caller.converse("and then?")) == 1
