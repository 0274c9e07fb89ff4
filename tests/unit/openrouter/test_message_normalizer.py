"""Sent messages are what strict providers accept, and only what they require is changed."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from godoty_service.openrouter.message_normalizer import MessageNormalizer
from godoty_service.openrouter.tool_calls_as_text import tool_calls_as_text
from openrouter_sandbox.conversation import Conversation
from openrouter_sandbox.strictness import check_messages

MISTRAL = "mistralai/mistral-medium-3.1"
ANY = ("openai/gpt-4o", "anthropic/claude-haiku-4.5", MISTRAL)


def _call(name: str, arguments: str, tool_call_id: str) -> dict[str, Any]:
    return {"id": tool_call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _turn(words: str, calls: list[dict[str, Any]], answer: str) -> list[dict[str, Any]]:
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "3"} for each in calls]
    loop = [{"role": "assistant", "content": [], "tool_calls": calls}, *results] if calls else []
    question: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": words}]}]
    return [*question, *loop, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


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
def test_strict_providers_accept_any_conversation(models: tuple[str, ...], turns: list[list[dict[str, Any]]]) -> None:
    """For any ids, names, arguments and texts of earlier answers."""
    history = [message for turn in turns for message in turn]
    messages = [*history, {"role": "user", "content": "and now?"}]
    sent = MessageNormalizer(models).normalize(messages)

    names = "openai,anthropic,mistral" if MISTRAL in models else "openai,anthropic"
    check_messages(Conversation({"messages": sent, "tools": [{"function": {"name": "f"}}]}), names)
    assert len(sent) == len(messages)
    assert sent == MessageNormalizer(models).normalize(messages)  # the same at each request


@settings(max_examples=400, deadline=None)
@given(turns=TURNS)
def test_strict_providers_accept_any_conversation_without_tools(turns: list[list[dict[str, Any]]]) -> None:
    """Tool calls and results are texts then, none is lost, and roles alternate."""
    history = [message for turn in turns for message in turn]
    messages = [*history, {"role": "user", "content": "and now?"}]
    sent = MessageNormalizer(ANY).normalize(tool_calls_as_text(messages))

    check_messages(Conversation({"messages": sent}), "openai,anthropic,mistral")
    calls = [call["function"] for message in messages for call in message.get("tool_calls", ())]
    texts = [part["text"] for message in sent if isinstance(message["content"], list) for part in message["content"]]
    for call in calls:
        assert f"[Tool call: {call['name']} {call['arguments']}]" in texts
    assert sum(each.startswith("[Result of ") for each in texts) == len(calls)
    assert texts.count("3") >= len(calls)


def test_result_with_an_image_keeps_it() -> None:
    """Images of results are in a user message after them, which is part of the same message then."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    history = _turn("w", [_call("f", "{}", "a")], "answer")
    history.insert(3, {"role": "user", "content": [image]})
    _, _, results, answer = tool_calls_as_text(history)

    assert results["content"] == [{"type": "text", "text": "[Result of f]"}, {"type": "text", "text": "3"}, image]
    assert answer["role"] == "assistant"


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
def test_id_that_model_accepts_is_unchanged(model: str, tool_call_id: str, *, stays: bool) -> None:
    """Gateways find their state by it; any other id is replaced, with that of its result."""
    history = _turn("w", [_call("f", "{}", tool_call_id)], "answer")
    _, answer, result, _ = MessageNormalizer((model,)).normalize(history)

    assert (answer["tool_calls"][0]["id"] == tool_call_id) is stays
    assert result["tool_call_id"] == answer["tool_calls"][0]["id"]


def test_reasoning_detail_of_tool_call_gets_sent_id() -> None:
    """Google's signatures belong to a tool call by its id."""
    history = _turn("w", [_call("f", "{}", "tool_0")], "answer")
    history[1]["reasoning_details"] = [{"type": "reasoning.encrypted", "id": "tool_0", "data": "x"}]
    answer = MessageNormalizer((MISTRAL,)).normalize(history)[1]

    assert answer["reasoning_details"][0]["id"] == answer["tool_calls"][0]["id"]
    assert json.dumps(history[1]["reasoning_details"]).count("tool_0") == 1
