"""A history is trimmed in two steps, with any content, and remains acceptable to models."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some
from strands.types.content import Message, Messages

from godoty_service.turns.history import OverflowTrimmer

TEXT = some.text(max_size=400)


def _turn(number: int, words: str, results: list[str], answer: str) -> Messages:
    """Build a turn of a history: a user text, a loop with one tool each, an answer."""
    messages: list[Any] = [Message(role="user", content=[{"text": words}])]
    for place, result in enumerate(results):
        name = f"call_{number}_{place}"
        use = {"toolUse": {"toolUseId": name, "name": "n", "input": {}}}
        back = {"toolResult": {"toolUseId": name, "status": "success", "content": [{"text": result}]}}
        messages += [Message(role="assistant", content=[use]), Message(role="user", content=[back])]  # type: ignore[list-item] # Strands' own blocks
    return [*messages, Message(role="assistant", content=[{"text": answer}])]


HISTORIES = some.lists(some.tuples(TEXT, some.lists(TEXT, max_size=3), TEXT), min_size=1, max_size=8).map(
    lambda turns: [message for number, turn in enumerate(turns) for message in _turn(number, *turn)]
)


def _size(messages: Messages) -> int:
    return sum(len(json.dumps(each["content"], ensure_ascii=False).encode()) for each in messages)


def _ids(messages: Messages, kind: str) -> list[str]:
    return [block[kind]["toolUseId"] for each in messages for block in each["content"] if kind in block]  # type: ignore[literal-required] # by name


@settings(max_examples=200, deadline=None)
@given(history=HISTORIES, context_tokens=some.none() | some.integers(500, 3000), fixed=some.integers(0, 300))
def test_trimmed_history_is_complete_and_smaller(history: Messages, context_tokens: int | None, fixed: int) -> None:
    """It begins with a user text, each use has its result, and a step that returns True has removed something."""
    trimmer = OverflowTrimmer(context_tokens=context_tokens, fixed_bytes=lambda: fixed)
    for _ in range(3):
        before = _size(history)
        changed = trimmer.trim(history)
        assert changed == (_size(history) < before)
        assert "text" in history[0]["content"][0]
        assert history[0]["role"] == "user"
        assert _ids(history, "toolUse") == _ids(history, "toolResult")


def test_second_step_fits_when_each_byte_is_a_token() -> None:
    """The second step's result fits any tokenizer: three quarters of the context, less a request's fixed part."""
    history = [message for number in range(60) for message in _turn(number, "w" * 90, [], "a" * 90)]
    trimmer = OverflowTrimmer(context_tokens=4000, fixed_bytes=lambda: 500)
    trimmer.trim(history)
    assert 2500 < _size(history) <= 3000 * 2 - 500

    trimmer.trim(history)
    assert _size(history) <= 3000 - 500


def test_results_of_the_last_turn_are_shortened_not_dropped() -> None:
    """If there are no older messages, tool results keep their starts and ends."""
    history = _turn(1, "question", ["x" * 9_000, "y" * 9_000], "answer")[:-1]
    trimmer = OverflowTrimmer(context_tokens=2_000, fixed_bytes=lambda: 0)

    assert trimmer.trim(history)
    assert len(history) == 5
    assert "characters are left out here" in json.dumps(history[2])
    assert _size(history) < 12_000
