"""Why an answer ended, in the words of several gateways, and what each means for the turn."""

import json
from decimal import Decimal

import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.metering.call import CostSource
from godoty_service.openrouter import finish
from tests.answers.conftest import Ask
from tests.answers.gateway import SAID, USAGE, calling, case, chunk, piece, response, stream

LENGTH = ["length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "model_context_window_exceeded"]
LENGTH += ["token_limit", "ERROR_LIMIT", "FinishReason.MAX_TOKENS", "max-tokens"]
FILTER = ["content_filter", "SAFETY", "safety", "recitation", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII"]
FILTER += ["refusal", "sensitive", "content-filter", "ERROR_TOXIC", "IMAGE_SAFETY", "guardrail_intervened"]
ERROR = ["error", "ERROR", "network_error", "server_error", "MALFORMED_FUNCTION_CALL", "insufficient_system_resource"]
ERROR += ["abort", "cancelled", "timeout", "UNEXPECTED_TOOL_CALL"]
END = ["stop", "STOP", "end_turn", "eos", "stop_sequence", "COMPLETE", "FINISH_REASON_UNSPECIFIED", "odd", None]


@pytest.mark.parametrize(
    ("reasons", "stop"), [(LENGTH, "max_tokens"), (FILTER, "content_filtered"), (END, "end_turn")], ids=str
)
def test_reasons_of_other_gateways_are_known(reasons: list[str | None], stop: str) -> None:
    """Each is one of ours; none of them is an error."""
    found = {each: finish.stop_reason(each, calls=False, refused=False) for each in reasons}

    assert found == dict.fromkeys(reasons, stop)
    assert [each for each in reasons if each and finish.failure(each)] == []


def test_reasons_that_are_errors_are_known() -> None:
    """They say that the provider failed."""
    assert [each for each in ERROR if finish.failure(each) is None] == []


def test_calls_are_made_only_where_there_are_some() -> None:
    """A reason that speaks of calls without any ends the turn; calls under another reason are made."""
    assert finish.stop_reason("tool_calls", calls=False, refused=False) == "end_turn"
    assert finish.stop_reason("stop", calls=True, refused=False) == "tool_use"


@pytest.mark.parametrize("name", ["17_", "17b"])
async def test_a_reason_that_is_an_error_fails_the_turn_and_runs_no_tool(ask: Ask, name: str) -> None:
    """What came with it is paid, and the turn is not asked for again: some of the answer was shown."""
    asked = await ask(case(name), SAID)

    assert asked.turn.failure is not None
    assert asked.turn.failure.reason == "PROVIDER_UNAVAILABLE"
    assert "tool_call_started" not in asked.turn.kinds
    (entry,) = asked.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert (entry.error, entry.finish_reason) == ("provider_unavailable", "error")


async def test_an_error_without_output_is_asked_for_again(ask: Ask) -> None:
    """Nothing was shown: the next attempt answers."""
    asked = await ask(stream(chunk({}, "network_error", usage=USAGE)), SAID)

    assert asked.turn.text == "Done."
    assert [each.error for each in asked.entries] == ["provider_unavailable", None]


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
async def test_a_refusal_is_shown_and_ends_as_filtered(ask: Ask, reply: bytes) -> None:
    """The caller sees the model's words, and that the turn was filtered; the session goes on."""
    asked = await ask(reply, SAID)

    assert asked.turn.text == "I can't help with that."
    assert asked.turn.finished.stop_reason == pb.STOP_REASON_CONTENT_FILTERED
    (entry,) = asked.entries
    assert entry.cost == Decimal("0.00012")
    assert (await asked.caller.converse("and now?")).text == "Done."


async def test_max_tokens_of_another_gateway_is_the_bound(ask: Ask) -> None:
    """The turn says that the bound was reached."""
    asked = await ask(stream(chunk({"content": "Once upon"}), chunk({}, "MAX_TOKENS", usage=USAGE)))

    assert asked.turn.finished.stop_reason == pb.STOP_REASON_MAX_OUTPUT_TOKENS


async def test_a_message_that_repeats_the_stream_is_not_shown_twice(ask: Ask) -> None:
    """Some gateways send the whole message with the last chunk; a call in it is one that is known."""
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
    asked = await ask(stream(first, last), SAID)

    assert asked.turn.text == "HelloDone."
    assert [each[0] for each in asked.calls] == ["a"]


async def test_a_reason_without_calls_asks_for_nothing_more(ask: Ask) -> None:
    """Speaking of tool calls without any is the end of the answer."""
    asked = await ask(stream(chunk({"content": "Hello"}), chunk({}, "tool_calls", usage=USAGE)))

    assert asked.turn.text == "Hello"
    assert len(asked.gateway.requests) == 1


async def test_tool_calls_under_the_reason_stop_are_made(ask: Ask) -> None:
    """Some gateways say so."""
    call = piece('{"expression": "1+1"}', name="calculator", index=0, id="a")
    asked = await ask(calling([call], finish="stop"), SAID)

    assert asked.results == {"a": "2"}
