"""The sandbox answers by a schema: validly, or not, on demand."""

import json
from typing import Any

import jsonschema
import pytest

from openrouter_sandbox.answers.answer_generator import generate_answer
from openrouter_sandbox.conversation import Conversation
from openrouter_sandbox.scenarios.scenario import Scenario
from tests.support.output_schemas import SCHEMAS, closed


def native(schema: Any) -> Conversation:
    """Return a request with a `response_format`."""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return Conversation({"model": "a", "messages": [{"role": "user", "content": "hi"}], "response_format": form})


def by_tool(schema: Any, *, results: int = 0) -> Conversation:
    """Return a request with two tools, of which the last takes the answer."""
    tools = [{"function": {"name": "other"}}, {"function": {"name": "final", "parameters": schema}}]
    result = {"role": "tool", "tool_call_id": "a", "content": "no"}
    messages = [{"role": "user", "content": "hi"}, *[result] * results]
    return Conversation({"model": "a", "messages": messages, "tools": tools, "tool_choice": "required"})


@pytest.mark.parametrize("name", SCHEMAS)
def test_both_forms_are_answered_validly_and_wrongly(name: str) -> None:
    """`wrong=1` concerns the first answer; roots that are no objects are wrapped by who asks."""
    schema = closed(value=SCHEMAS[name]) if "$" not in json.dumps(SCHEMAS[name]) else SCHEMAS[name]
    validator = jsonschema.Draft202012Validator(schema)
    wrong = Scenario.create("default", {"wrong": 1})

    for scenario, expected in ((Scenario(), True), (wrong, False)):
        text = "".join(piece.text for piece in generate_answer(native(schema), scenario).pieces)
        assert validator.is_valid(json.loads(text)) is expected
    (call,) = generate_answer(by_tool(schema), Scenario()).tool_calls
    assert call.name == "final"


def test_wrong_inputs_are_counted_by_the_results() -> None:
    """The third answer is valid after two that were not."""
    schema = closed(a={"type": "integer"})
    scenario = Scenario.create("default", {"wrong": 2})
    valid = []
    for results in range(3):
        (call,) = generate_answer(by_tool(schema, results=results), scenario).tool_calls
        valid.append(jsonschema.Draft202012Validator(schema).is_valid(json.loads(call.arguments)))

    assert valid == [False, False, True]
