"""Chunks of an answer in the shapes that providers send."""

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import ProviderRejectedRequest, ProviderUnavailable
from godoty_service.openrouter.decoding.chunk import parse_chunk
from godoty_service.openrouter.decoding.sse import EventDecoder
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from tests.unit.openrouter.decoding import (
    USAGE,
    RecordingListener,
    assert_balanced,
    chunk,
    decode,
    text_of,
    tools_of,
)

RECORDED = Path(__file__).parents[2] / "data" / "recorded"
STREAMS = [path for path in sorted(RECORDED.glob("*.sse")) if b"data: {" in path.read_bytes()]


USAGE_CHUNKS = {
    "repeats the reason": chunk({"role": "assistant", "content": ""}, finish="stop", usage=USAGE),
    "has no reason": chunk({"role": "assistant", "content": ""}, usage=USAGE),
    "has no choice": chunk(usage=USAGE),
}


@pytest.mark.parametrize("last", USAGE_CHUNKS.values(), ids=USAGE_CHUNKS)
def test_each_shape_of_usage_chunk_ends_answer_once(last: dict[str, Any]) -> None:
    """The finish reason counts once, with or without it in the usage chunk, and the cost keeps all digits."""
    decoder = StreamDecoder()
    events = decode(decoder, [chunk({"content": "Hi"})], [chunk({"content": ""}, finish="stop")], [last])

    assert decoder.finish_reason == "stop"
    assert decoder.usage == {**USAGE, "cost": Decimal("0.1")}
    assert sum("messageStop" in event for event in events) == 1
    assert events[-1] == {"messageStop": {"stopReason": "end_turn"}}
    assert text_of(events) == "Hi"
    assert_balanced(events)


def test_finish_reason_in_usage_chunk_alone_ends_answer() -> None:
    """Some providers send the finish reason with the usage only."""
    decoder = StreamDecoder()
    events = decode(decoder, [chunk({"content": "Hi"})], [chunk({"content": ""}, finish="length", usage=USAGE)])

    assert events[-1] == {"messageStop": {"stopReason": "max_tokens"}}


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("stop", "end_turn"),
        ("tool_calls", "tool_use"),
        ("length", "max_tokens"),
        ("content_filter", "content_filtered"),
    ],
)
def test_finish_reason_maps_to_stop_reason(reason: str, stop: str) -> None:
    """Each reason has its stop reason; the provider's own is recorded for the ledger."""
    decoder = StreamDecoder()
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    calls = {"tool_calls": [call]} if reason == "tool_calls" else {}
    events = decode(decoder, [chunk({"content": "x", **calls}, finish=reason)])

    assert events[-1] == {"messageStop": {"stopReason": stop}}
    assert decoder.finish_reason == reason


def test_facts_of_chunks_are_recorded() -> None:
    """Generation, model and provider come with the chunks; an id from the headers has precedence."""
    decoder = StreamDecoder()
    decode(decoder, [chunk({"content": "x"}, model="a/first")], [chunk({"content": "y"}, model="a/second")])
    assert (decoder.generation_id, decoder.served_model, decoder.provider) == ("gen-1", "a/second", "P")

    decoder = StreamDecoder()
    decoder.generation_id = "gen-header"
    decode(decoder, [chunk({"content": "x"})])
    assert decoder.generation_id == "gen-header"


@given(texts=st.lists(st.text(max_size=5), max_size=8), cuts=st.lists(st.integers(0, 8), max_size=4))
def test_grouping_of_chunks_does_not_change_text(texts: list[str], cuts: list[int]) -> None:
    """For any grouping by the network, the text is the same, and the blocks are complete."""
    chunks = [chunk({"content": text}) for text in texts] + [chunk({"content": ""}, finish="stop", usage=USAGE)]
    places = sorted({0, len(chunks), *(cut for cut in cuts if cut < len(chunks))})
    groups = [chunks[start:end] for start, end in pairwise(places)]
    events = decode(StreamDecoder(), *groups)

    assert text_of(events) == "".join(texts)
    assert_balanced(events)


@given(pieces=st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.text("ab", max_size=3)), max_size=12))
def test_interleaved_tool_call_pieces_are_joined_by_index(pieces: list[tuple[int, str]]) -> None:
    """Pieces of parallel calls are joined by their index, in any order."""
    heads = [
        {"index": n, "id": f"call{n}", "type": "function", "function": {"name": f"tool{n}", "arguments": ""}}
        for n in range(3)
    ]
    whole = [(n, '{"a": "') for n in range(3)] + pieces + [(n, '"}') for n in range(3)]
    tails = [{"index": index, "function": {"arguments": text}} for index, text in whole]
    chunks = [chunk({"tool_calls": [each]}) for each in [*heads, *tails]]
    events = decode(StreamDecoder(), [chunk({"content": "Let me see."})], chunks, [chunk({}, finish="tool_calls")])

    expected = [(f"call{n}", f"tool{n}", "".join(text for index, text in whole if index == n)) for n in range(3)]
    assert tools_of(events) == expected
    assert text_of(events) == "Let me see."
    assert_balanced(events)


def test_tool_calls_of_unstreamed_message_need_no_index() -> None:
    """An answer that is not streamed has its calls in a list, without an index."""
    calls = [{"id": f"c{n}", "function": {"name": "f", "arguments": f'{{"n":{n}}}'}} for n in range(2)]
    body = {
        "id": "gen-1",
        "model": "a/b",
        "choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}],
    }
    events = decode(StreamDecoder(), [body])

    assert tools_of(events) == [("c0", "f", '{"n":0}'), ("c1", "f", '{"n":1}')]


def test_reasoning_and_text_are_separate_blocks() -> None:
    """Reasoning ends when text begins; the last block carries the details that go back to the model."""
    detail = {"type": "reasoning.encrypted", "data": "xyz", "id": "rs_1", "index": 0}
    decoder = StreamDecoder()
    events = decode(
        decoder,
        [chunk({"reasoning": "I th", "content": ""}), chunk({"reasoning": "ink"})],
        [chunk({"content": "So: "}), chunk({"content": "42"})],
        [chunk({"content": "", "reasoning_details": [detail]}, finish="stop")],
    )

    assert (text_of(events, "reasoning"), text_of(events)) == ("I think", "So: 42")
    assert_balanced(events)
    signatures = [each for each in map(json.dumps, events) if "signature" in each]
    assert len(signatures) == 1
    assert "xyz" in signatures[0]


@pytest.mark.parametrize("escaped", [r"\ud83d", r"a\udc00b", r"\ud83d\ud83d", r"\udc00\ud800"])
def test_lone_surrogate_in_text_is_replaced(escaped: str) -> None:
    """A provider that cuts an emoji in two does not break the turn: the text can be encoded."""
    data = b'{"id":"gen-1","choices":[{"delta":{"content":"%s"}}]}' % escaped.encode()
    events = decode(StreamDecoder(), [parse_chunk(data)])

    assert text_of(events).encode("utf-8")


def test_surrogate_pair_is_its_character() -> None:
    """Escaped or not, an emoji arrives."""
    for data in (
        rb'{"choices":[{"delta":{"content":"\ud83d\ude00"}}]}',
        '{"choices":[{"delta":{"content":"😀"}}]}'.encode(),
    ):
        assert text_of(decode(StreamDecoder(), [parse_chunk(data)])) == "😀"


def test_lone_surrogate_in_tool_call_is_replaced() -> None:
    """Arguments, ids and names are sanitized as texts are."""
    data = (
        rb'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"\ud83d"}}]}}]}'
    )
    ((_, _, arguments),) = tools_of(decode(StreamDecoder(), [parse_chunk(data)]))

    assert arguments.encode("utf-8")


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"[1]", b"7", b"null", b'"text"', b'{"a":', b"\xff\xfe", b"[" * 9999]
)
def test_data_that_is_not_an_object_is_malformed(data: bytes) -> None:
    """Anything but a JSON object is the provider's failure."""
    with pytest.raises(ProviderUnavailable) as caught:
        parse_chunk(data)
    assert caught.value.metadata == {"provider_code": "malformed"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": None},
        {"choices": "x"},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": None, "tool_calls": None, "reasoning_details": None}}]},
        {"choices": [{"delta": {"content": [{"type": "text", "text": "x"}, {"type": "image"}, None]}}]},
        {"usage": None, "error": None, "model": None, "provider": 7, "id": {}},
    ],
    ids=range(9),
)
def test_missing_and_null_fields_of_chunk_are_ignored(body: dict[str, Any]) -> None:
    """The answer is empty, and is no error."""
    decoder = StreamDecoder()
    assert_balanced(decode(decoder, [body]))
    assert decoder.error is None


def test_error_chunk_keeps_its_usage() -> None:
    """The error is reported together with the cost of the broken answer."""
    decoder = StreamDecoder()
    error = {"code": 400, "message": "bad"}
    decoder.add_chunks([chunk({"content": "x"}), chunk({"content": ""}, finish="error", error=error, usage=USAGE)])

    assert isinstance(decoder.error, ProviderRejectedRequest)
    assert decoder.usage == {**USAGE, "cost": Decimal("0.1")}
    assert decoder.has_output


def test_error_in_choice_fails_answer() -> None:
    """Some gateways put it there."""
    decoder = StreamDecoder()
    body = {"choices": [{"delta": {}, "error": {"code": 502, "message": "bad"}, "finish_reason": "error"}]}
    decoder.add_chunks([body])

    assert isinstance(decoder.error, ProviderUnavailable)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_recorded_stream_decodes_equally_singly_and_at_once(path: Path) -> None:
    """Text, reasoning, tools, usage and end are the same."""
    event_decoder = EventDecoder()
    data = [event for event in event_decoder.feed(path.read_bytes()) + event_decoder.end() if event != b"[DONE]"]
    by_one, at_once = StreamDecoder(), StreamDecoder()
    singly, together = (
        decode(by_one, *[[parse_chunk(each)] for each in data]),
        decode(at_once, list(map(parse_chunk, data))),
    )

    for read in (text_of, lambda events: text_of(events, "reasoning"), tools_of):
        assert read(singly) == read(together)
    assert singly[-1] == together[-1]
    assert_balanced(singly)
    assert_balanced(together)
    facts = ("generation_id", "served_model", "provider", "finish_reason", "usage", "has_output")
    assert [getattr(by_one, name) for name in facts] == [getattr(at_once, name) for name in facts]
    assert by_one.served_model
    assert by_one.finish_reason or by_one.error
    assert all(not isinstance(each, float) for each in (by_one.usage or {}).values())


def test_listener_gets_each_read_and_strands_the_rest_as_one() -> None:
    """Chunks that arrive together are one piece; Strands gets a block's first piece, and the rest as one."""
    listener = RecordingListener()
    decoder = StreamDecoder(listener)
    first = decoder.add_chunks([chunk({"reasoning": "r1"}), chunk({"reasoning": "r2"})])
    assert listener.pieces == [("reasoning", "r1r2")]
    assert text_of(first, "reasoning") == "r1r2"

    rest = decode(decoder, *[[chunk({"content": each})] for each in ("a", "b", "c")], [chunk({}, finish="stop")])

    assert listener.pieces[1:] == [("text", "a"), ("text", "b"), ("text", "c")]
    deltas = [each["contentBlockDelta"]["delta"] for each in rest if "contentBlockDelta" in each]
    assert deltas == [{"text": "a"}, {"text": "bc"}]
    assert_balanced(first + rest)


def test_listener_gets_reasoning_before_text_of_one_read() -> None:
    """Reasoning and text of one read are two pieces, in their order."""
    listener = RecordingListener()
    decode(StreamDecoder(listener), [chunk({"reasoning": "r"}), chunk({"content": "a"}), chunk({"content": "b"})])

    assert listener.pieces == [("reasoning", "r"), ("text", "ab")]


def test_malformed_object_keeps_what_arrived_with_it() -> None:
    """Text before it was forwarded; id, usage and cost count anywhere; text after it is not forwarded."""
    listener = RecordingListener()
    decoder = StreamDecoder(listener)
    good, bill, late = (
        json.dumps(each).encode()
        for each in (
            {"id": "gen-1", "model": "a/b", "choices": [{"delta": {"content": "x"}}]},
            {"choices": [], "usage": USAGE},
            {"choices": [{"delta": {"content": "late"}}]},
        )
    )
    decoder.read([good, b'{"broken', late, bill])

    assert isinstance(decoder.error, ProviderUnavailable)
    assert (decoder.generation_id, decoder.usage) == ("gen-1", {**USAGE, "cost": Decimal("0.1")})
    assert listener.pieces == [("text", "x")]
    assert decoder.has_output


def test_later_usage_without_cost_keeps_known_cost() -> None:
    """A usage object with more values replaces one with fewer."""
    decoder = StreamDecoder()
    decoder.add_chunks(
        [chunk(usage={"prompt_tokens": 1}), chunk(usage=USAGE), chunk(usage={}), chunk(usage={"cost": None})]
    )

    assert decoder.usage == {**USAGE, "cost": Decimal("0.1")}


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "1e99999999999999999999", "-1e99999999999999999999"])
def test_cost_that_is_not_an_amount_is_unknown(cost: str) -> None:
    """The counters beside it are recorded."""
    decoder = StreamDecoder()
    decoder.read([b'{"id": "gen-1", "usage": {"prompt_tokens": 3, "cost": %s}}' % cost.encode()])

    assert decoder.error is None
    assert decoder.usage is not None
    assert decoder.usage["prompt_tokens"] == 3
    assert decoder.usage["cost"] is None or decoder.usage["cost"].is_finite()


@pytest.mark.parametrize("calls", [{"a": 1}, ["x"], [None], [{"function": "f"}], [{"function": {"arguments": 7}}]])
def test_malformed_tool_calls_are_skipped(calls: Any) -> None:
    """The text beside them is recorded."""
    decoder = StreamDecoder()
    assert_balanced(decode(decoder, [chunk({"content": "x", "tool_calls": calls}), chunk(usage=USAGE)]))
    assert (decoder.error, decoder.usage) == (None, {**USAGE, "cost": Decimal("0.1")})


@pytest.mark.parametrize("escaped", [r"\ud800", r"\uDC00", r"\ud83d x"])
def test_escaped_lone_surrogate_in_arguments_is_replaced(escaped: str) -> None:
    """Strands parses a tool's input: its strings can be stored and sent."""
    arguments = json.dumps({"expression": "PLACE", "n": 1}).replace("PLACE", escaped)
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}
    ((_, _, given),) = tools_of(decode(StreamDecoder(), [chunk({"tool_calls": [call]})]))

    parsed = json.loads(given)
    assert parsed["n"] == 1
    assert parsed["expression"].encode("utf-8")


def test_escaped_surrogate_pair_in_arguments_is_kept() -> None:
    """An escaped emoji in a tool's input is that emoji."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": r'{"a": "\ud83d\ude00"}'}}
    ((_, _, given),) = tools_of(decode(StreamDecoder(), [chunk({"tool_calls": [call]})]))

    assert json.loads(given) == {"a": "😀"}
