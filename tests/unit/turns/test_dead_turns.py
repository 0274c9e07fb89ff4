"""The messages that a dead turn is missing, by its event log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import decode, encode

from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import Totals
from godoty_service.sessions.history_repair import INTERRUPTED, NOT_RUN, UNKNOWN_OUTCOME
from godoty_service.sessions.messages import StoredMessage
from godoty_service.sessions.session import Lease
from godoty_service.turns.event_log.codec import event_from_document, event_to_document
from godoty_service.turns.event_log.events import (
    Event,
    ModelCallFinished,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnStarted,
)
from godoty_service.turns.recovery import logged_turn, missing_messages_by_turn

NOW = datetime(2026, 8, 22, tzinfo=UTC)
DEAD = Lease(turn_id="dead", replica_id="", text="the words")
WORDS: dict[str, Any] = {"text": "the words"}
USE: dict[str, Any] = {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}
RESULT: dict[str, Any] = {"toolResult": {"toolUseId": "t", "status": "success", "content": [{"text": "42"}]}}
LOST: dict[str, Any] = {
    "toolResult": {
        "toolUseId": "t",
        "status": "error",
        "content": [{"text": UNKNOWN_OUTCOME}],
    }
}
CALL = ModelCallFinished(
    call=ModelCall(
        call_id="call",
        tenant_id="tenant",
        session_uid="ses",
        session_id="talk",
        turn_id="dead",
        number=1,
        state=CallState.PENDING,
        requested_model="a/b",
        provider_key_id="key",
        start_time=NOW,
        agent="assistant",
        owner="server",
    )
)
BEGUN = ToolCallStarted(tool_call_id="t", name="f", input_json="{}")
ENDED = ToolCallFinished(tool_call_id="t", succeeded=True, output="42", duration=timedelta(seconds=1))
SAYS, MORE = TextDelta("I look "), TextDelta("it up.")
ASKED = (SAYS, MORE, CALL, BEGUN)


def stored(*contents: list[dict[str, Any]]) -> list[StoredMessage]:
    """Return messages of the dead turn, alternately the user's and the assistant's."""
    return [
        StoredMessage(
            number=number, role=("assistant", "user")[number % 2], content=content, turn_id="dead", create_time=NOW
        )
        for number, content in enumerate(contents, 1)
    ]


def marked(text: str) -> list[dict[str, Any]]:
    """Return the content of the assistant's last message."""
    return [{"text": f"{text}\n\n{INTERRUPTED}" if text else INTERRUPTED}]


ASKS = [{"text": "I look it up."}, USE]
CASES: dict[str, tuple[tuple[Event, ...], list[StoredMessage], list[list[dict[str, Any]]]]] = {
    "nothing was shown": ((), [], [[WORDS], marked("")]),
    "some text was shown": ((SAYS, MORE), stored([WORDS]), [marked("I look it up.")]),
    "its user's text was not stored either": ((SAYS,), [], [[WORDS], marked("I look ")]),
    "its whole answer was shown": ((SAYS, MORE, CALL), stored([WORDS]), [marked("I look it up.")]),
    "its answer was stored": ((SAYS, MORE, CALL), stored([WORDS], [{"text": "I look it up."}]), []),
    "its log is behind its messages": ((SAYS,), stored([WORDS], ASKS), [[LOST], marked("")]),
    "a tool has ended": ((*ASKED, ENDED), stored([WORDS], ASKS), [[RESULT], marked("")]),
    "a tool runs": (ASKED, stored([WORDS], ASKS), [[LOST], marked("")]),
    "the second answer was shown, the result not stored": (
        (*ASKED, ENDED, TextDelta("It is 42")),
        stored([WORDS], ASKS),
        [[RESULT], marked("It is 42")],
    ),
    "the second answer was shown": (
        (*ASKED, ENDED, TextDelta("It is 42")),
        stored([WORDS], ASKS, [RESULT]),
        [marked("It is 42")],
    ),
    "the first answer had no text": (
        (CALL, BEGUN, ENDED, TextDelta("It is 42")),
        stored([WORDS], [USE], [RESULT]),
        [marked("It is 42")],
    ),
    "its last message was closed by its own server": (
        (SAYS, MORE),
        stored([WORDS], marked("I look it up.")),
        [],
    ),
}


@pytest.mark.parametrize(("events", "there", "missing"), CASES.values(), ids=CASES)
def test_messages_are_completed_from_log(
    events: tuple[Event, ...], there: list[StoredMessage], missing: list[list[dict[str, Any]]]
) -> None:
    """Text that no message has is added once and marked; a finished tool keeps its result."""
    found = missing_messages_by_turn(there, [DEAD], {"dead": logged_turn(events)})

    assert [message["content"] for _, messages in found for message in messages] == missing


START = TurnStarted(session_id="talk", session_created=True, totals=Totals(), stores_starts=True)
SECOND: dict[str, Any] = {"toolUse": {"toolUseId": "u", "name": "g", "input": {}}}
SEEN: dict[str, Any] = {"text": "[Attachment att_1, image/png]", "attachment": {"image": {}}}
PICTURE = ToolCallFinished(tool_call_id="t", succeeded=True, output=SEEN["text"], duration=timedelta(), content=(SEEN,))


def result(tool_call_id: str, text: str) -> dict[str, Any]:
    """Return an error as the result of a tool."""
    return {"toolResult": {"toolUseId": tool_call_id, "status": "error", "content": [{"text": text}]}}


STEPS: dict[str, tuple[tuple[Event, ...], list[dict[str, Any]], list[dict[str, Any]]]] = {
    "one has ended, one has not begun": ((START, BEGUN, ENDED), [USE, SECOND], [RESULT, result("u", NOT_RUN)]),
    "both have not begun": ((START,), [USE, SECOND], [result("t", NOT_RUN), result("u", NOT_RUN)]),
    "one runs": ((START, BEGUN), [USE, SECOND], [result("t", UNKNOWN_OUTCOME), result("u", NOT_RUN)]),
    "one call, whose start is not stored": ((START,), [USE], [LOST]),
    "an earlier build stored no starts": ((BEGUN, ENDED), [USE, SECOND], [RESULT, result("u", UNKNOWN_OUTCOME)]),
    "nothing is logged": ((), [USE, SECOND], [LOST, result("u", UNKNOWN_OUTCOME)]),
    "a second call with the same id runs": ((START, BEGUN, ENDED, BEGUN), [USE], [LOST]),
    "the result has an image": (
        (START, BEGUN, PICTURE),
        [USE],
        [{"toolResult": {"toolUseId": "t", "status": "success", "content": [SEEN]}}],
    ),
}


@pytest.mark.parametrize(("events", "uses", "results"), STEPS.values(), ids=STEPS)
def test_results_say_what_is_known_of_each_call(
    events: tuple[Event, ...], uses: list[dict[str, Any]], results: list[dict[str, Any]]
) -> None:
    """By the log of the turn, as another server reads it."""
    read = [event_from_document(decode(encode({"event": event_to_document(each)}))["event"]) for each in events]
    found = missing_messages_by_turn(stored([WORDS], uses), [DEAD], {"dead": logged_turn(read)})

    assert [message["content"] for _, messages in found for message in messages] == [results, marked("")]
