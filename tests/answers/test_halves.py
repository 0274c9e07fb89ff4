"""Halves of surrogate pairs: those that two pieces hold are joined, and a lone one is replaced where it enters."""

import itertools
import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.answer import Answer
from godoty_service.openrouter.chunk import parse_chunk
from godoty_service.openrouter.text import clean, parts
from tests.answers.conftest import Ask
from tests.answers.gateway import SAID, case, chunk


class Words:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: dict[str, str] = {"text": "", "reasoning": ""}

    def asking(self) -> None:
        """Hear of a request."""

    def text(self, piece: str) -> None:
        """Hear some text."""
        self.heard["text"] += piece

    def reasoning(self, piece: str) -> None:
        """Hear some reasoning."""
        self.heard["reasoning"] += piece


def heard(chunks: Sequence[dict[str, str]]) -> dict[str, str]:
    """Hear an answer of these deltas."""
    words = Words()
    answer = Answer(words)
    for each in chunks:
        answer.take([parse_chunk(json.dumps(chunk(dict(each))).encode())])
    answer.take([chunk({}, "stop")])
    return words.heard


async def test_an_emoji_in_two_deltas_arrives_whole(ask: Ask) -> None:
    """Also in the history."""
    asked = await ask(case("23"), SAID)

    assert asked.turn.text == "A 😀 B"
    _, kept = await asked.caller.messages()
    assert kept.content[0].text == "A 😀 B"


@given(text=st.text(st.sampled_from("aä😀\ud83d\ude00\U00010000"), max_size=12), cuts=st.lists(st.integers(0, 24)))
def test_any_cut_between_code_units_is_the_same_text(text: str, cuts: list[int]) -> None:
    """Text and reasoning that come side by side do not mix, and a half that stays alone is replaced."""
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted({0, len(units), *(2 * cut for cut in cuts if 2 * cut < len(units))})
    pieces = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(places)]
    found = heard([{"content": each, "reasoning": each} for each in pieces])

    expected = clean(units.decode("utf-16-le", "surrogatepass"))
    assert found == {"text": expected, "reasoning": expected}


@given(st.text(st.sampled_from("aä€😀"), max_size=8), st.integers(0, 30_000))
def test_parts_are_the_text_and_small(text: str, times: int) -> None:
    """No part has more than 64 KiB, and no character is cut."""
    found = list(parts("x" + text * times))

    assert "".join(found) == "x" + text * times
    assert max(len(each.encode()) for each in found) <= 64 * 1024
