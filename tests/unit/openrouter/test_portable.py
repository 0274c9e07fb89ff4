"""What is sent of a conversation is what strict providers take, and no more is changed than they ask for."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from godoty_service.openrouter.portable import Portable
from godoty_service.sandbox.conversation import Conversation
from godoty_service.sandbox.strictness import check

MISTRAL = "mistralai/mistral-medium-3.1"
ANY = ("openai/gpt-4o", "anthropic/claude-haiku-4.5", MISTRAL)


def _call(name: str, arguments: str, tool_call_id: str) -> dict[str, Any]:
    return {"id": tool_call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _turn(words: str, calls: list[dict[str, Any]], answer: str) -> list[dict[str, Any]]:
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "3"} for each in calls]
    loop = [{"role": "assistant", "content": [], "tool_calls": calls}, *results] if calls else []
    said: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": words}]}]
    return [*said, *loop, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


TEXT = some.text(max_size=5)
ARGUMENTS = TEXT | some.sampled_from(["null", "[]", "3", '"x"', "NaN", '{"a": 1}', "{" * 600])
CALLS = some.lists(
    some.builds(_call, TEXT, ARGUMENTS, some.sampled_from(["", "a", "call_1", "x" * 60, "a b", "é", "123456789"])),
    max_size=4,
)
WORDS = some.text(min_size=1, max_size=5).filter(str.strip)
TURNS = some.lists(some.builds(_turn, WORDS, CALLS, TEXT), min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(turns=TURNS)
@pytest.mark.parametrize("models", [ANY, (MISTRAL,), ANY[:2]])
def test_strict_providers_take_any_conversation(models: tuple[str, ...], turns: list[list[dict[str, Any]]]) -> None:
    """Whatever ids, names, arguments and texts an earlier answer left."""
    history = [message for turn in turns for message in turn]
    messages = [*history, {"role": "user", "content": "and now?"}]
    sent = Portable(models).messages(messages)

    check(Conversation({"messages": sent}), "openai,anthropic,mistral" if MISTRAL in models else "openai,anthropic")
    assert len(sent) == len(messages)
    assert sent == Portable(models).messages(messages)  # the same at each request


@pytest.mark.parametrize(
    ("model", "tool_call_id", "stays"),
    [
        ("openai/gpt-4o-mini", "call_174175d1c83e3061668320c2", True),
        ("openai/gpt-4o-mini", "x" * 41, False),
        ("anthropic/claude-haiku-4.5", "toolu_bdrk_015FK8AREjkBuw3cD8WPHiMd", True),
        ("anthropic/claude-haiku-4.5", "functions.f:0", False),
        ("google/gemini-3-pro", "call_1__thought__" + "A+/=" * 60, True),  # a gateway's note in the id
        (MISTRAL, "call_1", False),
        (MISTRAL, "ABCdef123", True),
    ],
)
def test_id_that_the_model_takes_stays(model: str, tool_call_id: str, *, stays: bool) -> None:
    """Gateways find what they know of a call by its id; one that would be refused is replaced, with its result's."""
    history = _turn("w", [_call("f", "{}", tool_call_id)], "answer")
    _, asked, result, _ = Portable((model,)).messages(history)

    assert (asked["tool_calls"][0]["id"] == tool_call_id) is stays
    assert result["tool_call_id"] == asked["tool_calls"][0]["id"]


def test_reasoning_that_names_a_call_names_it_as_it_is_sent() -> None:
    """Google's signatures belong to a tool call by its id."""
    history = _turn("w", [_call("f", "{}", "tool_0")], "answer")
    history[1]["reasoning_details"] = [{"type": "reasoning.encrypted", "id": "tool_0", "data": "x"}]
    asked = Portable((MISTRAL,)).messages(history)[1]

    assert asked["reasoning_details"][0]["id"] == asked["tool_calls"][0]["id"]
    assert json.dumps(history[1]["reasoning_details"]).count("tool_0") == 1
