"""Reasoning details of gateways: assembled once, sanitized, bounded, and sent again unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.openrouter.decoding.reasoning_details import ReasoningDetails, details_of
from tests.e2e.answers.conftest import RunTurn
from tests.e2e.answers.gateway import ANSWER, DATA, USAGE, chunk, stream

RECORDED = sorted(each.name for each in (DATA / "recorded").glob("*.sse") if b"reasoning_details" in each.read_bytes())
TEXT = "The user asks what the time is in Tokyo; I call the tool."
ENCRYPTED = {"type": "reasoning.encrypted", "data": "gAAAA" * 20, "id": "rs_1", "format": "openai-responses-v1"}


def sent_again(*chunks: Any, limits: AnswerLimits | None = None) -> list[dict[str, Any]]:
    """Return the details that are sent again after these chunks."""
    collected = ReasoningDetails(limits)
    for each in chunks:
        collected.add(each)
    signature = collected.signature()
    block = {"reasoningContent": {"reasoningText": {"text": "", "signature": signature}}}
    return details_of({"role": "assistant", "content": [block] if signature else []})


def detail(text: str, **others: Any) -> dict[str, Any]:
    """Build a piece of a reasoning text."""
    return {"type": "reasoning.text", "text": text, "format": "anthropic-claude-v1", **others}


def recorded(name: str) -> list[list[dict[str, Any]]]:
    """Read the details of a recording, chunk by chunk."""
    path: Path = DATA / "recorded" / name
    chunks = [json.loads(line[6:]) for line in path.read_text().split("\n") if line.startswith("data: {")]
    deltas = [choice.get("delta") or {} for each in chunks for choice in each.get("choices") or []]
    return [delta["reasoning_details"] for delta in deltas if delta.get("reasoning_details")]


@pytest.mark.parametrize("name", RECORDED)
def test_repeated_details_of_recording_are_sent_once(name: str) -> None:
    """All of them once more at the end, with or without their index, change nothing."""
    once = sent_again(*recorded(name))
    bare = [{key: value for key, value in each.items() if key != "index"} for each in once]

    assert once
    assert sent_again(*recorded(name), once) == once
    assert sent_again(*recorded(name), *[[each] for each in once]) == once
    assert sent_again(*recorded(name), bare) == once


@pytest.mark.parametrize("index", [{"index": 0}, {}, {"index": [0]}, {"index": "0"}, {"index": 0.5}, {"index": None}])
def test_pieces_with_any_index_are_one_text(index: dict[str, Any]) -> None:
    """An index that is not a number is ignored, and is not sent again."""
    (found,) = sent_again([detail(TEXT[:20], **index)], [detail(TEXT[20:], **index)], [detail(TEXT, **index)])

    assert found["text"] == TEXT
    assert found.get("index") in (None, 0)


@given(texts=st.lists(st.sampled_from(["ha", " ", "\n", "-" * 31, "no"]), min_size=1, max_size=8))
def test_short_equal_pieces_are_not_repetition(texts: list[str]) -> None:
    """A signature covers each letter of the text: laughter keeps its length."""
    for cut in range(1, len(texts)):
        if len("".join(texts[:cut])) >= 32 and texts[cut].startswith("".join(texts[:cut])):
            return
    (found,) = sent_again(*[[detail(text, index=0)] for text in texts])

    assert found["text"] == "".join(texts)


def test_repeated_encrypted_details_are_one() -> None:
    """Doubled, they could not be decrypted."""
    assert sent_again([{**ENCRYPTED, "index": 0}], [{**ENCRYPTED, "index": 0}]) == [{**ENCRYPTED, "index": 0}]
    assert sent_again([ENCRYPTED], [ENCRYPTED]) == [ENCRYPTED]


@pytest.mark.parametrize(
    "invalid",
    [
        {"type": 7, "text": "x"},
        {"text": "x"},
        {"type": "reasoning.summary", "summary": ["x"]},
        {"type": "reasoning.encrypted", "data": None},
        {"type": "reasoning.encrypted"},
        {"type": ["reasoning.text"], "text": "x"},
        {"type": "", "text": "x"},
        {"type": "x", "text": "x", "data": "x", "summary": "x"},
    ],
    ids=str,
)
def test_invalid_detail_is_not_sent_again(invalid: dict[str, Any]) -> None:
    """A field that its type requires is missing, or OpenRouter has no such type."""
    assert sent_again([invalid], [ENCRYPTED]) == [ENCRYPTED]


@pytest.mark.parametrize("invalid", ["", "x", "Anthropic v1", "null", "-v1"])
def test_invalid_format_is_omitted(invalid: str) -> None:
    """The rest of its detail is sent; a format that OpenRouter may have added since is sent as well."""
    assert sent_again([{**ENCRYPTED, "format": invalid}]) == [
        {key: ENCRYPTED[key] for key in ENCRYPTED if key != "format"}
    ]
    assert sent_again([{**ENCRYPTED, "format": "new-model-v2"}]) == [{**ENCRYPTED, "format": "new-model-v2"}]


def test_unknown_fields_are_sent_as_valid_json() -> None:
    """Lone surrogates are replaced, and numbers that are not finite are null."""
    (found,) = sent_again([{**ENCRYPTED, "new": {"a\ud800": ["\ud83d", float("nan"), 1.5, None, True]}, "id": 7}])

    assert found["new"] == {"a\ufffd": ["\ufffd", None, 1.5, None, True]}
    assert "id" not in found


def test_surrogate_pair_in_two_pieces_is_joined() -> None:
    """As in texts."""
    (found,) = sent_again([detail("a\ud83d", index=0)], [detail("\ude00b\ud83d", index=0)])

    assert found["text"] == "a😀b\ufffd"


@pytest.mark.parametrize(
    "chunks",
    [
        [[detail("x" * 3000, index=0)]],
        [[detail("x", index=0)]] * 3000,
        [[detail("x", index=number)] for number in range(30)],
        [[{"type": "reasoning.text", f"field{number}": "x" * 100}] for number in range(30)],
        [[{"type": "reasoning.text", "deep": [["x"] * 100] * 100}]],
    ],
    ids=["one", "pieces", "many", "fields", "deep"],
)
def test_details_above_limits_are_dropped(chunks: list[Any]) -> None:
    """A part of them would be rejected."""
    limits = AnswerLimits(reasoning_details=20, reasoning_details_bytes=2000)

    assert sent_again(*chunks, limits=limits) == []


async def test_session_continues_after_malformed_details(run_turn: RunTurn) -> None:
    """The next request has the valid ones, once."""
    invalid = [detail("\ud83d", index=[0]), {"type": 7}, None, "x", {"type": "reasoning.summary", "summary": {}}]
    outcome = await run_turn(
        stream(
            chunk({"reasoning": TEXT, "reasoning_details": [detail(TEXT, index=0)]}),
            chunk({"reasoning_details": invalid}),
            chunk({"content": "Hello", "reasoning_details": [detail(TEXT, index=0)]}),
            chunk({}, "stop", usage=USAGE),
        ),
        ANSWER,
    )
    turn = await outcome.caller.converse("and now?")

    assert turn.text == "Done."
    messages = outcome.gateway.requests[-1]["messages"]
    (sent,) = [each["reasoning_details"] for each in messages if "reasoning_details" in each]
    assert [each["text"] for each in sent] == [TEXT, "\ufffd"]
