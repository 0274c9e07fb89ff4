"""`reasoning_details` go sent_again to the model unchanged."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.decoding.reasoning_details import ReasoningDetails, details_of


def sent_again(*chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the details that are sent again after these chunks."""
    collected = ReasoningDetails()
    for chunk in chunks:
        collected.add(chunk)
    signature = collected.signature()
    block = {"reasoningContent": {"reasoningText": {"text": "", "signature": signature}}}
    return details_of({"role": "assistant", "content": [block] if signature else []})


@given(texts=st.lists(st.text(max_size=4), min_size=1, max_size=6))
def test_pieces_of_text_are_joined(texts: list[str]) -> None:
    """One detail arrives in many pieces, and is sent in one."""
    pieces = [[{"type": "reasoning.text", "text": text, "format": "f-v1", "index": 0}] for text in texts]

    assert sent_again(*pieces) == [{"type": "reasoning.text", "text": "".join(texts), "format": "f-v1", "index": 0}]


def test_signature_in_last_piece_joins_its_text() -> None:
    """Anthropic's signature arrives in a piece of its own."""
    text = {"type": "reasoning.text", "text": "hm", "signature": None, "index": 0}
    signature = {"type": "reasoning.text", "signature": "sig", "index": 0}

    assert sent_again([text], [signature]) == [{"type": "reasoning.text", "text": "hm", "signature": "sig", "index": 0}]


def test_details_of_other_index_or_type_are_separate() -> None:
    """Each keeps its position and all its fields, unknown ones included."""
    entries = [
        {"type": "reasoning.summary", "summary": "s", "index": 0},
        {"type": "reasoning.encrypted", "data": "d", "id": "rs_1", "index": 0, "new": {"a": [1]}},
        {"type": "reasoning.text", "text": "t", "index": 1},
    ]

    assert sent_again(entries) == entries
    assert sent_again(*[[entry] for entry in entries]) == entries


def test_encrypted_details_of_different_ids_are_separate() -> None:
    """Two encrypted details that share an index could not be decrypted when joined."""
    entries = [
        {"type": "reasoning.encrypted", "data": "AAA", "id": "rs_1", "index": 0},
        {"type": "reasoning.encrypted", "data": "BBB", "id": "rs_2", "index": 0},
    ]

    assert sent_again(*[[entry] for entry in entries]) == entries


def test_details_of_one_chunk_without_index_are_separate() -> None:
    """A body that is not streamed needs no index."""
    entries = [{"type": "reasoning.text", "text": "a"}, {"type": "reasoning.text", "text": "b"}]

    assert sent_again(entries) == entries


def test_malformed_details_are_skipped() -> None:
    """Without a list of objects there is nothing to send."""
    collected = ReasoningDetails()
    odd_shapes: list[Any] = [None, "x", {}, [None], ["x"], [7]]
    for odd in odd_shapes:
        collected.add(odd)

    assert collected.signature() is None


def test_foreign_signature_is_ignored() -> None:
    """A signature without our prefix is not parsed."""
    block = {"reasoningContent": {"reasoningText": {"text": "x", "signature": "EqQBCgIYAhIM"}}}

    assert details_of({"role": "assistant", "content": [block, {"text": "y"}]}) == []
