"""Tool calls of gateways: no argument is lost, no call is merged or dropped, and no tool runs with a guess."""

import json
from itertools import pairwise
from typing import Any

import pytest
from godoty.v1 import session_pb2 as session_pb
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.openrouter.decoding.text import replace_lone_surrogates
from godoty_service.openrouter.decoding.tool_calls import ToolCalls, input_fault, tool_input
from tests.e2e.answers.conftest import RunTurn
from tests.e2e.answers.gateway import ANSWER, case, piece, tool_call_stream

TOKYO, BERLIN = '{"timezone": "Asia/Tokyo"}', '{"timezone": "Europe/Berlin"}'
TIME, CALCULATOR = "current_time", "calculator"


def called(*groups: list[dict[str, Any]], limits: AnswerLimits | None = None) -> list[tuple[str, str, Any]]:
    """Assemble the calls of these chunks: id, name, parsed input."""
    calls = ToolCalls(limits or AnswerLimits())
    for group in groups:
        calls.add(group)
    return [(each.id, each.name, json.loads(each.input)) for each in calls.complete()]


def inputs(*groups: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Assemble the calls of these chunks: name and parsed input."""
    return [(name, given) for _, name, given in called(*groups)]


TWO = [(TIME, {"timezone": "Asia/Tokyo"}), (TIME, {"timezone": "Europe/Berlin"})]
PARALLEL: dict[str, list[list[dict[str, Any]]]] = {
    "all at index 0, with ids": [
        [piece(TOKYO, name=TIME, index=0, id="a")],
        [piece(BERLIN, name=TIME, index=0, id="b")],
    ],
    "all at index 0, in pieces": [
        [piece(TOKYO[:9], name=TIME, index=0, id="a")],
        [piece(TOKYO[9:], index=0)],
        [piece(BERLIN[:9], name=TIME, index=0, id="b")],
        [piece(BERLIN[9:], index=0)],
    ],
    "all at index 0, without ids": [[piece(TOKYO, name=TIME, index=0)], [piece(BERLIN, name=TIME, index=0)]],
    "all at index 0, in one chunk": [
        [piece(TOKYO, name=TIME, index=0, id="a"), piece(BERLIN, name=TIME, index=0, id="b")]
    ],
    "no index": [[piece(TOKYO, name=TIME, id="a")], [piece(BERLIN, name=TIME, id="b")]],
    "no index, in pieces": [
        [piece(TOKYO[:9], name=TIME, id="a")],
        [piece(TOKYO[9:])],
        [piece(BERLIN[:9], name=TIME, id="b")],
        [piece(BERLIN[9:])],
    ],
    "no index, pieces by id": [
        [piece("", name=TIME, id="a"), piece("", name=TIME, id="b")],
        [piece(BERLIN[:9], id="b"), piece(TOKYO[:9], id="a")],
        [piece(TOKYO[9:], id="a"), piece(BERLIN[9:], id="b")],
    ],
    "neither index nor id": [[piece(TOKYO, name=TIME)], [piece(BERLIN, name=TIME)]],
    "neither index nor id, in one chunk": [[piece(TOKYO, name=TIME), piece(BERLIN, name=TIME)]],
    "index as string": [
        [piece(TOKYO[:9], name=TIME, index="0", id="a"), piece(BERLIN[:9], name=TIME, index="1", id="b")],
        [piece(BERLIN[9:], index="1"), piece(TOKYO[9:], index="0")],
    ],
    "index as fraction": [
        [piece(TOKYO[:9], name=TIME, index=0.0), piece(BERLIN[:9], name=TIME, index=1.0)],
        [piece(BERLIN[9:], index=1.0), piece(TOKYO[9:], index=0.0)],
    ],
    "index as list": [[piece(TOKYO, name=TIME, index=[0], id="a")], [piece(BERLIN, name=TIME, index=[1], id="b")]],
    "one id for both": [[piece(TOKYO, name=TIME, index=0, id="a")], [piece(BERLIN, name=TIME, index=1, id="a")]],
    "empty ids": [[piece(TOKYO, name=TIME, index=0, id="")], [piece(BERLIN, name=TIME, index=1, id="")]],
    "repeated whole, without index": [
        [piece(TOKYO[:9], name=TIME, index=0, id="a")],
        [piece(TOKYO[9:], index=0)],
        [piece(BERLIN, name=TIME, index=1, id="b")],
        [piece(TOKYO, name=TIME, id="a"), piece(BERLIN, name=TIME, id="b")],
    ],
    "in reverse": [[piece(BERLIN, name=TIME, index=1, id="b")], [piece(TOKYO, name=TIME, index=0, id="a")]],
}
ONE: dict[str, list[list[dict[str, Any]]]] = {
    "an empty object first": [[piece("{}", name=TIME, index=0, id="a")], [piece(TOKYO, index=0)]],
    "an empty object first, then pieces": [
        [piece("{}", name=TIME, index=0, id="a")],
        [piece(TOKYO[:9], index=0)],
        [piece(TOKYO[9:], index=0)],
    ],
    "an empty object first, named twice": [
        [piece("{}", name=TIME, index=0)],
        [piece(TOKYO[:9], name=TIME, index=0)],
        [piece(TOKYO[9:], name=TIME, index=0)],
    ],
    "null first": [[piece("null", name=TIME, index=0, id="a")], [piece(TOKYO, index=0)]],
    "an empty object last": [[piece(TOKYO, name=TIME, index=0, id="a")], [piece("{}", index=0)]],
    "an object": [[piece({"timezone": "Asia/Tokyo"}, name=TIME, index=0, id="a")]],
    "an empty object, then an object": [
        [piece({}, name=TIME, index=0, id="a")],
        [piece({"timezone": "Asia/Tokyo"}, index=0)],
    ],
    "the last piece repeats all": [
        [piece(TOKYO[:9], name=TIME, index=0, id="a")],
        [piece(TOKYO[9:], index=0)],
        [piece(TOKYO, name=TIME, index=0, id="a")],
    ],
    "the last piece repeats all, the others are not all": [
        [piece(TOKYO[:9], name=TIME, index=0, id="a")],
        [piece(TOKYO, index=0)],
    ],
    "each piece repeats all before it": [
        [piece(TOKYO[:9], name=TIME, index=0, id="a")],
        [piece(TOKYO[:15], index=0)],
        [piece(TOKYO, index=0)],
    ],
    "the name in two pieces": [
        [piece(name="current_", index=0, id="a")],
        [piece(name="time", index=0)],
        [piece(TOKYO, index=0)],
    ],
    "the name in each piece": [
        [piece(TOKYO[:9], name=TIME, index=0, id="a")],
        [piece(TOKYO[9:], name=TIME, index=0, id="a")],
    ],
    "the id after the first piece": [[piece(TOKYO[:9], name=TIME, index=0)], [piece(TOKYO[9:], index=0, id="a")]],
    "an id for each piece": [
        [piece(TOKYO[:9], name=TIME, index=0, id="a")],
        [piece(TOKYO[9:], index=0, id="b")],
    ],
    "a line end in the name": [[piece(TOKYO, name="current_time\n", index=0, id="a")]],
    "white space around the arguments": [[piece(f"\n {TOKYO} \n", name=TIME, index=0, id="a")]],
    "nulls": [[piece(TOKYO, name=TIME, index=0, id="a")], [{"index": 0, "id": None, "function": None}]],
}
BAD = {
    "null": "null",
    "a list": "[]",
    "a string": '"Asia/Tokyo"',
    "an object in a string": json.dumps(TOKYO),
    "a number": "7",
    "cut": TOKYO[:12],
    "not JSON": "Asia/Tokyo",
    "NaN": '{"timezone": NaN}',
    "Infinity": '{"timezone": [1e999]}',
    "nested too deep": '{"timezone": ' + "[" * 500 + "]" * 500 + "}",
    "nested much too deep": '{"timezone": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "two objects": TOKYO + BERLIN,
    "too many digits": '{"timezone": ' + "9" * 5000 + "}",
    "a list as JSON": ["Asia/Tokyo"],
    "a number as JSON": 7,
}


@pytest.mark.parametrize("groups", PARALLEL.values(), ids=PARALLEL)
def test_parallel_calls_are_separate(groups: list[list[dict[str, Any]]]) -> None:
    """However the pieces name their call, each has its own arguments, and an id of its own."""
    assert inputs(*groups) == TWO
    first, second = (each[0] for each in called(*groups))
    assert first != second
    assert first
    assert second


@pytest.mark.parametrize("groups", ONE.values(), ids=ONE)
def test_pieces_of_one_call_are_joined(groups: list[list[dict[str, Any]]]) -> None:
    """However its name, id and arguments are cut or repeated, it is called once, with all of its arguments."""
    assert inputs(*groups) == TWO[:1]


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
async def test_tool_does_not_run_with_arguments_that_are_not_an_object(run_turn: RunTurn, arguments: Any) -> None:
    """The model sees an error and its own arguments, and answers; the history can be sent again."""
    outcome = await run_turn(tool_call_stream([piece(arguments, name=TIME, index=0, id="a")]), ANSWER)

    (ended,) = [each.tool_call_finished for each in outcome.turn.responses if each.HasField("tool_call_finished")]
    assert ended.status == session_pb.TOOL_CALL_STATUS_ERROR
    assert "not called" in ended.output
    assert outcome.results["a"] == ended.output
    ((_, _, again),) = outcome.calls
    assert input_fault(json.loads(again)) is None
    assert outcome.turn.text == "Done."


@pytest.mark.parametrize("name", ["05_", "05b", "07", "08", "09", "26"])
async def test_case_of_unusual_tool_calls_runs_with_their_arguments(run_turn: RunTurn, name: str) -> None:
    """Each call of a case runs once, and the model gets its result."""
    outcome = await run_turn(case(name), ANSWER)

    ended = [each.tool_call_finished for each in outcome.turn.responses if each.HasField("tool_call_finished")]
    assert {each.status for each in ended} == {session_pb.TOOL_CALL_STATUS_SUCCESS}
    assert len({each.tool_call_id for each in ended}) == len(ended) == case(name).count(b'"name"')
    assert outcome.results.keys() == {each.tool_call_id for each in ended} == {each[0] for each in outcome.calls}
    assert outcome.turn.text == "Done."


@pytest.mark.parametrize("name", ["10", "11", "12"])
async def test_case_of_invalid_arguments_runs_no_tool(run_turn: RunTurn, name: str) -> None:
    """The model gets an error, and answers."""
    outcome = await run_turn(case(name), ANSWER)

    assert "not called" in outcome.results["call_a"]
    assert outcome.turn.text == "Done."


async def test_id_that_conversation_has_is_replaced(run_turn: RunTurn) -> None:
    """Some gateways number the calls of each answer from 0: a provider that requires unique ids gets them."""
    again = tool_call_stream([piece(TOKYO, name=TIME, index=0, id="call_0")])
    outcome = await run_turn(again, again, ANSWER)

    first, second = (each[0] for each in outcome.calls)
    assert (first == "call_0", second == "call_0") == (True, False)
    assert list(outcome.results) == [first, second]


async def test_call_without_name_is_error_result(run_turn: RunTurn) -> None:
    """It is not dropped: the model sees that there is no such tool."""
    outcome = await run_turn(tool_call_stream([piece(TOKYO, index=0, id="a")]), ANSWER)

    assert "Unknown tool" in outcome.results["a"]
    assert outcome.turn.text == "Done."


@pytest.mark.parametrize(
    "invalid", ["\ud83d", "a b", "x" * 300, "ä", 7, ["a"], "\x00", None], ids=lambda value: repr(value)[:8]
)
def test_invalid_id_is_replaced(invalid: Any) -> None:
    """An id that not every provider accepts again is replaced by a new one."""
    ((call_id, name, _),) = called([piece(TOKYO, name=TIME, index=0, id=invalid)])

    assert call_id.isascii()
    assert call_id.startswith("tool_")
    assert name == TIME


@pytest.mark.parametrize(
    "invalid", ["a tool", "\ud83d", "x" * 300, "", " ", 7, None, ["f"]], ids=lambda value: repr(value)[:8]
)
def test_invalid_name_is_sanitized(invalid: Any) -> None:
    """It names no tool, and can be part of the history."""
    call = {"index": 0, "id": "a", "function": {"name": invalid, "arguments": TOKYO}}
    ((_, name, _),) = called([call])

    assert 0 < len(name) <= 64
    assert name.isascii()
    assert not any(each.isspace() for each in name)


def test_number_of_calls_is_bounded() -> None:
    """Calls above the limit are dropped, and `too_many` is set."""
    calls = ToolCalls(AnswerLimits(tool_calls=3))
    for number in range(5):
        calls.add([piece(TOKYO, name=TIME, index=number)])

    assert calls.too_many
    assert len(calls.complete()) == 3


async def test_turn_with_too_many_calls_is_too_large(run_turn: RunTurn) -> None:
    """No tool runs, and the answer is paid."""
    outcome = await run_turn(tool_call_stream(*[[piece(TOKYO, name=TIME, index=number)] for number in range(130)]))

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.reason == "TURN_TOO_LARGE"
    (entry,) = outcome.entries
    assert str(entry.cost) == "0.00012"


def test_arguments_above_limit_are_an_error() -> None:
    """They are dropped, in one piece or in many."""
    limits = AnswerLimits(tool_input_bytes=100)
    for groups in ([[piece("x" * 5000, name=TIME, index=0)]], [[piece("x", name=TIME, index=0)]] * 5000):
        ((_, _, given),) = called(*groups, limits=limits)
        assert "longer than 100 bytes" in given["fault"]


def test_line_ends_in_strings_are_accepted() -> None:
    """Models write them unescaped; the input is valid JSON afterwards."""
    given = tool_input(['{"text": "a\nb"}'], limit=100)

    assert json.loads(given) == {"text": "a\nb"}


@pytest.mark.parametrize("escaped", [r"\ud800", r"\uDC00", r"\ud83d x"])
def test_lone_surrogates_in_arguments_are_replaced(escaped: str) -> None:
    """Escaped or not, in keys or values, the parsed input can be stored and sent."""
    for text in (f'{{"{escaped}": "{escaped}"}}', json.loads(f'"{{\\"a\\": \\"{escaped}\\"}}"')):
        given = tool_input([text], limit=1000)
        assert json.dumps(json.loads(given), ensure_ascii=False).encode()
        assert "fault" not in given


def test_surrogate_pair_in_two_pieces_is_joined() -> None:
    """An emoji in two pieces of the arguments is whole."""
    ((_, given),) = inputs([piece('{"a": "\ud83d', name="f", index=0)], [piece('\ude00"}', index=0)])

    assert given == {"a": "😀"}


@given(
    objects=st.lists(
        st.dictionaries(
            st.text("ab", max_size=2), st.text(max_size=5) | st.integers() | st.lists(st.none()), max_size=3
        ),
        min_size=1,
        max_size=3,
    ),
    cuts=st.lists(st.integers(1, 12), max_size=6),
)
def test_any_cut_of_arguments_gives_same_input(objects: list[dict[str, Any]], cuts: list[int]) -> None:
    """Pieces of parallel calls, cut anywhere, are the objects that the model wrote."""
    groups: list[list[dict[str, Any]]] = []
    for number, value in enumerate(objects):
        text = json.dumps(value, ensure_ascii=False)
        places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
        pieces = [text[start:stop] for start, stop in pairwise(places)]
        groups.append([piece(pieces[0], name="f", index=number, id=f"c{number}")])
        groups += [[piece(each, index=number)] for each in pieces[1:]]

    assert [given for _, given in inputs(*groups)] == [
        json.loads(replace_lone_surrogates(json.dumps(each))) for each in objects
    ]
