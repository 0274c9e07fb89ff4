"""However a turn breaks off, its history is closed so that every model takes it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from strands.types.content import Message, Messages

from godoty_service.sessions import repair


def user(text: str) -> Message:
    return Message(role="user", content=[{"text": text}])


def assistant(text: str) -> Message:
    return Message(role="assistant", content=[{"text": text}])


def uses(*ids: str) -> Message:
    content: Any = [{"text": "Let me see."}] + [
        {"toolUse": {"toolUseId": each, "name": "f", "input": {}}} for each in ids
    ]
    return Message(role="assistant", content=content)


def results(*ids: str) -> Message:
    content: Any = [
        {"toolResult": {"toolUseId": each, "status": "success", "content": [{"text": "1"}]}} for each in ids
    ]
    return Message(role="user", content=content)


@st.composite
def histories(draw: st.DrawFn) -> Messages:
    """Whole turns, each with some rounds of tools."""
    history: Messages = []
    for turn in range(draw(st.integers(0, 4))):
        history.append(user(f"question {turn}"))
        for round_ in range(draw(st.integers(0, 3))):
            ids = [f"t{turn}.{round_}.{number}" for number in range(draw(st.integers(1, 3)))]
            history += [uses(*ids), results(*ids)]
        history.append(assistant(f"answer {turn}"))
    return history


def assert_whole(history: Messages) -> None:
    """Check that user and assistant take turns, and that each tool use has its result in the next message."""
    assert [each["role"] for each in history] == ["user", "assistant"] * (len(history) // 2)
    for asked, answered in zip(history, [*history, user("")][1:], strict=True):
        wanted = [block["toolUse"]["toolUseId"] for block in asked["content"] if "toolUse" in block]
        given_ = [block["toolResult"]["toolUseId"] for block in answered["content"] if "toolResult" in block]
        assert wanted == given_


@given(history=histories(), cut=st.integers(0), partial=st.text(max_size=5))
def test_a_history_that_breaks_off_anywhere_is_made_whole(history: Messages, cut: int, partial: str) -> None:
    """What is missing is appended, and nothing that is kept is touched."""
    left = history[: cut % (len(history) + 1)]
    before = [dict(message) for message in left]

    missing = repair.closing(left, partial_text=partial)
    assert_whole([*left, *missing])
    assert left == before
    assert repair.closing([*left, *missing]) == []
    if missing and partial:
        assert missing[-1]["content"][0]["text"] == f"{partial}\n\n{repair.INTERRUPTED}"


@given(history=histories())
def test_a_whole_history_needs_nothing(history: Messages) -> None:
    """What ended well is left as it is."""
    assert repair.closing(history, partial_text="x", note="y") == []


def test_tools_without_a_result_are_told_to_have_been_interrupted() -> None:
    """The model learns that it has no result, tool by tool, and why the answer ends."""
    missing = repair.closing([user("go"), uses("a", "b")], partial_text="so far", note="[note]")

    told, end = missing
    assert [block["toolResult"]["toolUseId"] for block in told["content"]] == ["a", "b"]
    assert {block["toolResult"]["status"] for block in told["content"]} == {"error"}
    assert end == assistant("so far\n\n[note]")


@given(history=histories(), cut=st.integers(0))
def test_a_window_begins_with_the_users_words(history: Messages, cut: int) -> None:
    """Whatever a window cut off, what is left is whole, and nothing more is dropped than had to be."""
    newest = history[cut % (len(history) + 1) :]

    window = repair.window(newest)
    assert_whole(window)
    assert window == newest[len(newest) - len(window) :]
    assert not window or "text" in window[0]["content"][0]
    dropped = newest[: len(newest) - len(window)]
    assert not any(message["role"] == "user" and "text" in message["content"][0] for message in dropped)
