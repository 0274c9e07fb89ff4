"""The framing and content type of a body do not matter: a complete answer is complete after one request."""

import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import ProviderUnavailable, TurnTooLarge
from godoty_service.ledger.entries import CostSource
from godoty_service.openrouter.decoding.sse import BodyDecoder, EventDecoder, EventTooLarge
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from tests.e2e.answers.conftest import Outcome, RunTurn
from tests.e2e.answers.gateway import USAGE, case, chunk, event, response, stream

HELLO, END = chunk({"content": "Hello"}), chunk({}, "stop", usage=USAGE)
WHOLE = {
    "id": "gen-1",
    "model": "openai/gpt-4o-mini",
    "provider": "P",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
KEEP_ALIVE = [
    b"data:\n\n",
    b"data: \n\n",
    b"data\n\n",
    b"data: null\n\n",
    b'data: ""\n\n',
    b"data: ping\n\n",
    b": x\n\n",
]
KEEP_ALIVE += [b"event: ping\ndata: {}\n\n", b"\n\n\n", b"data: []\n\n", b"retry: 10\n\n"]
LAST = [
    b"data: [DONE]\n\n",
    b"data: [DONE] \n\n",
    b"data: DONE\n\n",
    b"data:[DONE]",
    b"data: [DO",
    b'data: {"id": "ge',
    b"",
]


def assert_complete(outcome: Outcome) -> None:
    """Check that the answer is complete, and that one request was made and paid."""
    assert outcome.turn.text == "Hello"
    assert outcome.turn.finished
    (entry,) = outcome.entries
    assert (entry.cost_source, entry.cost, entry.error) == (CostSource.BILLED, Decimal("0.00012"), None)
    assert len(outcome.gateway.requests) == 1


@pytest.mark.parametrize("name", ["01_", "01b", "02", "03_", "03b", "04_", "04b", "04c"])
async def test_case_of_unusual_framing_is_complete_answer(run_turn: RunTurn, name: str) -> None:
    """Each case is decoded as the answer that it contains."""
    assert_complete(await run_turn(case(name)))


@pytest.mark.parametrize("alive", KEEP_ALIVE)
async def test_keep_alive_is_skipped_anywhere(run_turn: RunTurn, alive: bytes) -> None:
    """Before, between and after the chunks, it is no fault."""
    assert_complete(await run_turn(stream(alive, HELLO, alive, END, alive)))


@pytest.mark.parametrize("last", LAST)
async def test_any_last_line_after_finish_reason_is_end(run_turn: RunTurn, last: bytes) -> None:
    """After the finish reason and the usage nothing can break the answer."""
    assert_complete(await run_turn(stream(HELLO, END, last, done=False)))


@pytest.mark.parametrize("content_type", [None, "text/event-stream", "application/json", "TEXT/EVENT-STREAM", "x/y"])
@pytest.mark.parametrize("whole", [True, False], ids=["document", "stream"])
async def test_first_bytes_decide_whether_body_is_stream(
    run_turn: RunTurn, content_type: str | None, *, whole: bool
) -> None:
    """A document is recognized under any content type, and so is a stream."""
    body = b"\n  \n" + json.dumps(WHOLE).encode() if whole else stream(HELLO, END)
    assert_complete(await run_turn(response(body, content_type)))


async def test_lines_of_objects_are_chunks_of_stream(run_turn: RunTurn) -> None:
    """The fields of an event stream may be missing."""
    body = b"".join(json.dumps(each).encode() + b"\n" for each in (HELLO, END))
    assert_complete(await run_turn(response(body, "application/x-ndjson")))


async def test_data_lines_of_one_event_are_separate_chunks(run_turn: RunTurn) -> None:
    """Two data lines of one event, each of which is an object, are two chunks."""
    assert_complete(await run_turn((event(HELLO)[:-1] + event(END)[:-1]) + b"data: [DONE]\n\n"))


async def test_error_without_data_field_is_decoded(run_turn: RunTurn) -> None:
    """Some gateways write an error object into the stream without a field name."""
    error = json.dumps({"error": {"code": 401, "message": "no"}}).encode()
    outcome = await run_turn(stream(HELLO, error + b"\n\n"))

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.metadata["provider_code"] == "401"


async def test_stream_without_finish_reason_and_end_marker_is_incomplete(run_turn: RunTurn) -> None:
    """Text and usage alone make no answer."""
    outcome = await run_turn(stream(HELLO, chunk(usage=USAGE), done=False))

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.metadata["provider_code"] == "incomplete"


@given(
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    mark=st.booleans(),
    cuts=st.lists(st.integers(0), max_size=6),
    alive=st.sampled_from(KEEP_ALIVE),
)
def test_any_cut_and_line_end_gives_same_answer(*, end: bytes, mark: bool, cuts: list[int], alive: bytes) -> None:
    """The byte order mark, the line ends and the network's cuts have no effect."""
    data = (b"\xef\xbb\xbf" if mark else b"") + stream(alive, HELLO, alive, END, alive).replace(b"\n", end)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    body_decoder, decoder = BodyDecoder(), StreamDecoder()
    for start, stop in pairwise(places):
        decoder.read(body_decoder.feed(data[start:stop]))
    decoder.read(body_decoder.end())

    assert not body_decoder.whole
    assert (decoder.complete, decoder.closed, decoder.error) == (True, True, None)


def test_events_around_too_large_event_are_decoded() -> None:
    """Only that event is dropped."""
    decoder = EventDecoder()
    found = decoder.feed(b"data: a\n\ndata: ")
    for _ in range(24):
        found += decoder.feed(b"x" * 1024 * 1023)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x" * 1024 * 1024)
    found += decoder.feed(b"xx\n\ndata: b\n\n")

    assert found == [b"a", b"b"]


def test_size_error_is_not_replaced_by_provider_error() -> None:
    """The turn is reported as too large, regardless of later errors."""
    decoder = StreamDecoder()
    decoder.fail(TurnTooLarge("large"))
    decoder.add_chunks([chunk(error={"code": 502})])

    assert isinstance(decoder.error, TurnTooLarge)


def test_malformed_object_within_stream_fails_answer() -> None:
    """A part of the answer is lost."""
    decoder = StreamDecoder()
    decoder.read([json.dumps(HELLO).encode(), b'{"id": "ge', json.dumps(END).encode()])

    assert isinstance(decoder.error, ProviderUnavailable)
    assert decoder.final_usage == decoder.usage
