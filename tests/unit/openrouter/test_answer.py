"""An answer's chunks, in all the shapes that providers give them."""

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import ProviderRejectedRequest, ProviderUnavailable
from godoty_service.openrouter.answer import Answer
from godoty_service.openrouter.chunk import parse_chunk
from godoty_service.openrouter.sse import EventDecoder

RECORDED = Path(__file__).parents[2] / "data" / "recorded"
STREAMS = [path for path in sorted(RECORDED.glob("*.sse")) if b"data: {" in path.read_bytes()]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.1}


def chunk(delta: dict[str, Any] | None = None, *, finish: str | None = None, **others: Any) -> dict[str, Any]:
    """A chunk as it is parsed."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "gen-1", "model": "a/b", "provider": "P", "choices": choices, **others}
    return parse_chunk(json.dumps(body).encode())


def told(answer: Answer, *groups: list[dict[str, Any]]) -> list[Any]:
    """All events of an answer that came in these groups."""
    return [event for group in groups for event in answer.take(group)] + answer.end()


def text_of(events: list[Any], kind: str = "text") -> str:
    """The text among events, or the reasoning."""
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    if kind == "text":
        return "".join(delta.get("text", "") for delta in deltas)
    return "".join(delta.get("reasoningContent", {}).get("text", "") for delta in deltas)


def tools_of(events: list[Any]) -> list[tuple[str, str, str]]:
    """The tool calls among events: id, name, input."""
    starts = [each["contentBlockStart"]["start"].get("toolUse") for each in events if "contentBlockStart" in each]
    inputs = [
        each["contentBlockDelta"]["delta"]["toolUse"]["input"]
        for each in events
        if "toolUse" in each.get("contentBlockDelta", {}).get("delta", {})
    ]
    uses = [use for use in starts if use]
    return [(use["toolUseId"], use["name"], given) for use, given in zip(uses, inputs, strict=True)]


def assert_balanced(events: list[Any]) -> None:
    """Check that blocks begin and end one after the other, and that the message ends once."""
    kinds = [next(iter(event)) for event in events if "contentBlockDelta" not in event]
    assert kinds[-1] == "messageStop"
    assert kinds[:-1] == ["contentBlockStart", "contentBlockStop"] * (len(kinds) // 2)


USAGE_CHUNKS = {
    "repeats the reason": chunk({"role": "assistant", "content": ""}, finish="stop", usage=USAGE),
    "has no reason": chunk({"role": "assistant", "content": ""}, usage=USAGE),
    "has no choice": chunk(usage=USAGE),
}


@pytest.mark.parametrize("last", USAGE_CHUNKS.values(), ids=USAGE_CHUNKS)
def test_every_shape_of_usage_chunk_ends_the_answer_once(last: dict[str, Any]) -> None:
    """The finish reason is counted once, whatever the usage chunk says of it, and the cost keeps every digit."""
    answer = Answer()
    events = told(answer, [chunk({"content": "Hi"})], [chunk({"content": ""}, finish="stop")], [last])

    assert answer.finish_reason == "stop"
    assert answer.usage == {**USAGE, "cost": Decimal("0.1")}
    assert sum("messageStop" in event for event in events) == 1
    assert events[-1] == {"messageStop": {"stopReason": "end_turn"}}
    assert text_of(events) == "Hi"
    assert_balanced(events)


def test_a_usage_chunk_that_alone_has_the_reason_is_enough() -> None:
    """Some providers say why they ended with the usage only."""
    answer = Answer()
    events = told(answer, [chunk({"content": "Hi"})], [chunk({"content": ""}, finish="length", usage=USAGE)])

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
def test_finish_reasons_become_strands_words(reason: str, stop: str) -> None:
    """Each reason has its word; the provider's own is kept for the ledger."""
    answer = Answer()
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    calls = {"tool_calls": [call]} if reason == "tool_calls" else {}
    events = told(answer, [chunk({"content": "x", **calls}, finish=reason)])

    assert events[-1] == {"messageStop": {"stopReason": stop}}
    assert answer.finish_reason == reason


def test_facts_are_taken_from_wherever_they_stand() -> None:
    """Generation, model and provider come with the chunks; an id from the headers goes before."""
    answer = Answer()
    told(answer, [chunk({"content": "x"}, model="a/first")], [chunk({"content": "y"}, model="a/second")])
    assert (answer.generation_id, answer.served_model, answer.provider) == ("gen-1", "a/second", "P")

    answer = Answer()
    answer.generation_id = "gen-header"
    told(answer, [chunk({"content": "x"})])
    assert answer.generation_id == "gen-header"


@given(texts=st.lists(st.text(max_size=5), max_size=8), cuts=st.lists(st.integers(0, 8), max_size=4))
def test_chunks_that_come_together_say_the_same(texts: list[str], cuts: list[int]) -> None:
    """However chunks are grouped by the network, the text is the same, and the blocks are whole."""
    chunks = [chunk({"content": text}) for text in texts] + [chunk({"content": ""}, finish="stop", usage=USAGE)]
    places = sorted({0, len(chunks), *(cut for cut in cuts if cut < len(chunks))})
    groups = [chunks[start:end] for start, end in pairwise(places)]
    events = told(Answer(), *groups)

    assert text_of(events) == "".join(texts)
    assert_balanced(events)


@given(pieces=st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.text("ab", max_size=3)), max_size=12))
def test_tool_calls_come_in_pieces_side_by_side(pieces: list[tuple[int, str]]) -> None:
    """Pieces of parallel calls are put together by their index, in whatever order they come."""
    heads = [
        {"index": n, "id": f"call{n}", "type": "function", "function": {"name": f"tool{n}", "arguments": ""}}
        for n in range(3)
    ]
    whole = [(n, '{"a": "') for n in range(3)] + pieces + [(n, '"}') for n in range(3)]
    tails = [{"index": index, "function": {"arguments": text}} for index, text in whole]
    chunks = [chunk({"tool_calls": [each]}) for each in [*heads, *tails]]
    events = told(Answer(), [chunk({"content": "Let me see."})], chunks, [chunk({}, finish="tool_calls")])

    expected = [(f"call{n}", f"tool{n}", "".join(text for index, text in whole if index == n)) for n in range(3)]
    assert tools_of(events) == expected
    assert text_of(events) == "Let me see."
    assert_balanced(events)


def test_a_whole_message_numbers_no_tool_calls() -> None:
    """An answer that is not streamed has its calls in a list, without an index."""
    calls = [{"id": f"c{n}", "function": {"name": "f", "arguments": f'{{"n":{n}}}'}} for n in range(2)]
    body = {
        "id": "gen-1",
        "model": "a/b",
        "choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}],
    }
    events = told(Answer(), [body])

    assert tools_of(events) == [("c0", "f", '{"n":0}'), ("c1", "f", '{"n":1}')]


def test_reasoning_and_text_are_blocks_of_their_own() -> None:
    """Reasoning ends where text begins; what must go back to the model unchanged rides on the last block."""
    detail = {"type": "reasoning.encrypted", "data": "xyz", "id": "rs_1", "index": 0}
    answer = Answer()
    events = told(
        answer,
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
def test_half_a_pair_of_surrogates_can_be_kept_and_sent(escaped: str) -> None:
    """A provider that cuts an emoji in two does not break the turn: what cannot be written is replaced."""
    data = b'{"id":"gen-1","choices":[{"delta":{"content":"%s"}}]}' % escaped.encode()
    events = told(Answer(), [parse_chunk(data)])

    assert text_of(events).encode("utf-8")


def test_a_whole_pair_of_surrogates_is_its_character() -> None:
    """Escaped or not, an emoji arrives."""
    for data in (
        rb'{"choices":[{"delta":{"content":"\ud83d\ude00"}}]}',
        '{"choices":[{"delta":{"content":"😀"}}]}'.encode(),
    ):
        assert text_of(told(Answer(), [parse_chunk(data)])) == "😀"


def test_half_a_pair_in_a_tool_call_can_be_kept_too() -> None:
    """Arguments, ids and names are cleaned as texts are."""
    data = (
        rb'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"\ud83d"}}]}}]}'
    )
    ((_, _, arguments),) = tools_of(told(Answer(), [parse_chunk(data)]))

    assert arguments.encode("utf-8")


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"[1]", b"7", b"null", b'"text"', b'{"a":', b"\xff\xfe", b"[" * 9999]
)
def test_what_is_no_chunk_is_unreadable(data: bytes) -> None:
    """Anything but a JSON object is the provider's failure, not ours."""
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
def test_chunks_of_odd_shapes_are_borne(body: dict[str, Any]) -> None:
    """What is missing or null says nothing, and nothing breaks."""
    answer = Answer()
    assert_balanced(told(answer, [body]))
    assert answer.error is None


def test_an_error_in_the_stream_keeps_the_usage_beside_it() -> None:
    """The error is told, and so is what the broken answer cost."""
    answer = Answer()
    error = {"code": 400, "message": "bad"}
    answer.take([chunk({"content": "x"}), chunk({"content": ""}, finish="error", error=error, usage=USAGE)])

    assert isinstance(answer.error, ProviderRejectedRequest)
    assert answer.usage == {**USAGE, "cost": Decimal("0.1")}
    assert answer.has_output


def test_an_error_may_stand_in_the_choice() -> None:
    """Some gateways put it there."""
    answer = Answer()
    body = {"choices": [{"delta": {}, "error": {"code": 502, "message": "bad"}, "finish_reason": "error"}]}
    answer.take([body])

    assert isinstance(answer.error, ProviderUnavailable)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_recorded_streams_say_the_same_however_they_arrive(path: Path) -> None:
    """A real stream chunk by chunk and at once: the same text, reasoning, tools, usage and end."""
    decoder = EventDecoder()
    data = [event for event in decoder.feed(path.read_bytes()) + decoder.end() if event != b"[DONE]"]
    by_one, at_once = Answer(), Answer()
    singly, together = (
        told(by_one, *[[parse_chunk(each)] for each in data]),
        told(at_once, list(map(parse_chunk, data))),
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


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, str]] = []

    def asking(self) -> None:
        """A request."""

    def text(self, piece: str) -> None:
        """Some text."""
        self.pieces.append(("text", piece))

    def reasoning(self, piece: str) -> None:
        """Some reasoning."""
        self.pieces.append(("reasoning", piece))


def test_a_listener_hears_each_read_at_once_and_strands_the_rest_as_one() -> None:
    """What arrives together is one piece; Strands gets a block's first piece and then all that follows of it."""
    heard = Heard()
    answer = Answer(heard)
    begun = answer.take([chunk({"reasoning": "r1"}), chunk({"reasoning": "r2"})])
    assert heard.pieces == [("reasoning", "r1r2")]
    assert text_of(begun, "reasoning") == "r1r2"

    rest = told(answer, *[[chunk({"content": each})] for each in ("a", "b", "c")], [chunk({}, finish="stop")])

    assert heard.pieces[1:] == [("text", "a"), ("text", "b"), ("text", "c")]
    deltas = [each["contentBlockDelta"]["delta"] for each in rest if "contentBlockDelta" in each]
    assert deltas == [{"text": "a"}, {"text": "bc"}]
    assert_balanced(begun + rest)


def test_a_listener_hears_in_order_where_kinds_change_within_a_read() -> None:
    """Reasoning that turns into text in one read is two pieces, in their order."""
    heard = Heard()
    told(Answer(heard), [chunk({"reasoning": "r"}), chunk({"content": "a"}), chunk({"content": "b"})])

    assert heard.pieces == [("reasoning", "r"), ("text", "ab")]


def test_what_came_beside_an_unreadable_line_is_kept() -> None:
    """Text before it was handed out; id, usage and cost count wherever they stand; what follows is not handed out."""
    heard = Heard()
    answer = Answer(heard)
    good, bill, late = (
        json.dumps(each).encode()
        for each in (
            {"id": "gen-1", "model": "a/b", "choices": [{"delta": {"content": "x"}}]},
            {"choices": [], "usage": USAGE},
            {"choices": [{"delta": {"content": "late"}}]},
        )
    )
    answer.read([good, b'{"broken', late, bill])

    assert isinstance(answer.error, ProviderUnavailable)
    assert (answer.generation_id, answer.usage) == ("gen-1", {**USAGE, "cost": Decimal("0.1")})
    assert heard.pieces == [("text", "x")]
    assert answer.has_output


def test_a_later_usage_that_tells_no_cost_takes_none_away() -> None:
    """The first that told the cost stays; one that tells more replaces one that did not."""
    answer = Answer()
    answer.take([chunk(usage={"prompt_tokens": 1}), chunk(usage=USAGE), chunk(usage={}), chunk(usage={"cost": None})])

    assert answer.usage == {**USAGE, "cost": Decimal("0.1")}


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "1e99999999999999999999", "-1e99999999999999999999"])
def test_a_cost_that_is_no_amount_is_unknown(cost: str) -> None:
    """It breaks nothing, and the counters beside it are kept."""
    answer = Answer()
    answer.read([b'{"id": "gen-1", "usage": {"prompt_tokens": 3, "cost": %s}}' % cost.encode()])

    assert answer.error is None
    assert answer.usage is not None
    assert answer.usage["prompt_tokens"] == 3
    assert answer.usage["cost"] is None or answer.usage["cost"].is_finite()


@pytest.mark.parametrize("calls", [{"a": 1}, ["x"], [None], [{"function": "f"}], [{"function": {"arguments": 7}}]])
def test_tool_calls_of_odd_shapes_break_nothing(calls: Any) -> None:
    """What is no tool call is passed over, and what came beside it is kept."""
    answer = Answer()
    assert_balanced(told(answer, [chunk({"content": "x", "tool_calls": calls}), chunk(usage=USAGE)]))
    assert (answer.error, answer.usage) == (None, {**USAGE, "cost": Decimal("0.1")})


@pytest.mark.parametrize("escaped", [r"\ud800", r"\uDC00", r"\ud83d x"])
def test_half_a_pair_that_is_escaped_in_arguments_can_be_kept_once_parsed(escaped: str) -> None:
    """Strands parses a tool's input: what comes out of it can be written to the database and the wire."""
    arguments = json.dumps({"expression": "PLACE", "n": 1}).replace("PLACE", escaped)
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}
    ((_, _, given),) = tools_of(told(Answer(), [chunk({"tool_calls": [call]})]))

    parsed = json.loads(given)
    assert parsed["n"] == 1
    assert parsed["expression"].encode("utf-8")


def test_a_whole_pair_in_arguments_stays() -> None:
    """An emoji that is escaped in a tool's input is that emoji."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": r'{"a": "\ud83d\ude00"}'}}
    ((_, _, given),) = tools_of(told(Answer(), [chunk({"tool_calls": [call]})]))

    assert json.loads(given) == {"a": "😀"}
