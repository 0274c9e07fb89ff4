"""How a body is cut and named does not matter: a complete answer stays complete, and is asked for once."""

import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import ProviderUnavailable, TurnTooLarge
from godoty_service.metering.call import CostSource
from godoty_service.openrouter.answer import Answer
from godoty_service.openrouter.body import BodyDecoder
from godoty_service.openrouter.sse import EventDecoder, EventTooLarge
from tests.answers.conftest import Ask, Asked
from tests.answers.gateway import USAGE, case, chunk, event, response, stream

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


def assert_whole(asked: Asked) -> None:
    """Check that the answer came whole, and that one request was made and paid."""
    assert asked.turn.text == "Hello"
    assert asked.turn.finished
    (entry,) = asked.entries
    assert (entry.cost_source, entry.cost, entry.error) == (CostSource.BILLED, Decimal("0.00012"), None)
    assert len(asked.gateway.requests) == 1


@pytest.mark.parametrize("name", ["01_", "01b", "02", "03_", "03b", "04_", "04b", "04c"])
async def test_cases_of_odd_framing_are_whole_answers(ask: Ask, name: str) -> None:
    """Each case is read as the answer that it is."""
    assert_whole(await ask(case(name)))


@pytest.mark.parametrize("alive", KEEP_ALIVE)
async def test_a_keep_alive_anywhere_changes_nothing(ask: Ask, alive: bytes) -> None:
    """Whatever keeps the connection alive, before, between and after the chunks, is no fault."""
    assert_whole(await ask(stream(alive, HELLO, alive, END, alive)))


@pytest.mark.parametrize("last", LAST)
async def test_any_last_line_after_the_end_is_the_end(ask: Ask, last: bytes) -> None:
    """After the finish reason and the usage nothing can break the answer."""
    assert_whole(await ask(stream(HELLO, END, last, done=False)))


@pytest.mark.parametrize("content_type", [None, "text/event-stream", "application/json", "TEXT/EVENT-STREAM", "x/y"])
@pytest.mark.parametrize("whole", [True, False], ids=["document", "stream"])
async def test_the_first_bytes_say_what_a_body_is(ask: Ask, content_type: str | None, whole: bool) -> None:  # noqa: FBT001 - a parameter
    """A document is one under any content type, and so is a stream."""
    body = b"\n  \n" + json.dumps(WHOLE).encode() if whole else stream(HELLO, END)
    assert_whole(await ask(response(body, content_type)))


async def test_lines_of_objects_are_the_chunks_of_a_stream(ask: Ask) -> None:
    """Also without the words of an event stream around them."""
    body = b"".join(json.dumps(each).encode() + b"\n" for each in (HELLO, END))
    assert_whole(await ask(response(body, "application/x-ndjson")))


async def test_chunks_without_an_empty_line_between_them_are_chunks(ask: Ask) -> None:
    """Two data lines of one event, each of which is an object, are two chunks."""
    assert_whole(await ask((event(HELLO)[:-1] + event(END)[:-1]) + b"data: [DONE]\n\n"))


async def test_an_error_without_the_word_data_is_read(ask: Ask) -> None:
    """A gateway that writes its error into the stream as it is has said what went wrong."""
    error = json.dumps({"error": {"code": 401, "message": "no"}}).encode()
    asked = await ask(stream(HELLO, error + b"\n\n"))

    assert asked.turn.failure is not None
    assert asked.turn.failure.metadata["provider_code"] == "401"


async def test_a_stream_that_ends_early_is_broken_off(ask: Ask) -> None:
    """Without a finish reason and without the word that nothing follows, text and usage make no answer."""
    asked = await ask(stream(HELLO, chunk(usage=USAGE), done=False))

    assert asked.turn.failure is not None
    assert asked.turn.failure.metadata["provider_code"] == "incomplete"


@given(
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    mark=st.booleans(),
    cuts=st.lists(st.integers(0), max_size=6),
    alive=st.sampled_from(KEEP_ALIVE),
)
def test_any_cut_and_any_line_end_is_the_same_answer(end: bytes, mark: bool, cuts: list[int], alive: bytes) -> None:  # noqa: FBT001 - a parameter
    """A byte order mark, the line ends and the network's cuts are not seen."""
    data = (b"\xef\xbb\xbf" if mark else b"") + stream(alive, HELLO, alive, END, alive).replace(b"\n", end)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    decoder, answer = BodyDecoder(), Answer()
    for start, stop in pairwise(places):
        answer.read(decoder.feed(data[start:stop]))
    answer.read(decoder.end())

    assert not decoder.whole
    assert (answer.complete, answer.closed, answer.error) == (True, True, None)


def test_what_follows_an_event_that_is_too_large_is_read() -> None:
    """The event is dropped, and those before and after it are not."""
    decoder = EventDecoder()
    found = decoder.feed(b"data: a\n\ndata: ")
    for _ in range(24):
        found += decoder.feed(b"x" * 1024 * 1023)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x" * 1024 * 1024)
    found += decoder.feed(b"xx\n\ndata: b\n\n")

    assert found == [b"a", b"b"]


def test_an_error_of_size_outlives_an_error_of_the_provider() -> None:
    """What made the turn too large is said, whatever the provider says afterwards."""
    answer = Answer()
    answer.fail(TurnTooLarge("large"))
    answer.take([chunk(error={"code": 502})])

    assert isinstance(answer.error, TurnTooLarge)


def test_an_unreadable_object_in_the_middle_is_an_error() -> None:
    """Some of the answer is lost."""
    answer = Answer()
    answer.read([json.dumps(HELLO).encode(), b'{"id": "ge', json.dumps(END).encode()])

    assert isinstance(answer.error, ProviderUnavailable)
    assert answer.final_usage == answer.usage
