"""Finish reasons in the words of several gateways, and the effect of each on the turn."""

import json
from decimal import Decimal

import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.entries import CostSource
from godoty_service.openrouter.decoding.chunk import finish_error, stop_reason
from tests.e2e.answers.conftest import RunTurn
from tests.e2e.answers.gateway import ANSWER, USAGE, case, chunk, piece, response, stream, tool_call_stream

LENGTH = ["length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "model_context_window_exceeded"]
LENGTH += ["token_limit", "ERROR_LIMIT", "FinishReason.MAX_TOKENS", "max-tokens"]
FILTER = ["content_filter", "SAFETY", "safety", "recitation", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII"]
FILTER += ["refusal", "sensitive", "content-filter", "ERROR_TOXIC", "IMAGE_SAFETY", "guardrail_intervened"]
ERROR = ["error", "ERROR", "network_error", "server_error", "MALFORMED_FUNCTION_CALL", "insufficient_system_resource"]
ERROR += ["abort", "cancelled", "timeout", "UNEXPECTED_TOOL_CALL"]
END = ["stop", "STOP", "end_turn", "eos", "stop_sequence", "COMPLETE", "FINISH_REASON_UNSPECIFIED", "unknown", None]


@pytest.mark.parametrize(
    ("reasons", "stop"), [(LENGTH, "max_tokens"), (FILTER, "content_filtered"), (END, "end_turn")], ids=str
)
def test_finish_reason_of_other_gateway_maps_to_stop_reason(reasons: list[str | None], stop: str) -> None:
    """Each has a stop reason; none of them is an error."""
    found = {each: stop_reason(each, calls=False, refused=False) for each in reasons}

    assert found == dict.fromkeys(reasons, stop)
    assert [each for each in reasons if each and finish_error(each)] == []


def test_error_finish_reason_is_provider_failure() -> None:
    """Each has an error."""
    assert [each for each in ERROR if finish_error(each) is None] == []


def test_stop_reason_is_tool_use_only_with_tool_calls() -> None:
    """A reason that announces calls without any ends the turn; calls under another reason are made."""
    assert stop_reason("tool_calls", calls=False, refused=False) == "end_turn"
    assert stop_reason("stop", calls=True, refused=False) == "tool_use"


@pytest.mark.parametrize("name", ["17_", "17b"])
async def test_error_finish_reason_after_output_fails_turn_and_runs_no_tool(run_turn: RunTurn, name: str) -> None:
    """The partial answer is paid, and the request is not retried: some of the answer was shown."""
    outcome = await run_turn(case(name), ANSWER)

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.reason == "PROVIDER_UNAVAILABLE"
    assert "tool_call_started" not in outcome.turn.kinds
    (entry,) = outcome.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert (entry.error, entry.finish_reason) == ("provider_unavailable", "error")


async def test_error_finish_reason_without_output_is_retried(run_turn: RunTurn) -> None:
    """Nothing was shown: the next attempt answers."""
    outcome = await run_turn(stream(chunk({}, "network_error", usage=USAGE)), ANSWER)

    assert outcome.turn.text == "Done."
    assert [each.error for each in outcome.entries] == ["provider_unavailable", None]


@pytest.mark.parametrize(
    "reply",
    [
        case("16"),
        stream(chunk({"refusal": "I can't "}), chunk({"refusal": "help with that."}), chunk({}, "stop", usage=USAGE)),
        response(
            json.dumps(
                chunk(usage=USAGE)
                | {"choices": [{"message": {"refusal": "I can't help with that."}, "finish_reason": "stop"}]}
            ).encode(),
            "application/json",
        ),
        stream(
            chunk({"content": [{"type": "refusal", "refusal": "I can't help with that."}]}),
            chunk({}, "stop", usage=USAGE),
        ),
        stream(chunk({"content": "I can't help with that."}), chunk({}, "SAFETY", usage=USAGE)),
    ],
    ids=["case", "in pieces", "whole", "in parts", "by reason"],
)
async def test_refusal_is_shown_and_turn_is_filtered(run_turn: RunTurn, reply: bytes) -> None:
    """The caller sees the model's words, and that the turn was filtered; the session continues."""
    outcome = await run_turn(reply, ANSWER)

    assert outcome.turn.text == "I can't help with that."
    assert outcome.turn.finished.stop_reason == turn_pb.STOP_REASON_CONTENT_FILTERED
    (entry,) = outcome.entries
    assert entry.cost == Decimal("0.00012")
    assert (await outcome.caller.converse("and now?")).text == "Done."


async def test_max_tokens_of_other_gateway_ends_turn_at_token_limit(run_turn: RunTurn) -> None:
    """The turn states that the limit was reached."""
    outcome = await run_turn(stream(chunk({"content": "Once upon"}), chunk({}, "MAX_TOKENS", usage=USAGE)))

    assert outcome.turn.finished.stop_reason == turn_pb.STOP_REASON_MAX_OUTPUT_TOKENS


async def test_message_that_repeats_stream_is_not_shown_twice(run_turn: RunTurn) -> None:
    """Some gateways send the whole message with the last chunk; its tool calls are known already."""
    last = chunk(usage=USAGE) | {
        "choices": [
            {
                "message": {
                    "content": "Hello",
                    "tool_calls": [piece('{"expression": "1+1"}', name="calculator", id="a")],
                },
                "finish_reason": "tool_calls",
            }
        ]
    }
    call = piece('{"expression": "1+1"}', name="calculator", index=0, id="a")
    first = chunk({"content": "Hello", "tool_calls": [call]})
    outcome = await run_turn(stream(first, last), ANSWER)

    assert outcome.turn.text == "HelloDone."
    assert [each[0] for each in outcome.calls] == ["a"]


async def test_tool_calls_reason_without_calls_ends_turn(run_turn: RunTurn) -> None:
    """No further request is made."""
    outcome = await run_turn(stream(chunk({"content": "Hello"}), chunk({}, "tool_calls", usage=USAGE)))

    assert outcome.turn.text == "Hello"
    assert len(outcome.gateway.requests) == 1


async def test_tool_calls_with_reason_stop_are_made(run_turn: RunTurn) -> None:
    """Some gateways send this reason."""
    call = piece('{"expression": "1+1"}', name="calculator", index=0, id="a")
    outcome = await run_turn(tool_call_stream([call], finish="stop"), ANSWER)

    assert outcome.results == {"a": "2"}
