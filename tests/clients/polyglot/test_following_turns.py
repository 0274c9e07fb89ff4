"""The turns by which clients in other languages answer actions: what they send, and when: against scripted streams."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from godoty.v1 import action_pb2
from godoty.v1 import agent_service_pb2 as pb

from tests.clients.polyglot.programs import READERS, Language
from tests.clients.polyglot.scripted_turns import (
    TURN,
    Failure,
    Stream,
    action,
    asks,
    finished,
    serving,
    started,
    text,
)

_NEXT = "turn_2"
_LOST = Failure(grpc.StatusCode.UNAVAILABLE)
_FIND: dict[str, Any] = {
    "name": "look_up",
    "description": "Finds an order.",
    "input_schema": '{"type":"object"}',
    "returns": {"pens": 2},
}
_APPROVAL = action("act_2", "refund", kind=action_pb2.ACTION_KIND_APPROVAL)


@pytest.fixture(params=READERS)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language, and Java's reactive stream."""
    return READERS[request.param]


def _output(action_id: str, **output: str) -> action_pb2.ActionResult:
    return action_pb2.ActionResult(action_id=action_id, output=action_pb2.ClientToolOutput(**output))


async def test_answers_are_sent_once_however_often_the_connection_breaks(language: Language) -> None:
    """A lost request with answers is sent again with its id, a lost stream is resumed; text and cost are sums."""
    streams: list[Stream] = [
        [started(), text(2, "a"), _LOST],
        [*asks(action("act_1", input_json='{"number": 2}'), first=3)],
        [_LOST],
        [started(_NEXT), text(2, "b", _NEXT), _LOST],
        [text(2, "b", _NEXT), text(3, "c", _NEXT), finished(4, _NEXT, cost_usd="0.0000000125")],
    ]
    async with serving(language, *streams) as (turns, program):
        result = await program.ask("converse", session_id="talk", text="hi", agent="support", tools=[_FIND])

    first, resumed, answer, again, rest = turns.asked
    assert isinstance(first, pb.ConverseRequest)
    assert [(each.tool_name, each.description, each.input_schema) for each in first.client_tools] == [
        ("look_up", "Finds an order.", '{"type":"object"}')
    ]
    assert resumed == pb.ResumeTurnRequest(turn_id=TURN, after_sequence=2)
    assert isinstance(answer, pb.ConverseRequest)
    assert answer.request_id not in {"", first.request_id}
    assert (
        answer
        == again
        == pb.ConverseRequest(
            session_id="talk",
            request_id=answer.request_id,
            disconnect_grace={"seconds": 30},
            action_results=[_output("act_1", output_json='{"pens":2}')],
        )
    )
    assert rest == pb.ResumeTurnRequest(turn_id=_NEXT, after_sequence=2)
    assert (result.error, result.text, result.done["text"]) == ({}, "abc", "abc")
    assert [each["input"] for each in result.events if each["event"] == "tool_ran"] == [{"number": 2}]
    assert [each.get("sequence") for each in result.events] == [1, 2, 3, 4, None, 1, 2, 3, 4]
    assert (result.done["cost_usd"], result.done["reconnects"]) == ("0.2500000125", 3)
    assert (result.done["turn_id"], result.done["request_id"]) == (_NEXT, first.request_id)


async def test_cost_is_unknown_if_that_of_one_turn_is(language: Language) -> None:
    """A pending or unresolved call of any turn makes it so."""
    unknown: list[tuple[dict[str, Any], dict[str, Any]]] = [({"pending_calls": 1}, {}), ({}, {"unresolved_calls": 1})]
    streams: list[Stream] = []
    for first, last in unknown:
        streams += [[started(), *asks(action("act_1"), **first)], [started(_NEXT), finished(2, _NEXT, **last)]]
    async with serving(language, *streams) as (_, program):
        results = [await program.ask("converse", session_id="talk", text="hi", tools=[_FIND]) for _ in unknown]

    assert [each.done["stop_reason"] for each in results] == ["STOP_REASON_END_TURN"] * 2
    assert [each.done["cost_usd"] for each in results] == [None, None]


async def test_many_answers_are_sent_in_several_requests(language: Language) -> None:
    """At most 16, and at most 128 KiB; each tool has run once. A result of more than 64 KiB is cut."""
    actions = [action(f"act_{number}") for number in range(18)]
    large = [action(f"big_{number}", "read") for number in range(3)]
    streams: list[Stream] = [
        [started(), *asks(*actions)],
        [started(_NEXT), *asks(*actions[16:], turn_id=_NEXT)],
        [started("turn_3"), *asks(*large, turn_id="turn_3")],
        [started("turn_4"), *asks(*large[1:], turn_id="turn_4")],
        [started("turn_5"), *asks(*large[2:], turn_id="turn_5")],
        [started("turn_6"), finished(2, "turn_6")],
    ]
    tools = [_FIND, {**_FIND, "name": "read", "returns": "ä" * 100_000}]
    async with serving(language, *streams) as (turns, program):
        result = await program.ask("converse", session_id="talk", text="hi", tools=tools)

    assert (result.error, result.done["cost_usd"]) == ({}, "1.5")
    assert len([each for each in result.events if each["event"] == "tool_ran"]) == 21
    sent = [each.action_results for each in turns.asked[1:] if isinstance(each, pb.ConverseRequest)]
    assert [[each.action_id for each in results] for results in sent] == [
        [f"act_{number}" for number in range(16)],
        ["act_16", "act_17"],
        ["big_0"],
        ["big_1"],
        ["big_2"],
    ]
    (cut,) = sent[-1]
    assert 65_500 < len(cut.output.output_text.encode()) <= 65_536
    assert cut.output.output_text.startswith("ää")
    assert cut.output.output_text.endswith("ä […]")


async def test_turn_that_is_left_while_a_tool_runs_sends_nothing_more(language: Language) -> None:
    """The tool's wait ends with the turn's deadline; the turn of the server has ended already."""
    tools = [{**_FIND, "sleep_ms": 150_000}]
    async with serving(language, [started(), *asks(action("act_1"))]) as (turns, program):
        asking = program.ask("converse", session_id="talk", text="hi", tools=tools, timeout_ms=1500)
        result = await asyncio.wait_for(asking, 180)

    assert result.error["code"] == 4
    assert result.events[-1]["event"] == "tool_ran"
    assert len(turns.asked) == 1


async def test_failed_approval_leaves_the_actions_open(language: Language) -> None:
    """Before any tool has run: the caller gets the error of its function, and the server nothing."""
    async with serving(language, [started(), *asks(action("act_1"), _APPROVAL)]) as (turns, program):
        result = await program.ask(
            "converse", session_id="talk", text="hi", tools=[_FIND], approval={"fail": "no one was there"}
        )

    assert "no one was there" in result.error["text"]
    assert [each["event"] for each in result.events[-2:]] == ["turn_finished", "approval_asked"]
    assert len(turns.asked) == 1


async def test_answered_action_is_not_answered_again(language: Language) -> None:
    """Should the server ask again, the turn ends with it; so it does with one that the approval leaves open."""
    streams: list[Stream] = [
        [started(), *asks(action("act_1"), _APPROVAL)],
        [started(_NEXT), *asks(action("act_1"), _APPROVAL, turn_id=_NEXT)],
    ]
    async with serving(language, *streams) as (turns, program):
        result = await program.ask("converse", session_id="talk", text="hi", tools=[_FIND], approval={})

    assert [type(each) for each in turns.asked] == [pb.ConverseRequest] * 2
    assert result.done["stop_reason"] == "STOP_REASON_ACTION_REQUIRED"
    assert [each["action_id"] for each in result.done["actions"]] == ["act_1", "act_2"]
    assert [each["event"] for each in result.events].count("approval_asked") == 1
