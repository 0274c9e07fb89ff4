"""Surrogates: a pair that is cut into two pieces is joined, and a lone one is replaced on arrival."""

import itertools
import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from godoty_service.citations import Citation
from godoty_service.openrouter.decoding.chunk import parse_chunk
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from godoty_service.openrouter.decoding.text import replace_lone_surrogates, split_utf8
from tests.e2e.answers.conftest import RunTurn
from tests.e2e.answers.gateway import ANSWER, case, chunk


class RecordingListener:
    """A listener that records what it receives."""

    def __init__(self) -> None:
        self.received: dict[str, str] = {"text": "", "reasoning": ""}

    def on_request(self) -> None:
        """Ignore the request."""

    def text(self, piece: str) -> None:
        """Record some text."""
        self.received["text"] += piece

    def reasoning(self, piece: str) -> None:
        """Record some reasoning."""
        self.received["reasoning"] += piece

    def citations(self, found: Sequence[Citation]) -> None:
        """Ignore citations."""


def received(chunks: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return what a listener receives of an answer of these deltas."""
    listener = RecordingListener()
    decoder = StreamDecoder(listener)
    for each in chunks:
        decoder.add_chunks([parse_chunk(json.dumps(chunk(dict(each))).encode())])
    decoder.add_chunks([chunk({}, "stop")])
    return listener.received


async def test_emoji_in_two_deltas_arrives_whole(run_turn: RunTurn) -> None:
    """The history has it whole as well."""
    outcome = await run_turn(case("23"), ANSWER)

    assert outcome.turn.text == "A 😀 B"
    _, persisted = await outcome.caller.messages()
    assert persisted.content[0].text == "A 😀 B"


@given(text=st.text(st.sampled_from("aä😀\ud83d\ude00\U00010000"), max_size=12), cuts=st.lists(st.integers(0, 24)))
def test_any_cut_between_code_units_gives_same_text(text: str, cuts: list[int]) -> None:
    """Interleaved text and reasoning are not mixed, and a lone surrogate is replaced."""
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted({0, len(units), *(2 * cut for cut in cuts if 2 * cut < len(units))})
    pieces = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(places)]
    found = received([{"content": each, "reasoning": each} for each in pieces])

    expected = replace_lone_surrogates(units.decode("utf-16-le", "surrogatepass"))
    assert found == {"text": expected, "reasoning": expected}


@given(st.text(st.sampled_from("aä€😀"), max_size=8), st.integers(0, 30_000))
def test_split_text_has_bounded_parts(text: str, times: int) -> None:
    """No part exceeds 64 KiB, no character is cut, and joined the parts are the text."""
    found = list(split_utf8("x" + text * times))

    assert "".join(found) == "x" + text * times
    assert max(len(each.encode()) for each in found) <= 64 * 1024
