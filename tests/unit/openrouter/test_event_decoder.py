"""Server-sent events are decoded equally for any cut by the network."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.decoding.sse import EventDecoder, EventTooLarge

RECORDED = Path(__file__).parents[2] / "data" / "recorded"
STREAMS = [path for path in sorted(RECORDED.glob("*.sse")) if b"data: {" in path.read_bytes()]
MEBIBYTE = 1024 * 1024
LINE = st.binary(max_size=12).filter(lambda line: b"\r" not in line and b"\n" not in line)
EVENT = st.lists(LINE, min_size=1, max_size=3)
COMMENT = st.sampled_from([b": OPENROUTER PROCESSING", b":", b"event: message", b"id: 7", b"retry: 10", b"nonsense"])
END = st.sampled_from([b"\n", b"\r\n", b"\r"])


def decode(data: bytes, cuts: list[int]) -> list[bytes]:
    """Feed data in the pieces between the cuts."""
    decoder = EventDecoder()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(places)]
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


@given(
    events=st.lists(EVENT, max_size=5), comments=st.lists(COMMENT, max_size=3), end=END, cuts=st.lists(st.integers(0))
)
def test_any_cut_gives_same_events(
    events: list[list[bytes]], comments: list[bytes], end: bytes, cuts: list[int]
) -> None:
    """Lines end with LF, CRLF or CR; comments and other fields are skipped; data lines are joined by LF."""
    noise = b"".join(comment + end for comment in comments)
    data = b"".join(noise + b"".join(b"data: " + line + end for line in event) + end for event in events)

    assert decode(data, cuts) == [b"\n".join(event) for event in events]


@given(events=st.lists(EVENT, min_size=1, max_size=3), end=END, cuts=st.lists(st.integers(0)))
def test_last_event_needs_no_end(events: list[list[bytes]], end: bytes, cuts: list[int]) -> None:
    """A stream that stops without its last empty line, or in its last line, loses nothing."""
    data = b"".join(b"".join(b"data: " + line + end for line in event) + end for event in events)

    whole = [b"\n".join(event) for event in events]
    assert decode(data[: -len(end)], cuts) == decode(data[: -2 * len(end)], cuts) == whole


def test_space_after_colon_is_optional() -> None:
    """One space is removed, and only one."""
    assert decode(b"data:a\n\ndata: b\n\ndata:  c\n\ndata\n\n", []) == [b"a", b"b", b" c"]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_recorded_stream_gives_same_events_for_any_cut(path: Path) -> None:
    """Byte by byte, by lines, and at once."""
    data = path.read_bytes()
    at_once = decode(data, [])

    assert at_once[-1] == b"[DONE]" or at_once[-1].startswith(b"{")
    assert decode(data, list(range(len(data)))) == at_once
    assert decode(data, [place for place, byte in enumerate(data) if byte == 10]) == at_once


def test_line_above_24_mib_is_too_large() -> None:
    """A provider that sends no line end does not fill the memory."""
    with pytest.raises(EventTooLarge):
        decode(b"x" * 26 * MEBIBYTE, [number * MEBIBYTE for number in range(26)])


def test_lines_of_one_event_above_24_mib_are_too_large() -> None:
    """Data lines without an empty line between them count together."""
    line = b"data: " + b"x" * MEBIBYTE + b"\n"
    with pytest.raises(EventTooLarge):
        decode(line * 26, [number * len(line) for number in range(26)])
