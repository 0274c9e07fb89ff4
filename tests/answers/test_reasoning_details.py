"""Reasoning details as gateways send them: assembled once, clean, bounded, and sent again as they came."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.openrouter.reasoning import ReasoningDetails, details_of
from tests.answers.conftest import Ask
from tests.answers.gateway import DATA, SAID, USAGE, chunk, stream

RECORDED = sorted(each.name for each in (DATA / "recorded").glob("*.sse") if b"reasoning_details" in each.read_bytes())
TEXT = "The user asks what the time is in Tokyo; I call the tool."
ENCRYPTED = {"type": "reasoning.encrypted", "data": "gAAAA" * 20, "id": "rs_1", "format": "openai-responses-v1"}


def back(*chunks: Any, limits: AnswerLimits | None = None) -> list[dict[str, Any]]:
    """Return what is sent again of the details that came in these chunks."""
    collected = ReasoningDetails(limits)
    for each in chunks:
        collected.add(each)
    signature = collected.signature()
    block = {"reasoningContent": {"reasoningText": {"text": "", "signature": signature}}}
    return details_of({"role": "assistant", "content": [block] if signature else []})


def detail(text: str, **others: Any) -> dict[str, Any]:
    """Make a piece of a reasoning text."""
    return {"type": "reasoning.text", "text": text, "format": "anthropic-claude-v1", **others}


def recorded(name: str) -> list[list[dict[str, Any]]]:
    """Read the details of a recording, chunk by chunk."""
    path: Path = DATA / "recorded" / name
    chunks = [json.loads(line[6:]) for line in path.read_text().split("\n") if line.startswith("data: {")]
    deltas = [choice.get("delta") or {} for each in chunks for choice in each.get("choices") or []]
    return [delta["reasoning_details"] for delta in deltas if delta.get("reasoning_details")]


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_whose_details_are_repeated_is_the_same(name: str) -> None:
    """All of them once more at the end, with or without their index, change nothing."""
    once = back(*recorded(name))
    bare = [{key: value for key, value in each.items() if key != "index"} for each in once]

    assert once
    assert back(*recorded(name), once) == once
    assert back(*recorded(name), *[[each] for each in once]) == once
    assert back(*recorded(name), bare) == once


@pytest.mark.parametrize("index", [{"index": 0}, {}, {"index": [0]}, {"index": "0"}, {"index": 0.5}, {"index": None}])
def test_pieces_with_any_index_are_one_text(index: dict[str, Any]) -> None:
    """One that is no number is none, and is not sent again."""
    (found,) = back([detail(TEXT[:20], **index)], [detail(TEXT[20:], **index)], [detail(TEXT, **index)])

    assert found["text"] == TEXT
    assert found.get("index") in (None, 0)


@given(texts=st.lists(st.sampled_from(["ha", " ", "\n", "-" * 31, "no"]), min_size=1, max_size=8))
def test_short_pieces_that_are_alike_are_no_repetition(texts: list[str]) -> None:
    """A signature covers each letter of the text: laughter stays as long as it is."""
    for cut in range(1, len(texts)):
        if len("".join(texts[:cut])) >= 32 and texts[cut].startswith("".join(texts[:cut])):
            return
    (found,) = back(*[[detail(text, index=0)] for text in texts])

    assert found["text"] == "".join(texts)


def test_sealed_details_that_are_repeated_are_one() -> None:
    """Doubled, nobody could open them."""
    assert back([{**ENCRYPTED, "index": 0}], [{**ENCRYPTED, "index": 0}]) == [{**ENCRYPTED, "index": 0}]
    assert back([ENCRYPTED], [ENCRYPTED]) == [ENCRYPTED]


@pytest.mark.parametrize(
    "odd",
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
def test_a_detail_that_no_provider_takes_is_not_sent_again(odd: dict[str, Any]) -> None:
    """What its type requires is not there, or OpenRouter has no such type."""
    assert back([odd], [ENCRYPTED]) == [ENCRYPTED]


@pytest.mark.parametrize("odd", ["", "x", "Anthropic v1", "null", "-v1"])
def test_format_that_is_none_is_left_out(odd: str) -> None:
    """The rest of its detail is kept; a format that OpenRouter may have added since is kept as well."""
    assert back([{**ENCRYPTED, "format": odd}]) == [{key: ENCRYPTED[key] for key in ENCRYPTED if key != "format"}]
    assert back([{**ENCRYPTED, "format": "new-model-v2"}]) == [{**ENCRYPTED, "format": "new-model-v2"}]


def test_fields_that_are_not_known_are_kept_as_far_as_json_holds_them() -> None:
    """Halves of pairs are replaced, and numbers that are none are null."""
    (found,) = back([{**ENCRYPTED, "new": {"a\ud800": ["\ud83d", float("nan"), 1.5, None, True]}, "id": 7}])

    assert found["new"] == {"a\ufffd": ["\ufffd", None, 1.5, None, True]}
    assert "id" not in found


def test_a_half_of_a_pair_in_two_pieces_is_whole() -> None:
    """As in texts."""
    (found,) = back([detail("a\ud83d", index=0)], [detail("\ude00b\ud83d", index=0)])

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
def test_details_above_the_bounds_are_not_kept(chunks: list[Any]) -> None:
    """A part of them would be refused."""
    limits = AnswerLimits(reasoning_details=20, reasoning_details_bytes=2000)

    assert back(*chunks, limits=limits) == []


async def test_a_history_with_odd_details_goes_on(ask: Ask) -> None:
    """The next request has those that are sound, once."""
    odd = [detail("\ud83d", index=[0]), {"type": 7}, None, "x", {"type": "reasoning.summary", "summary": {}}]
    asked = await ask(
        stream(
            chunk({"reasoning": TEXT, "reasoning_details": [detail(TEXT, index=0)]}),
            chunk({"reasoning_details": odd}),
            chunk({"content": "Hello", "reasoning_details": [detail(TEXT, index=0)]}),
            chunk({}, "stop", usage=USAGE),
        ),
        SAID,
    )
    turn = await asked.caller.converse("and now?")

    assert turn.text == "Done."
    messages = asked.gateway.requests[-1]["messages"]
    (kept,) = [each["reasoning_details"] for each in messages if "reasoning_details" in each]
    assert [each["text"] for each in kept] == [TEXT, "\ufffd"]
