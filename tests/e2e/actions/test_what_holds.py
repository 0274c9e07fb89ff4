"""What holds across an answer: the answering turn goes on as the asking one began, and its limits count for both."""

from __future__ import annotations

from typing import Any

import pytest
from godoty.v1 import turn_pb2

from tests.e2e.actions.conftest import ACTION_REQUIRED, ALWAYS, APPROVE, END_TURN, Asker, asked, calls

CALCULATE = '{"expression": "6 * 7"}'
OTHER = "openai/gpt-4o"


async def test_version_model_parameters_and_variables_are_those_of_the_question(asker: Asker) -> None:
    """Although the agent has a newer version, and the answering request names none of them."""
    await asker.agent({"builtin": "calculator", **ALWAYS}, system_prompt="Hello {{variables.name}}, {{user}}.")
    given: dict[str, Any] = {
        "model": OTHER,
        "parameters": {"temperature": 0.5},
        "variables": {"name": "Ann"},
        "user": "ann",
    }
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE), **given))
    await asker.agent("current_time", system_prompt="Another one.")
    turn = await asker.answer((action, APPROVE))

    assert turn.finished.stop_reason == END_TURN
    assert (turn.started.agent, turn.started.agent_version) == ("support", 1)
    asking, going = asker.requests()
    for name in ("model", "temperature", "tools"):
        assert asking[name] == going[name]
    assert asking["messages"][0] == going["messages"][0]
    assert [each.requested_model for each in asker.service.entries("talk")] == [OTHER, OTHER]
    follow = await asker.ask("and now?")
    assert follow.started.agent_version == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "openai/gpt-4o-mini"),
        ("parameters", {"temperature": 1.0}),
        ("variables", {"name": "Bob"}),
        ("limits.max_model_calls", {"max_model_calls": 7}),
        ("output_schema", '{"type": "object"}'),
        ("text", "hi"),
    ],
)
async def test_another_value_is_refused_and_nothing_is_decided(asker: Asker, field: str, value: Any) -> None:
    """The error names the field; the same value as in the question is taken."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    limits = {"max_model_calls": 5}
    first = await asker.ask(calls("calculator", arguments=CALCULATE), model=OTHER, limits=limits)
    (action,) = asked(first)
    turn = await asker.answer((action, APPROVE), **{field.partition(".")[0]: value})

    assert turn.failure is not None
    assert turn.failure.fields.keys() == {field}
    same = await asker.answer((action, APPROVE), model=OTHER, limits=limits)
    assert same.finished.stop_reason == END_TURN


async def test_model_calls_count_across_the_answer(asker: Asker) -> None:
    """Of two, one was used by the asking turn; after the second one the turn ends."""
    await asker.agent({"builtin": "calculator", **ALWAYS}, limits={"max_model_calls": 2})
    first = await asker.ask(calls("calculator", times=9, arguments=CALCULATE))
    assert first.finished.stop_reason == ACTION_REQUIRED
    second = await asker.answer((asked(first)[0], APPROVE))
    assert second.finished.stop_reason == ACTION_REQUIRED
    third = await asker.answer((asked(second)[0], APPROVE))

    assert third.finished.stop_reason == turn_pb2.STOP_REASON_MAX_MODEL_CALLS
    assert third.finished.turn_totals.model_calls == 0
    assert len(asker.service.entries("talk")) == 2


async def test_output_schema_is_that_of_the_question(asker: Asker) -> None:
    """The answering turn ends with a value."""
    schema = '{"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}'
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE), output_schema=schema))
    turn = await asker.answer((action, APPROVE))

    assert turn.finished.stop_reason == END_TURN
    assert "sum" in turn.finished.output_json
