"""A history that ends at any point of a turn is completed so that every model accepts it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from strands.types.content import Message, Messages

from godoty_service.sessions import history_repair


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
    """Return complete turns, each with some rounds of tools."""
    history: Messages = []
    for turn in range(draw(st.integers(0, 4))):
        history.append(user(f"question {turn}"))
        for round_ in range(draw(st.integers(0, 3))):
            ids = [f"t{turn}.{round_}.{number}" for number in range(draw(st.integers(1, 3)))]
            history += [uses(*ids), results(*ids)]
        history.append(assistant(f"answer {turn}"))
    return history


def assert_whole(history: Messages) -> None:
    """Check that user and assistant alternate, and that each tool use has its result in the next message."""
    assert [each["role"] for each in history] == ["user", "assistant"] * (len(history) // 2)
    for message, following in zip(history, [*history, user("")][1:], strict=True):
        wanted = [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]
        given_ = [block["toolResult"]["toolUseId"] for block in following["content"] if "toolResult" in block]
        assert wanted == given_


@given(history=histories(), cut=st.integers(0), partial=st.text(max_size=5))
def test_history_interrupted_anywhere_is_completed(history: Messages, cut: int, partial: str) -> None:
    """The missing messages are appended, and no stored message changes."""
    left = history[: cut % (len(history) + 1)]
    before = [dict(message) for message in left]

    missing = history_repair.missing_messages(left, partial_text=partial)
    assert_whole([*left, *missing])
    assert left == before
    assert history_repair.missing_messages([*left, *missing]) == []
    if missing and partial:
        assert missing[-1]["content"][0]["text"] == f"{partial}\n\n{history_repair.INTERRUPTED}"


@given(history=histories())
def test_complete_history_is_unchanged(history: Messages) -> None:
    """A complete history does not change."""
    assert history_repair.missing_messages(history, partial_text="x", note="y") == []


def test_tool_uses_without_result_get_interrupted_result() -> None:
    """The model sees that there is no result, tool by tool, and why the answer ends."""
    missing = history_repair.missing_messages([user("go"), uses("a", "b")], partial_text="so far", note="[note]")

    tool_results, end = missing
    assert [block["toolResult"]["toolUseId"] for block in tool_results["content"]] == ["a", "b"]
    assert {block["toolResult"]["status"] for block in tool_results["content"]} == {"error"}
    assert end == assistant("so far\n\n[note]")


@given(history=histories(), cut=st.integers(0))
def test_window_begins_with_user_text(history: Messages, cut: int) -> None:
    """For any window, the rest is complete, and no more than necessary is dropped."""
    newest = history[cut % (len(history) + 1) :]

    window = history_repair.window(newest)
    assert_whole(window)
    assert window == newest[len(newest) - len(window) :]
    assert not window or "text" in window[0]["content"][0]
    dropped = newest[: len(newest) - len(window)]
    assert not any(message["role"] == "user" and "text" in message["content"][0] for message in dropped)
