"""Values of the wrong type in any field are skipped, and a cost that arrived is settled."""

import json
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.ledger.entries import CostSource
from godoty_service.openrouter import errors
from tests.e2e.answers.conftest import RunTurn
from tests.e2e.answers.gateway import USAGE, case, chunk, stream

WRONG: list[Any] = [[], [0], {}, {"a": [1]}, 0, -1, 1.5, 1e300, True, None, "", "x", "\ud83d", [[{}]], float("nan")]
WRONG += [float("inf"), 10**30]
DELTA = ("content", "reasoning", "reasoning_content", "reasoning_details", "tool_calls", "refusal", "role")
CHOICE = ("delta", "message", "finish_reason", "index", "logprobs", "native_finish_reason")
CHUNK = ("id", "model", "provider", "choices", "usage", "created", "object")


def wrong_chunks() -> list[dict[str, Any]]:
    """Return one chunk for each field with each wrong value, and some with wrong values inside."""
    found: list[dict[str, Any]] = []
    for value in WRONG:
        found += [chunk({name: value}) for name in DELTA if not isinstance(value, str) or not value.isascii()]
        found += [chunk({}) | {"choices": [{"delta": {}, name: value}]} for name in CHOICE if name != "finish_reason"]
        found += [chunk() | {name: value} for name in CHUNK]
        found += [chunk(usage={name: value}) for name in ("prompt_tokens", "cost", "is_byok") if value != 0]
        found += [chunk({"tool_calls": [{"index": value, "id": value, "function": value}]}) for _ in "a" if not value]
        found += [chunk({"reasoning_details": [{"type": value, "text": value, "index": value}]})]
        detail = {"type": "reasoning.text", "text": value, "index": value, "id": value}
        found += [chunk({"reasoning_details": [detail]})]
        found += [chunk({"content": [{"type": "text", "text": value}, value]})] if value not in ("x", "\ud83d") else []
    return found


@pytest.mark.parametrize("name", ["13", "14_", "14c"])
async def test_case_of_wrong_types_is_answer(run_turn: RunTurn, name: str) -> None:
    """Its readable parts are shown, and its cost is settled."""
    outcome = await run_turn(case(name), case("01_"))

    assert outcome.turn.finished
    (entry,) = outcome.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert (await outcome.caller.converse("and now?")).text == "Hello"


async def test_wrong_values_of_all_fields_are_skipped(run_turn: RunTurn) -> None:
    """The answer between them is complete; the next turn continues with its history."""
    wrong = wrong_chunks()
    bodies = [chunk({"content": "Hello"}, usage=USAGE), *wrong, chunk({}, "stop", usage=USAGE), *wrong]
    outcome = await run_turn(stream(*bodies), case("01_"))

    assert outcome.turn.failure is None
    assert outcome.turn.text.strip("\ufffd") == "Hello"
    (entry,) = outcome.entries
    assert (entry.served_model, entry.provider, entry.generation_id) == ("openai/gpt-4o-mini", "P", "gen-1")
    assert (entry.usage.input_tokens, entry.cost_source) == (10, CostSource.BILLED)
    assert (await outcome.caller.converse("and now?")).text == "Hello"


@pytest.mark.parametrize("code", [1e999, -1, 10**40, [], {}, True, "x", "٤٠٠", 400.5, None, float("nan"), "9" * 5000])
async def test_invalid_code_of_error_is_replaced_by_status(code: Any) -> None:
    """The error has the status of its response."""
    error = errors.from_body(502, {"error": {"code": code, "message": code, "metadata": code}}, {})

    assert error.metadata == {"provider_code": "502"}


async def test_case_of_infinite_code_is_provider_error(run_turn: RunTurn) -> None:
    """It is reported as any other."""
    outcome = await run_turn(case("14d"))

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.reason == "PROVIDER_UNAVAILABLE"


@pytest.mark.parametrize("after", WRONG, ids=lambda each: json.dumps(each)[:10])
async def test_cost_is_settled_despite_later_faults(run_turn: RunTurn, after: Any) -> None:
    """Even if the rest of the stream is an error."""
    bodies = [chunk({"content": "Hello"}), chunk({}, "stop", usage=USAGE), chunk(usage=after), chunk(error=after)]
    outcome = await run_turn(stream(*bodies, b'data: {"broken\n\n'))

    (entry,) = outcome.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert entry.usage.output_tokens == 5


async def test_names_are_bounded_and_sanitized(run_turn: RunTurn) -> None:
    """Model and provider are cut and have no lone surrogate; an id that is too long is dropped."""
    first = {"id": "i" * 5000, "model": "m" * 5000, "provider": "P\ud83d"}
    outcome = await run_turn(stream(chunk({"content": "Hello"}) | first, chunk({}, "stop", usage=USAGE) | first))

    (entry,) = outcome.entries
    assert (entry.generation_id, entry.served_model, entry.provider) == (None, "m" * 256, "P\ufffd")
