"""The history that is made of any messages of an import is one that every provider takes."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from strands.types.content import Messages

from godoty_service.session_copies.history import ImportedHistory
from godoty_service.sessions.history_repair import LEFT_OUT

IDS = st.sampled_from(["a", "b", "c"])
TEXT = st.sampled_from(["hello", "", " \n", "bye"]).map(lambda text: {"text": text})
USE = IDS.map(lambda each: {"toolUse": {"toolUseId": each, "name": "calculator", "input": {}}})
RESULT = IDS.map(lambda each: {"toolResult": {"toolUseId": each, "status": "success", "content": [{"text": "1"}]}})
REASONING = st.just({"reasoningContent": {"reasoningText": {"text": "so"}}})
IMAGE = st.just({"image": {"format": "png", "source": {}}})
BLOCKS = st.lists(st.one_of(TEXT, USE, RESULT, REASONING, IMAGE), max_size=4)
MESSAGE = st.tuples(st.sampled_from(["user", "assistant"]), BLOCKS)


def made_of(*messages: tuple[str, list[dict[str, Any]]]) -> Messages:
    """Return the history that is made of messages."""
    history = ImportedHistory()
    found = [made for role, content in messages for made in history.add(role, content)]
    return [*found, *history.end()]


@given(st.lists(MESSAGE, max_size=8))
def test_history_is_valid(messages: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """User and assistant alternate, each call has its result in the next message, and no text is blank."""
    history = made_of(*messages)

    assert [each["role"] for each in history] == ["user", "assistant"] * (len(history) // 2)
    for asked, answered in pairwise(history):
        uses = [block["toolUse"]["toolUseId"] for block in asked["content"] if "toolUse" in block]
        results = [block["toolResult"]["toolUseId"] for block in answered["content"] if "toolResult" in block]
        assert uses == results
        if uses:
            assert len(answered["content"]) == len(uses)
    assert all(each["content"] for each in history)
    assert all(block["text"].strip() for each in history for block in each["content"] if "text" in block)
    assert not any("toolUse" in block for each in history[-1:] for block in each["content"])
    kinds = {"user": {"toolUse", "reasoningContent"}, "assistant": {"toolResult", "image"}}
    assert not any(kinds[each["role"]] & set(block) for each in history for block in each["content"])


@given(st.lists(MESSAGE, max_size=8))
def test_valid_history_is_as_it_was(messages: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """What is made of a history that was made is the same."""
    once = made_of(*messages)
    again = made_of(*((each["role"], list(each["content"])) for each in once))  # type: ignore[arg-type] # as made

    assert json.dumps(again) == json.dumps(once)


def test_what_is_missing_is_completed() -> None:
    """A user's message before the first answer, an answer between two messages of the user, and results."""
    use = {"toolUse": {"toolUseId": "a", "name": "calculator", "input": {}}}
    history = made_of(("assistant", [{"text": "one"}]), ("user", [{"text": "two"}]), ("assistant", [use]))

    texts = [block.get("text") for each in history for block in each["content"]]
    assert texts == [LEFT_OUT, "one", "two", None, None, "[The answer was interrupted.]"]
    assert history[4]["content"][0]["toolResult"]["status"] == "error"
