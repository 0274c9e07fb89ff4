"""Turns with an output schema: an exact value or OUTPUT_INVALID, both ways, metered, and replayed."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from godoty.v1 import agent_pb2, turn_pb2
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.cli.agents.files import read_definitions
from godoty_service.ledger.entries import CallPurpose
from tests.e2e.agents.conftest import INVALID, Definer, refused
from tests.e2e.turns.streams import joined, resume
from tests.support.caller import Caller, Turn, read
from tests.support.output_schemas import HOSTILE, SCHEMAS, closed
from tests.support.service import soon

NATIVE = "openai/gpt-4o-mini"  # has `structured_outputs`
TOOLS = "z-ai/glm-5.3"  # has tools, and no `structured_outputs`
NEITHER = "minimax/minimax-m2-her"
FLAT = json.dumps(SCHEMAS["flat"])
EXAMPLE = Path(__file__).parents[3] / "examples" / "agents" / "extractor.yaml"
END, INVALID_OUTPUT = turn_pb2.STOP_REASON_END_TURN, turn_pb2.STOP_REASON_OUTPUT_INVALID
BUDGET, CUT = turn_pb2.STOP_REASON_BUDGET, turn_pb2.STOP_REASON_MAX_OUTPUT_TOKENS
AGENT, RETRY = CallPurpose.AGENT, CallPurpose.STRUCTURED_OUTPUT
each_way = pytest.mark.parametrize("model", [NATIVE, TOOLS], ids=["native", "tool"])

Queue = Callable[..., None]


@pytest.fixture
def queue(caller: Caller) -> Queue:
    """Queues a scenario for the next requests without a directive."""
    backends = caller.service.backends

    def add(directive: str, *, repeat: int = 1, **parameters: str) -> None:
        name, *_ = directive.removeprefix("@sandbox ").split()
        given = dict(each.split("=", 1) for each in directive.split()[2:]) | parameters
        spec = {"scenario": name, "params": given, "repeat": repeat}
        backends.ask(lambda: backends.sandbox.scenarios.add(spec))

    backends.ask(backends.sandbox.scenarios.clear)
    return add


async def answered(caller: Caller, schema: Any, *, model: str, session_id: str = "talk", **fields: Any) -> Turn:
    """Run a turn with a schema."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return await caller.converse("hello", session_id=session_id, model=model, output_schema=text, **fields)


def purposes(caller: Caller, session_id: str = "talk") -> list[CallPurpose | None]:
    """Return what a session's calls were for."""
    return [each.purpose for each in caller.service.entries(session_id)]


async def texts(caller: Caller, session_id: str = "talk") -> list[str]:
    """Return the texts of a session's messages."""
    return ["".join(block.text for block in each.content) for each in await caller.messages(session_id)]


async def turn_of(caller: Caller, turn: Turn) -> turn_pb2.Turn:
    """Return a turn as GetTurn does."""
    found: turn_pb2.Turn = (await caller.call("GetTurn", pb.GetTurnRequest(turn_id=turn.responses[0].turn_id))).turn
    return found


@each_way
async def test_every_schema_is_answered_though_the_model_is_wrong_first(
    caller: Caller, queue: Queue, model: str
) -> None:
    """The first answer to each of thirty schemas is invalid, the second one is the value."""
    for number, (name, schema) in enumerate(SCHEMAS.items()):
        session_id = f"s{number}"
        queue("@sandbox default wrong=1")
        turn = await answered(caller, schema, model=model, session_id=session_id)
        value = json.loads(turn.finished.output_json)

        assert turn.finished.stop_reason == END, name
        assert jsonschema.Draft202012Validator(schema).is_valid(value), name
        assert purposes(caller, session_id) == [AGENT, RETRY], name
        assert turn.text == turn.finished.output_json, name
        assert await texts(caller, session_id) == ["hello", turn.finished.output_json], name


@each_way
async def test_model_that_is_never_right_ends_the_turn(caller: Caller, queue: Queue, model: str) -> None:
    """After three answers: no value, none of their text, and each of them paid for."""
    queue("@sandbox default wrong=9", repeat=3)
    turn = await answered(caller, FLAT, model=model)

    assert turn.finished.stop_reason == INVALID_OUTPUT
    assert not turn.finished.HasField("output_json")
    assert turn.text == ""
    assert "tool_call_started" not in turn.kinds
    assert purposes(caller) == [AGENT, RETRY, RETRY]
    assert turn.finished.turn_totals.model_calls == 3
    assert Decimal(turn.finished.turn_totals.cost_usd) == caller.service.invoiced("talk")
    assert await texts(caller) == ["hello", "[The turn ended here: no answer was valid by the output schema.]"]
    shown = await turn_of(caller, turn)
    assert (shown.stop_reason, shown.HasField("output_json")) == (INVALID_OUTPUT, False)


async def test_provider_gets_the_schema_in_its_own_form(caller: Caller) -> None:
    """With the demand that the endpoint enforces it; strictly, if the schema is one that it can enforce."""
    await answered(caller, FLAT, model=NATIVE)
    await answered(caller, SCHEMAS["one of at the root"], model=NATIVE, session_id="other")
    (first,), (second,) = caller.service.requests("talk"), caller.service.requests("other")

    assert first["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": SCHEMAS["flat"]},
    }
    assert first["provider"] == {"require_parameters": True}
    assert "tool_choice" not in first
    assert "final_answer" not in str(first.get("tools"))
    assert second["response_format"]["json_schema"]["strict"] is False
    assert second["response_format"]["json_schema"]["schema"] == closed(value=SCHEMAS["one of at the root"])


async def test_tool_gets_the_original_schema(caller: Caller) -> None:
    """It is the last of the tools, of which the model must call one; a model that reasons may choose."""
    await answered(caller, SCHEMAS["recursive"], model=TOOLS)
    reasoning = {"reasoning": {"effort": "REASONING_EFFORT_LOW"}}
    await answered(caller, FLAT, model=TOOLS, session_id="other", parameters=reasoning)
    (first,), (second, *_) = caller.service.requests("talk"), caller.service.requests("other")

    (function,) = [each["function"] for each in first["tools"][-1:]]
    assert (function["name"], function["parameters"]) == ("final_answer", SCHEMAS["recursive"])
    assert first["tool_choice"] == "required"
    assert "response_format" not in first
    assert second.get("tool_choice", "auto") == "auto"


@each_way
async def test_model_reads_what_was_wrong(caller: Caller, queue: Queue, model: str) -> None:
    """With its own answer before it, in messages that any provider accepts."""
    queue("@sandbox default wrong=1")
    await answered(caller, FLAT, model=model)
    before, after = caller.service.requests("talk")

    assert after["messages"][: len(before["messages"])] == before["messages"]
    answer, correction = after["messages"][len(before["messages"]) :]
    assert (answer["role"], correction["role"]) == ("assistant", "user" if model == NATIVE else "tool")
    assert "required property" in str(correction["content"])


@each_way
async def test_numbers_are_those_of_the_model(caller: Caller, queue: Queue, model: str) -> None:
    """Also beyond a float's precision, in the stream, the messages and the replay."""
    value = '{"a":12345678901234567890.10,"b":[0.1000000000000000000055,1e2]}'
    schema = closed(a={"type": "number"}, b={"type": "array", "items": {"type": "number"}})
    queue("@sandbox default", text=value, input=value)
    turn = await answered(caller, schema, model=model)

    assert turn.finished.output_json == value
    assert turn.text == value
    assert (await texts(caller))[-1] == value
    assert (await turn_of(caller, turn)).output_json == value


@each_way
async def test_replay_has_the_same_value(caller: Caller, queue: Queue, model: str) -> None:
    """ResumeTurn, GetTurn, and the same request again; a list of turns leaves it out."""
    queue("@sandbox default wrong=1")
    turn = await answered(caller, FLAT, model=model, request_id="once")
    turn_id = turn.responses[0].turn_id
    again = await answered(caller, FLAT, model=model, request_id="once")
    stored = caller.service.database["turn_logs"]
    await soon(lambda: stored.find_one({"turn_id": turn_id, "ended": True}))

    assert turn.finished.output_json
    assert joined(again.responses) == joined(turn.responses) == joined((await resume(caller, turn_id)).responses)
    assert (await turn_of(caller, turn)).output_json == turn.finished.output_json
    (listed,) = (await caller.call("ListTurns", pb.ListTurnsRequest(session_id="talk"))).turns
    assert (listed.stop_reason, listed.HasField("output_json")) == (END, False)
    reused = await answered(caller, SCHEMAS["nested"], model=model, request_id="once")
    assert reused.failure is not None
    assert reused.failure.reason == "REQUEST_ID_REUSED"


async def test_conversation_goes_on_with_any_model(caller: Caller, queue: Queue) -> None:
    """Without the schema, the tool or the failed answers: what is kept is one text for each side."""
    queue("@sandbox reasoning wrong=1 reasoning=2 encrypted=1")
    first = await answered(caller, FLAT, model=TOOLS)
    await caller.converse("and now?", model="anthropic/claude-haiku-4.5")
    await caller.converse("and here?", model=NATIVE)
    second, third = caller.service.requests("talk")[-2:]

    for request in (second, third):
        assert not {"tool_choice", "response_format"} & request.keys()
        assert "final_answer" not in str(request)
        assert all("tool_calls" not in each and each["role"] != "tool" for each in request["messages"])
    (answer,) = [each["content"] for each in second["messages"] if each["role"] == "assistant"]
    assert first.finished.output_json in (answer if isinstance(answer, str) else answer[0]["text"])


@each_way
async def test_agent_uses_its_tools_before_it_answers(definer: Definer, caller: Caller, model: str) -> None:
    """Their calls are events as ever; the tool for the answer is none of them."""
    await definer.apply(tools=[{"builtin": "calculator"}], output_schema=json.dumps(closed(sum={"type": "integer"})))
    turn = await caller.converse("What is 12 * 13?", agent="support", model=model)
    requests = caller.service.requests("talk")

    assert turn.finished.stop_reason == END
    assert list(json.loads(turn.finished.output_json)) == ["sum"]
    assert [each.name for each in turn.finished.tools] == ["calculator"]
    offered = ["calculator"] if model == NATIVE else ["calculator", "final_answer"]
    assert [[tool["function"]["name"] for tool in each["tools"]] for each in requests] == [offered] * 2
    assert purposes(caller) == [AGENT, AGENT]
    kinds = [each.WhichOneof("event") for each in turn.responses]
    assert kinds[-3:] == ["text_delta", "model_call_finished", "turn_finished"]


async def test_premature_answer_waits_for_the_tools(definer: Definer, caller: Caller, queue: Queue) -> None:
    """An answer beside calls of other tools is not one yet: the model has not seen their results."""
    await definer.apply(tools=[{"builtin": "current_time"}], output_schema=FLAT)
    queue("@sandbox tool-loop calls=2 parallel=2")
    turn = await caller.converse("hello", agent="support", model=TOOLS)

    assert turn.finished.stop_reason == END
    assert [each.name for each in turn.finished.tools] == ["current_time"]
    (before, after) = caller.service.requests("talk")
    assert len(after["messages"]) == len(before["messages"]) + 2


async def test_provider_that_refuses_the_form_gets_the_tool(caller: Caller, queue: Queue) -> None:
    """Providers enforce only some of JSON Schema. What was refused cost nothing, and is no try."""
    queue("@sandbox error-before status=400")
    turn = await answered(caller, SCHEMAS["all of"], model=NATIVE, limits={"max_model_calls": 1})
    first, second = caller.service.requests("talk")

    assert turn.finished.stop_reason == END
    assert ("response_format" in first, "response_format" in second) == (True, False)
    assert second["tools"][-1]["function"]["name"] == "final_answer"
    assert purposes(caller) == [AGENT, AGENT]
    assert Decimal(turn.finished.turn_totals.cost_usd) == caller.service.invoiced("talk")


@each_way
async def test_tries_count_for_the_turns_limits(caller: Caller, queue: Queue, model: str) -> None:
    """Model calls, and output tokens: a turn that has none left ends by its limit, without a value."""
    queue("@sandbox default wrong=9", repeat=2)
    calls = await answered(caller, FLAT, model=model, limits={"max_model_calls": 2})
    queue("@sandbox default wrong=9", repeat=3)
    tokens = await answered(caller, FLAT, model=model, session_id="other", limits={"max_output_tokens": 1})

    assert calls.finished.stop_reason == turn_pb2.STOP_REASON_MAX_MODEL_CALLS
    assert purposes(caller) == [AGENT, RETRY]
    assert tokens.finished.stop_reason == CUT
    assert [each.finished.HasField("output_json") for each in (calls, tokens)] == [False, False]


async def test_amount_that_is_spent_ends_the_tries(caller: Caller, queue: Queue) -> None:
    """Each try reserves its bound; one that does not fit is not made."""
    queue("@sandbox reasoning wrong=9 reasoning=900", repeat=3)
    turn = await answered(caller, FLAT, model=NATIVE, limits={"max_cost_usd": "0.0012"})

    assert turn.finished.stop_reason == BUDGET
    assert not turn.finished.HasField("output_json")
    assert purposes(caller) == [AGENT]
    assert caller.service.invoiced("talk") <= Decimal("0.0012")


@each_way
async def test_cancel_ends_a_try(caller: Caller, queue: Queue, model: str) -> None:
    """While the second answer arrives; nothing of either is kept."""
    queue("@sandbox default wrong=9")
    queue("@sandbox default wrong=9 hold_after=1 hold=try")
    stream = caller.start("hello", model=model, output_schema=FLAT)
    await soon(lambda: [each for each in caller.service.entries("talk") if each.generation_id][1:])
    (event, *_) = [await anext(stream)]
    await caller.call("CancelTurn", pb.CancelTurnRequest(turn_id=event.turn_id))
    turn = await read(stream)

    assert turn.failure is not None
    assert turn.failure.reason == "TURN_CANCELLED"
    assert purposes(caller) == [AGENT, RETRY]
    assert (await texts(caller))[-1] == "[The answer was interrupted.]"
    assert (await caller.converse("hello", model=model)).finished.stop_reason == END


@each_way
async def test_answer_that_is_cut_is_shown_as_it_is(caller: Caller, queue: Queue, model: str) -> None:
    """It is no try: the limit would cut the next one as well."""
    queue("@sandbox default", text='{"name": "a long text', input='{"name": "a long text')
    turn = await answered(caller, FLAT, model=model, parameters={"max_output_tokens": 2})

    assert turn.finished.stop_reason == CUT
    assert not turn.finished.HasField("output_json")
    assert purposes(caller) == [AGENT]
    assert turn.text.startswith('{"name"')


async def test_model_that_answers_with_text_is_asked_for_the_tool(caller: Caller, queue: Queue) -> None:
    """A text that is the value is taken, too: a provider may ignore that a tool must be called."""
    queue("@sandbox plain", text="I would say 7.", finish="stop")
    queue("@sandbox plain", text='```json\n{"name": "a", "age": 7}\n```')
    reasoning = {"reasoning": {"effort": "REASONING_EFFORT_LOW"}}
    turn = await answered(caller, FLAT, model=TOOLS, parameters=reasoning)

    assert turn.finished.stop_reason == END
    assert "I would say" not in turn.text
    assert purposes(caller)[:2] == [AGENT, RETRY]


async def test_request_replaces_the_definitions_schema(definer: Definer, caller: Caller) -> None:
    """Unless the definition does not let it."""
    await definer.apply(output_schema=FLAT)
    own = await caller.converse("hello", agent="support")
    other = await caller.converse("hello", agent="support", output_schema=json.dumps({"type": "boolean"}))
    await definer.apply(output_schema=FLAT, overridable={"fields": ["AGENT_OVERRIDE_MODEL"]})
    failure = refused(await caller.converse("hello", agent="support", output_schema="{}"))

    assert list(json.loads(own.finished.output_json)) == ["name", "age"]
    assert other.finished.output_json == "true"
    assert list(failure.fields) == ["output_schema"]


async def test_definition_returns_its_schema(definer: Definer) -> None:
    """As compact JSON; other white space is the same version, another order of members is not."""
    first = await definer.apply(output_schema=json.dumps(SCHEMAS["flat"], indent=2))
    same = await definer.apply(output_schema=FLAT)
    other = await definer.apply(output_schema=json.dumps(SCHEMAS["flat"], sort_keys=True))
    found = await definer.get("support@1")

    versions = [each.agent_version.version for each in (first, same, other)]
    assert versions == [1, 1, 2]
    assert json.loads(found.definition.output_schema) == SCHEMAS["flat"]
    assert not found.definition.HasField("overridable")


async def test_overridable_fields_are_kept(definer: Definer) -> None:
    """With the schema among them or without, as they were applied."""
    names = ["AGENT_OVERRIDE_MODEL", "AGENT_OVERRIDE_FALLBACK_MODELS", "AGENT_OVERRIDE_PARAMETERS"]
    for fields in (names, names[:1], [*names[:1], "AGENT_OVERRIDE_OUTPUT_SCHEMA"], []):
        await definer.apply(overridable={"fields": fields})
        found = (await definer.get()).definition.overridable.fields
        assert {agent_pb2.AgentOverride.Name(each) for each in found} == set(fields)


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_schema_is_refused(definer: Definer, caller: Caller, name: str) -> None:
    """In a request and in a definition, by the name of its field; nothing begins."""
    make, part = HOSTILE[name]
    failure = refused(await caller.converse("hello", output_schema=make()))

    assert (failure.code, list(failure.fields)) == (INVALID, ["output_schema"])
    assert part in failure.fields["output_schema"]
    assert caller.service.session("talk") is None


async def test_sub_agent_gives_its_value(definer: Definer, caller: Caller, queue: Queue) -> None:
    """As the result of its tool; its failure is an error that the calling model sees."""
    await definer.apply("expert", output_schema=FLAT)
    tool = {"agent": {"agent": "expert", "description": "Knows."}}
    await definer.apply("support", tools=[tool])
    asks = '@sandbox tool-loop calls=2 tool=agent_expert input=\'{"task": "Say it."}\''
    good = await caller.converse(asks, agent="support")
    queue("@sandbox default wrong=9", repeat=3)
    bad = await caller.converse(asks, agent="support", session_id="other")

    (result,), (error,) = (
        [each.tool_call_finished.output for each in turn.responses if each.HasField("tool_call_finished")]
        for turn in (good, bad)
    )
    assert list(json.loads(result)) == ["name", "age"]
    assert "gave no answer" in error
    assert not good.finished.HasField("output_json")
    assert [each.purpose for each in caller.service.entries("other")][1:4] == [CallPurpose.SUB_AGENT, RETRY, RETRY]


async def test_extractor_of_the_examples_reads_an_invoice(definer: Definer, caller: Caller) -> None:
    """As its file has it, which is a valid schema of what it returns."""
    (definition,) = read_definitions(EXAMPLE)
    await definer.call("ApplyAgent", definition=definition)
    turn = await caller.converse("Invoice of Acme, 3 chairs: 150.00 EUR", agent="extractor")

    assert turn.finished.stop_reason == END
    assert jsonschema.Draft202012Validator(json.loads(definition.output_schema)).is_valid(json.loads(turn.text))


async def test_model_that_can_do_neither_is_refused(caller: Caller) -> None:
    """Before anything is sent; without a schema it answers."""
    failure = refused(await answered(caller, FLAT, model=NEITHER))

    assert (failure.code, list(failure.fields)) == (INVALID, ["model"])
    assert caller.service.session("talk") is None
    assert (await caller.converse("hello", model=NEITHER)).finished.stop_reason == END
