"""Definitions in YAML files: their form, and the schema that editors check it by."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from godoty.v1 import agent_pb2 as pb

from godoty_service.agents.output.schema import OutputSchema
from godoty_service.agents.tools.registry import built_in_tools
from godoty_service.cli.agents.files import read_definitions, to_yaml
from godoty_service.clock import utc_now
from godoty_service.rpc.agents.codec import parse_application
from tests.e2e.agents.test_definitions import WHOLE

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples" / "agents").glob("*.yaml"))
SCHEMA = jsonschema.Draft7Validator(json.loads((ROOT / "docs" / "agent.schema.json").read_text()))
TEXT = """
name: support
description: Answers questions about orders.
system_prompt: |
  Today is {{today}}, {{user}}.

  Plan: {{ variables.plan }}.
model: openai/gpt-4o-mini
fallback_models: [openai/gpt-4o]
parameters:
  temperature: 0
  reasoning: {effort: none}
  seed: 9007199254740993
  stop: [END]
  provider: {order: [OpenAI], max_price: {prompt: 1.5}, preferred_min_throughput: 2.5}
tools: [calculator, {builtin: current_time}]
limits: {max_model_calls: 3, max_cost_usd: "0.05"}
history: {messages: 12, mode: summary}
overridable: [model]
output_schema:
  type: object
  properties:
    é: {maximum: 1.5, const: "2026-01-01"}
  required: [é]
web_search: {engine: exa, max_uses: 2, allowed_domains: [example.com]}
web_fetch: {}
"""


def written(path: Path, text: str) -> Path:
    """Write a file."""
    path.write_text(text)
    return path


def test_file_is_the_definition_that_it_says(tmp_path: Path) -> None:
    """The short forms of tools, overridable fields, routing and enum values stand for those of the message."""
    (found,) = read_definitions(written(tmp_path / "a.yaml", TEXT))

    assert found == pb.AgentDefinition(
        name="support",
        description="Answers questions about orders.",
        system_prompt="Today is {{today}}, {{user}}.\n\nPlan: {{ variables.plan }}.\n",
        model="openai/gpt-4o-mini",
        fallback_models=["openai/gpt-4o"],
        parameters={
            "temperature": 0.0,
            "reasoning": {"effort": "REASONING_EFFORT_NONE"},
            "seed": 9007199254740993,
            "stop": ["END"],
            "provider_json": '{"max_price": {"prompt": "1.5"}, "order": ["OpenAI"], "preferred_min_throughput": 2.5}',
        },
        tools=[{"builtin": "calculator"}, {"builtin": "current_time"}],
        limits={"max_model_calls": 3, "max_cost_usd": "0.05"},
        history={"messages": 12, "mode": "HISTORY_MODE_SUMMARY"},
        overridable={"fields": ["AGENT_OVERRIDE_MODEL"]},
        output_schema='{"type":"object","properties":{"é":{"maximum":1.5,"const":"2026-01-01"}},"required":["é"]}',
        web_search={"engine": "WEB_SEARCH_ENGINE_EXA", "max_uses": 2, "allowed_domains": ["example.com"]},
        web_fetch={},
    )


@pytest.mark.parametrize(
    "definition",
    [
        pb.AgentDefinition(name="support", **WHOLE),
        pb.AgentDefinition(name="a"),
        pb.AgentDefinition(name="a", overridable={}, parameters={}, history={}, limits={}),
        pb.AgentDefinition(
            name="a", system_prompt=" #: é\n\ttab \n\n", description="on", parameters={"temperature": 1e-7}
        ),
    ],
)
def test_definition_survives_its_yaml(tmp_path: Path, definition: pb.AgentDefinition) -> None:
    """What `godoty agent show` prints, `apply` reads; the schema accepts it."""
    text = to_yaml(definition)
    (found,) = read_definitions(written(tmp_path / "a.yaml", text))

    assert found == definition
    SCHEMA.validate(yaml.safe_load(text))


def test_file_may_have_several_definitions(tmp_path: Path) -> None:
    """Three dashes separate them; an empty document is none."""
    path = written(tmp_path / "a.yaml", "---\nname: a\n---\n---\nname: b\n")

    assert [each.name for each in read_definitions(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no definition"),
        ("- a", "must be a mapping"),
        ("name: [", "is not YAML"),
        ("name: a\nweb_search: true", "web_search"),
        ("name: a\noutput_schema: [1]", "output_schema"),
        ("name: a\noutput_schema: {const: 2026-01-01}", "date"),
        ("name: a\ntools: [{client: x}]", "client"),
        ("name: 1", "name"),
        ("name: a\nlimits: {max_cost_usd: 0.05}", "max_cost_usd"),
        ("name: a\nhistory: {mode: endless}", "mode"),
        ("name: a\nparameters: {temperature: warm}", "temperature"),
        ("name: a\n1: 2", "1"),
        ("name: a\nparameters: {provider: {unknown: 1}}", "unknown"),
        ("a: &a [x]\nname: *a", "aliases"),
        ("name: a\nname: b", "the key name is there twice"),
        ("name: a\nlimits: {max_model_calls: 1, max_model_calls: 2}", "the key max_model_calls is there twice"),
        ("name: " + "[" * 5000, "is not YAML"),
        ("name: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("name: a # " + "x" * 1024 * 1024, "at most"),
    ],
)
def test_what_a_definition_has_not_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The error names the file and the field."""
    path = written(tmp_path / "a.yaml", text)
    with pytest.raises(ValueError, match=r"a\.yaml: ") as caught:
        read_definitions(path)

    assert words in str(caught.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_are_valid(path: Path) -> None:
    """By the schema, and by the checks of the server."""
    for document in yaml.safe_load_all(path.read_text()):
        SCHEMA.validate(document)
    for definition in read_definitions(path):
        assert not definition.output_schema or OutputSchema.parse(definition.output_schema)
        request: Any = type("Request", (), {"definition": definition, "HasField": lambda _, __: True})()
        assert parse_application(request, catalogue=None, tools=built_in_tools(clock=utc_now).keys()).name


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": "A"},
        {"name": "a", "web_search": True},
        {"name": "a", "tools": ["no_such_tool"]},
        {"name": "a", "tools": [{}]},
        {"name": "a", "parameters": {"temperature": 3}},
        {"name": "a", "history": {"mode": "endless"}},
        {"name": "a", "overridable": ["tools"]},
    ],
)
def test_schema_refuses_what_the_server_does(document: Any) -> None:
    """An editor shows it before it is applied."""
    assert not SCHEMA.is_valid(document)
