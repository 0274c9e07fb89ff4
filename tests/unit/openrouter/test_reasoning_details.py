"""`reasoning_details` go back to the model as they came."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.reasoning import ReasoningDetails, details_of


def back(*chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is given back of the details that came in these chunks."""
    collected = ReasoningDetails()
    for chunk in chunks:
        collected.add(chunk)
    signature = collected.signature()
    block = {"reasoningContent": {"reasoningText": {"text": "", "signature": signature}}}
    return details_of({"role": "assistant", "content": [block] if signature else []})


@given(texts=st.lists(st.text(max_size=4), min_size=1, max_size=6))
def test_the_pieces_of_a_text_are_joined(texts: list[str]) -> None:
    """One entry comes in many pieces, and goes back in one."""
    pieces = [[{"type": "reasoning.text", "text": text, "format": "f-v1", "index": 0}] for text in texts]

    assert back(*pieces) == [{"type": "reasoning.text", "text": "".join(texts), "format": "f-v1", "index": 0}]


def test_a_signature_that_comes_last_joins_its_text() -> None:
    """Anthropic's signature arrives in a piece of its own."""
    text = {"type": "reasoning.text", "text": "hm", "signature": None, "index": 0}
    signature = {"type": "reasoning.text", "signature": "sig", "index": 0}

    assert back([text], [signature]) == [{"type": "reasoning.text", "text": "hm", "signature": "sig", "index": 0}]


def test_entries_of_other_index_or_type_are_kept_apart() -> None:
    """Each keeps its place and all its fields, those we do not know included."""
    entries = [
        {"type": "reasoning.summary", "summary": "s", "index": 0},
        {"type": "reasoning.encrypted", "data": "d", "id": "rs_1", "index": 0, "new": {"a": [1]}},
        {"type": "reasoning.text", "text": "t", "index": 1},
    ]

    assert back(entries) == entries
    assert back(*[[entry] for entry in entries]) == entries


def test_encrypted_entries_of_different_ids_are_not_mixed() -> None:
    """Two sealed entries that share an index are two: joined, neither could be opened."""
    entries = [
        {"type": "reasoning.encrypted", "data": "AAA", "id": "rs_1", "index": 0},
        {"type": "reasoning.encrypted", "data": "BBB", "id": "rs_2", "index": 0},
    ]

    assert back(*[[entry] for entry in entries]) == entries


def test_entries_without_an_index_are_each_their_own() -> None:
    """A body that is not streamed needs no index."""
    entries = [{"type": "reasoning.text", "text": "a"}, {"type": "reasoning.text", "text": "b"}]

    assert back(entries) == entries


def test_odd_shapes_are_passed_over() -> None:
    """No list, no object: nothing to give back."""
    collected = ReasoningDetails()
    odd_shapes: list[Any] = [None, "x", {}, [None], ["x"], [7]]
    for odd in odd_shapes:
        collected.add(odd)

    assert collected.signature() is None


def test_signatures_of_others_are_left_alone() -> None:
    """A signature that we did not write is not read."""
    block = {"reasoningContent": {"reasoningText": {"text": "x", "signature": "EqQBCgIYAhIM"}}}

    assert details_of({"role": "assistant", "content": [block, {"text": "y"}]}) == []
