"""Values of odd types, wherever a string or a number belongs: they are passed over, and a cost that came is booked."""

import json
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.metering.call import CostSource
from godoty_service.openrouter import failures
from tests.answers.conftest import Ask
from tests.answers.gateway import USAGE, case, chunk, stream

ODD: list[Any] = [[], [0], {}, {"a": [1]}, 0, -1, 1.5, 1e300, True, None, "", "x", "\ud83d", [[{}]], float("nan")]
ODD += [float("inf"), 10**30]
DELTA = ("content", "reasoning", "reasoning_content", "reasoning_details", "tool_calls", "refusal", "role")
CHOICE = ("delta", "message", "finish_reason", "index", "logprobs", "native_finish_reason")
CHUNK = ("id", "model", "provider", "choices", "usage", "created", "object")


def odd_chunks() -> list[dict[str, Any]]:
    """One chunk for each field with each odd value, and some that are odd within."""
    found: list[dict[str, Any]] = []
    for value in ODD:
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
async def test_cases_of_odd_types_are_answers(ask: Ask, name: str) -> None:
    """What can be read of them is shown, and the cost is booked."""
    asked = await ask(case(name), case("01_"))

    assert asked.turn.finished
    (entry,) = asked.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert (await asked.caller.converse("and now?")).text == "Hello"


async def test_odd_values_of_every_field_change_nothing(ask: Ask) -> None:
    """A stream full of them is the answer that stands between them; the next turn goes on with its history."""
    odd = odd_chunks()
    ended = [chunk({"content": "Hello"}, usage=USAGE), *odd, chunk({}, "stop", usage=USAGE), *odd]
    asked = await ask(stream(*ended), case("01_"))

    assert asked.turn.failure is None
    assert asked.turn.text.strip("\ufffd") == "Hello"
    (entry,) = asked.entries
    assert (entry.served_model, entry.provider, entry.generation_id) == ("openai/gpt-4o-mini", "P", "gen-1")
    assert (entry.usage.input_tokens, entry.cost_source) == (10, CostSource.BILLED)
    assert (await asked.caller.converse("and now?")).text == "Hello"


@pytest.mark.parametrize("code", [1e999, -1, 10**40, [], {}, True, "x", "٤٠٠", 400.5, None, float("nan"), "9" * 5000])
async def test_an_odd_code_is_the_status(code: Any) -> None:
    """An error whose code is none has that of its response."""
    error = failures.from_body(502, {"error": {"code": code, "message": code, "metadata": code}}, {})

    assert error.metadata == {"provider_code": "502"}


async def test_the_case_of_an_infinite_code_is_an_error_of_the_provider(ask: Ask) -> None:
    """It is said as any other."""
    asked = await ask(case("14d"))

    assert asked.turn.failure is not None
    assert asked.turn.failure.reason == "PROVIDER_UNAVAILABLE"


@pytest.mark.parametrize("after", ODD, ids=lambda each: json.dumps(each)[:10])
async def test_a_cost_that_came_is_booked_whatever_follows(ask: Ask, after: Any) -> None:
    """Even if the rest of the stream is an error."""
    bodies = [chunk({"content": "Hello"}), chunk({}, "stop", usage=USAGE), chunk(usage=after), chunk(error=after)]
    asked = await ask(stream(*bodies, b'data: {"broken\n\n'))

    (entry,) = asked.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert entry.usage.output_tokens == 5


async def test_names_that_are_long_or_cut_are_kept_clean(ask: Ask) -> None:
    """Model and provider are bounded, and hold no half of a pair; an id that is too long names nothing."""
    first = {"id": "i" * 5000, "model": "m" * 5000, "provider": "P\ud83d"}
    asked = await ask(stream(chunk({"content": "Hello"}) | first, chunk({}, "stop", usage=USAGE) | first))

    (entry,) = asked.entries
    assert (entry.generation_id, entry.served_model, entry.provider) == (None, "m" * 256, "P\ufffd")
