"""Turns of a tenant's agents: what the model gets of a definition, and what a request may set in place of it."""

import json
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from openrouter_sandbox.conversation import Conversation
from openrouter_sandbox.strictness import check_messages
from tests.e2e.agents.conftest import INVALID, NOT_FOUND, Definer, prompt_of, refused
from tests.support.caller import Caller

MODEL, OTHER = "openai/gpt-4o-mini", "openai/gpt-4o"


async def test_turn_takes_the_definition(definer: Definer, caller: Caller) -> None:
    """Prompt, model, tools and parameters reach the provider; events, entries, turn and session name the version."""
    await definer.apply(
        system_prompt="You are kind.",
        prompt_caching=True,
        model=OTHER,
        tools=[{"builtin": "current_time"}],
        parameters={
            "temperature": 0.0,
            "top_p": 0.5,
            "max_output_tokens": 77,
            "reasoning": {"effort": "REASONING_EFFORT_LOW"},
            "seed": 0,
            "stop": ["END"],
            "provider_json": '{"order": ["OpenAI"], "require_parameters": true}',
        },
    )
    turn = await caller.converse("hello", agent="support")
    (request,) = caller.service.requests("talk")

    assert (turn.started.agent, turn.started.agent_version) == ("support", 1)
    assert prompt_of(request) == "You are kind."
    assert request["model"] == OTHER
    assert [each["function"]["name"] for each in request["tools"]] == ["current_time"]
    names = ("temperature", "top_p", "max_tokens", "reasoning", "seed", "stop", "provider", "cache_control")
    assert {name: request[name] for name in names} == {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 77,
        "reasoning": {"effort": "low"},
        "seed": 0,
        "stop": ["END"],
        "provider": {"order": ["OpenAI"], "require_parameters": True},
        "cache_control": {"type": "ephemeral"},
    }
    assert [(each.agent, each.agent_version) for each in turn.calls] == [("support", 1)]
    assert [(each.agent, each.agent_version) for each in caller.service.entries("talk")] == [("support", 1)]
    shown = (await caller.call("GetTurn", pb.GetTurnRequest(turn_id=turn.responses[0].turn_id))).turn
    assert (shown.agent, shown.agent_version) == ("support", 1)
    session = (await caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))).session
    assert (session.agent, session.HasField("agent_version"), session.model) == ("support", False, OTHER)


async def test_agent_without_prompt_and_tools_sends_none(definer: Definer, caller: Caller) -> None:
    """Some providers reject an empty list of tools."""
    await definer.apply()
    await caller.converse("hello", agent="support")
    (request,) = caller.service.requests("talk")

    assert prompt_of(request) == ""
    assert "tools" not in request
    assert not {"temperature", "top_p", "seed", "stop", "reasoning", "cache_control"} & request.keys()


async def test_turn_without_an_agent_takes_the_default(definer: Definer, caller: Caller) -> None:
    """The server's own `assistant`, or the tenant's."""
    first = await caller.converse("hello")
    await definer.apply("assistant", system_prompt="Ours.")
    second = await caller.converse("hello", session_id="second")

    assert (first.started.agent, first.started.agent_version) == ("assistant", 0)
    assert (second.started.agent, second.started.agent_version) == ("assistant", 1)
    assert prompt_of(caller.service.requests("second")[0]) == "Ours."


async def test_session_keeps_its_agent(definer: Definer, caller: Caller) -> None:
    """Another one is refused and changes nothing; one whose session began without naming it, too."""
    await definer.apply()
    await caller.converse("hello")
    failure = refused(await caller.converse("hello", agent="support"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_MISMATCH")
    assert failure.metadata == {"session_id": "talk", "agent": "assistant"}

    await caller.converse("hello", session_id="s", agent="support")
    assert refused(await caller.converse("hello", session_id="s", agent="assistant")).metadata["agent"] == "support"
    turn = await caller.converse("hello", session_id="s")
    assert (turn.failure, turn.started.agent) == (None, "support")
    assert turn.finished.session_totals.turns == 2


@pytest.mark.parametrize("agent", ["unknown", "support@2", "unknown@1"])
async def test_unknown_agent_begins_no_session(definer: Definer, caller: Caller, agent: str) -> None:
    """NOT_FOUND; the session does not exist, and the request id is free."""
    await definer.apply()
    failure = refused(await caller.converse("hello", agent=agent, request_id="one"))

    assert (failure.code, failure.reason, failure.metadata) == (
        NOT_FOUND,
        "AGENT_NOT_FOUND",
        {"agent": agent.replace("unknown@1", "unknown")},
    )
    assert caller.service.session("talk") is None
    assert caller.service.entries("talk") == []
    assert (await caller.converse("hello", request_id="one")).failure is None


async def test_variables_replace_the_placeholders(definer: Definer, caller: Caller) -> None:
    """Values are text: nothing in them is replaced again."""
    await definer.apply(system_prompt="{{variables.a}}, {{ variables.a }} {{variables.b}} {{user}} {{today}} {{1}}")
    turn = await caller.converse(
        "hello", agent="support", user="ann", variables={"a": "{{user}}", "b": "", "unused": "x"}
    )
    (request,) = caller.service.requests("talk")

    day = turn.responses[0].time.ToDatetime().date().isoformat()
    assert prompt_of(request) == f"{{{{user}}}}, {{{{user}}}}  ann {day} {{{{1}}}}"


@pytest.mark.parametrize(("prompt", "field"), [("{{variables.plan}}", "variables.plan"), ("{{user}}", "user")])
async def test_missing_value_is_refused(definer: Definer, caller: Caller, prompt: str, field: str) -> None:
    """INVALID_FIELD with the field; the session does not exist, and nothing is charged."""
    await definer.apply(system_prompt=prompt)
    failure = refused(await caller.converse("hello", agent="support", variables={"other": "x"}))

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", [field])
    assert caller.service.session("talk") is None


async def test_request_overrides_what_the_definition_lets_it(definer: Definer, caller: Caller) -> None:
    """By default model, fallback models and parameters, one by one; a model for this turn alone."""
    await definer.apply(
        model=OTHER, fallback_models=[MODEL], parameters={"temperature": 1.0, "seed": 3, "stop": ["END"]}
    )
    await caller.converse(
        "hello", agent="support", model=MODEL, parameters={"temperature": 0.0, "reasoning": {"max_tokens": 99}}
    )
    await caller.converse("hello")
    first, second = caller.service.requests("talk")

    assert (first["model"], first["temperature"], first["seed"], first["stop"]) == (MODEL, 0.0, 3, ["END"])
    assert first["reasoning"] == {"max_tokens": 99}
    assert "models" not in first
    assert (second["model"], second["models"], second["temperature"]) == (OTHER, [OTHER, MODEL], 1.0)
    assert "reasoning" not in second


async def test_request_cannot_override_the_rest(definer: Definer, caller: Caller) -> None:
    """The error names each field; without them the turn is served."""
    await definer.apply(overridable={}, model=MODEL)
    failure = refused(
        await caller.converse("hello", agent="support", model=OTHER, fallback_models=[MODEL], parameters={})
    )

    assert (failure.code, failure.reason) == (INVALID, "INVALID_FIELD")
    assert list(failure.fields) == ["model", "fallback_models", "parameters"]
    assert caller.service.session("talk") is None
    assert (await caller.converse("hello", agent="support")).failure is None
    await definer.apply("open", overridable={"fields": ["AGENT_OVERRIDE_PARAMETERS"]})
    turn = await caller.converse("hello", session_id="s", agent="open", parameters={"seed": 1})
    assert turn.failure is None


async def test_new_model_of_a_definition_holds_in_old_sessions(definer: Definer, caller: Caller) -> None:
    """Without one the session's last model does, also that of an earlier definition."""
    models = []
    await definer.apply("pinned")
    await definer.apply("pinned", model=OTHER)
    await caller.converse("hello", session_id="pinned", agent="pinned@1")
    assert (
        caller.service.requests("pinned")[0]["model"]
        == (await caller.converse("hi", session_id="s")).calls[0].requested_model
    )
    for definition in ({"model": OTHER}, {"model": MODEL}, {}):
        await definer.apply(**definition)
        await caller.converse("hello", agent="support")
        models.append(caller.service.requests("talk")[-1]["model"])

    assert models == [OTHER, MODEL, MODEL]


async def test_lowest_limit_holds(definer: Definer, caller: Caller) -> None:
    """Of the definition and the request, in both directions."""
    await definer.apply(
        tools=[{"builtin": "calculator"}], limits={"max_model_calls": 2, "max_output_tokens": 400, "max_cost_usd": "1"}
    )
    turn = await caller.converse("@sandbox tool-loop calls=4", agent="support")
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_MAX_MODEL_CALLS
    assert len(turn.calls) == 2
    turn = await caller.converse("@sandbox tool-loop calls=4", limits={"max_model_calls": 1})
    assert len(turn.calls) == 1
    turn = await caller.converse("@sandbox tool-loop calls=4", limits={"max_model_calls": 9})
    assert len(turn.calls) == 2
    await caller.converse("hello", limits={"max_output_tokens": 900})
    assert caller.service.requests("talk")[-1]["max_tokens"] == 400


async def test_cost_of_a_turn_stays_below_the_definitions(definer: Definer, caller: Caller) -> None:
    """A definition's `max_cost_usd` is as strict as a request's."""
    await definer.apply(limits={"max_cost_usd": "0.0000001"})
    failure = refused(await caller.converse("hello", agent="support"))

    assert failure.reason == "MAX_COST_TOO_LOW"


async def test_reasoning_leaves_output_for_the_answer(definer: Definer, caller: Caller) -> None:
    """A provider would refuse a request whose reasoning takes all output tokens."""
    await definer.apply(parameters={"reasoning": {"max_tokens": 5000}, "max_output_tokens": 1000})
    await caller.converse("hello", agent="support")
    await caller.converse("hello", limits={"max_output_tokens": 9000}, parameters={"max_output_tokens": 8000})
    first, second = caller.service.requests("talk")

    assert (first["max_tokens"], first["reasoning"]) == (1000, {"max_tokens": 500})
    assert (second["max_tokens"], second["reasoning"]) == (8000, {"max_tokens": 5000})


async def test_policy_holds_over_an_agents_routing(restricted: Any, define: Any) -> None:
    """Its preferences replace the agent's, its exclusions and bounds are added to them."""
    own = {"order": ["OpenAI"], "ignore": ["Groq"], "max_price": {"prompt": "2", "completion": "9"}}
    caller = await restricted(provider=own, zero_data_retention=True)
    preferred = {"order": ["Azure"], "sort": "price", "ignore": ["Groq", "Azure"], "max_price": {"prompt": "1"}}
    await define(caller).apply(parameters={"provider_json": json.dumps({**preferred, "zdr": False})})
    await caller.converse("hello", agent="support")

    assert caller.service.requests("talk")[0]["provider"] == {
        "order": ["OpenAI"],
        "sort": "price",
        "ignore": ["Groq", "Azure"],
        "max_price": {"prompt": "1", "completion": "9"},
        "zdr": True,
    }


async def test_model_that_the_policy_forbids_is_refused(restricted: Any, define: Any) -> None:
    """A definition may name any model of the catalogue, since the policy may change."""
    caller = await restricted(allowed_models=("openai/*",))
    await define(caller).apply(model="anthropic/claude-haiku-4.5")
    failure = refused(await caller.converse("hello", agent="support"))

    assert failure.metadata == {"model": "anthropic/claude-haiku-4.5"}
    assert caller.service.session("talk") is None


async def test_history_is_the_definitions(definer: Definer, caller: Caller) -> None:
    """A window of 4 messages; then a summary of what has left it, which the definition's parameters do not concern."""
    await definer.apply(history={"messages": 4, "mode": "HISTORY_MODE_SLIDING"})
    for number in range(4):
        await caller.converse(f"message {number}", agent="support")
    said = [each["content"] for each in caller.service.requests("talk")[-1]["messages"] if each["role"] == "user"]
    assert ["message 0" in str(said), "message 3" in str(said)] == [False, True]

    await definer.apply(history={"messages": 4, "mode": "HISTORY_MODE_SUMMARY"}, parameters={"seed": 7, "stop": ["x"]})
    for number in range(4):
        await caller.converse(f"message {number}", session_id="s", agent="support")
    entries = caller.service.entries("s")
    purposes = [each.purpose for each in entries]
    assert "summary" in purposes
    assert {(each.agent, each.agent_version) for each in entries} == {("support", 2)}
    requests = caller.service.requests("s")
    assert ["seed" in each for each in requests] == [purpose == "agent" for purpose in purposes]
    assert not any("cache_control" in each for each in requests)
    assert ["stop" in each for each in requests] == [purpose == "agent" for purpose in purposes]


async def test_agent_is_part_of_a_requests_identity(definer: Definer, caller: Caller) -> None:
    """The same id with another agent, variable or parameter is another request."""
    await definer.apply()
    fields: dict[str, Any] = {"agent": "support", "variables": {"a": "1", "b": "2"}, "parameters": {"seed": 1}}
    first = await caller.converse("hello", request_id="one", **fields)
    again = await caller.converse("hello", request_id="one", **fields)
    assert again.responses[-1].turn_finished == first.finished

    for other in ({"agent": "support@1"}, {"variables": {"a": "1"}}, {"parameters": {"seed": 2}}):
        failure = (await caller.converse("hello", request_id="one", **{**fields, **other})).failure
        assert failure is not None
        assert failure.reason == "REQUEST_ID_REUSED"


async def test_agent_that_lost_its_tools_sends_earlier_tool_calls_as_text(definer: Definer, caller: Caller) -> None:
    """Providers reject tool calls in a request without tools; the session keeps them, for a version that has tools."""
    await definer.apply(tools=[{"builtin": "calculator"}])
    await caller.converse("What is 12*13?", agent="support")
    await definer.apply(tools=[])
    turn = await caller.converse("and now?", agent="support")

    sent = caller.service.requests("talk")[-1]
    check_messages(Conversation(sent), "openai,anthropic,mistral")
    assert "tools" not in sent
    assert not any(each.get("tool_calls") or each["role"] == "tool" for each in sent["messages"])
    assert "[Result of calculator]" in json.dumps(sent["messages"])
    assert "156" in json.dumps(sent["messages"])
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN

    await definer.apply(tools=[{"builtin": "calculator"}])
    await caller.converse("and then?", agent="support")
    assert [each["role"] for each in caller.service.requests("talk")[-1]["messages"]].count("tool") == 1
