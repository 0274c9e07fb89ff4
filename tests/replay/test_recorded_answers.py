"""Each recorded answer, byte for byte from the provider's side, comes out of the whole service as it was."""

import asyncio
import json
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import metering_pb2

from godoty_service.metering.call import CallState, CostSource, ModelCall
from tests.metering.bookkeeper import calls
from tests.replay.recording import FOLDER, Recording, ToolUse, listed
from tests.service.caller import Caller, Turn
from tests.service.service import plain

NOT_ANSWERS = {
    "sse_2025-04_usage-cost.sse",  # holds a /models listing: test_recorded_oddities.py
    "sse_2025-11_midstream-error_with-usage.sse",  # ends in an error: test_recorded_errors.py
}
ANSWERS = sorted(
    each.name for each in FOLDER.iterdir() if each.name.startswith(("sse_", "json_")) and each.name not in NOT_ANSWERS
)
CALLING_TOOLS = [name for name in ANSWERS if Recording(name).tools]
OWN_TOOLS = {"calculator", "current_time"}
CALLING_UNKNOWN = [name for name in CALLING_TOOLS if not {each.name for each in Recording(name).tools} & OWN_TOOLS]
WITH_FEES_OF_THEIR_OWN = {
    "json_2026-08_perplexity-sonar.json",  # each request searches, and no counter says how often
    "sse_2026-08_websearch-exa_server-tool.sse",  # a server tool's fee is in no price list
}
THE_REST = "That was all."
STOPS = {"stop": pb.STOP_REASON_END_TURN, "length": pb.STOP_REASON_MAX_OUTPUT_TOKENS}


async def test_every_recorded_answer_is_replayed() -> None:
    """None is left out by accident: of 36 answers six call tools, and one of these a tool that the agent has."""
    assert (len(ANSWERS), len(CALLING_TOOLS), len(CALLING_UNKNOWN)) == (36, 6, 5)


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_recorded_answer_comes_through_whole(caller: Caller, name: str) -> None:
    """Text, reasoning, tool calls, usage, cost, model, provider and finish reason are those of the recording."""
    recording = Recording(name)

    turn = await replay(caller, recording)

    assert turn.text == recording.text + (THE_REST if recording.tools else "")
    assert turn.reasoning == recording.reasoning
    assert _tools_begun(turn) == recording.tools
    assert turn.finished.stop_reason == STOPS.get(recording.finish_reason, pb.STOP_REASON_END_TURN)
    assert_told(turn.calls[0], recording)
    entry = await settled(caller)
    assert_kept(entry, recording)
    assert_books_agree(caller, entry)
    metrics = await caller.metrics()
    assert metrics.totals.cost_usd == plain(caller.service.invoiced("talk"))
    assert (metrics.totals.pending_calls, metrics.totals.unresolved_calls) == (0, 0)


@pytest.mark.parametrize("name", CALLING_UNKNOWN)
async def test_a_tool_that_the_agent_lacks_is_an_error_result_and_the_loop_goes_on(caller: Caller, name: str) -> None:
    """Every recorded call of an unknown tool gets a result that says so, and the model is asked once more."""
    recording = Recording(name)

    turn = await replay(caller, recording)

    ended = [each.tool_call_finished for each in turn.responses if each.HasField("tool_call_finished")]
    assert {each.tool_call_id for each in ended} == {each.id for each in recording.tools}
    assert {each.status for each in ended} == {pb.TOOL_CALL_STATUS_ERROR}
    assert sum(each.errors for each in turn.finished.tools) == len(recording.tools)
    assert turn.finished.turn_totals.model_calls == 2
    _, again = caller.service.requests("talk")
    (asked,) = [each for each in again["messages"] if each.get("tool_calls")]
    assert [(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in asked["tool_calls"]] == [
        (each.name, each.input) for each in recording.tools
    ]
    results = {each["tool_call_id"]: str(each["content"]) for each in again["messages"] if each["role"] == "tool"}
    assert results.keys() == {each["id"] for each in asked["tool_calls"]}
    assert all(each["function"]["name"] in results[each["id"]] for each in asked["tool_calls"])


async def test_encrypted_reasoning_goes_back_unchanged_in_a_tool_loop(caller: Caller) -> None:
    """What the model thought before it called a tool stands in the next request, as it came."""
    recording = Recording("sse_2026-08_reasoning_gpt-5.2.sse")

    await replay(caller, recording)

    _, again = caller.service.requests("talk")
    (asked,) = [each for each in again["messages"] if each.get("tool_calls")]
    assert recording.encrypted
    assert recording.encrypted == "".join(each.get("data", "") for each in asked["reasoning_details"])


async def replay(caller: Caller, recording: Recording) -> Turn:
    """Take a turn whose first model call is the recording; one that calls tools is followed by an ordinary answer."""
    directive = f"@sandbox replay file={recording.name}"
    if not recording.tools:
        return await caller.converse(directive)
    surroundings = caller.service.surroundings
    for each in (directive, f'@sandbox plain text="{THE_REST}"'):
        surroundings.ask(lambda wish={"directive": each}: surroundings.sandbox.scenarios.plan(wish))  # type: ignore[misc] # a default binds it now
    return await caller.converse("What do you make of it?")


async def settled(caller: Caller) -> ModelCall:
    """The first entry, once it is settled: at once where the answer told its cost, else from the record."""
    async with asyncio.timeout(10):
        while (entry := calls(caller)[0]).state is CallState.PENDING:
            await asyncio.sleep(0.05)
    return entry


def _tools_begun(turn: Turn) -> list[ToolUse]:
    begun = [each.tool_call_started for each in turn.responses if each.HasField("tool_call_started")]
    return [ToolUse(each.tool_call_id, each.name, json.loads(each.input_json)) for each in begun]


def assert_told(call: metering_pb2.ModelCall, recording: Recording) -> None:
    """Check what the stream tells of the call."""
    assert call.served_slug == recording.served_model
    assert call.provider == (recording.provider or "")
    assert call.finish_reason == recording.finish_reason
    if recording.cost is None:
        assert (call.state, call.HasField("cost_usd")) == (metering_pb2.CALL_STATE_PENDING, False)
    else:
        assert (call.state, call.cost_source) == (metering_pb2.CALL_STATE_SETTLED, metering_pb2.COST_SOURCE_BILLED)
        assert call.cost_usd == plain(recording.cost)
    for field in call.usage.DESCRIPTOR.fields:
        told = getattr(call.usage, field.name) if call.usage.HasField(field.name) else None
        assert (field.name, told) == (field.name, recording.counters[field.name])


def assert_kept(entry: ModelCall, recording: Recording) -> None:
    """Check what the ledger keeps of the call."""
    assert (entry.state, entry.error) == (CallState.SETTLED, None)
    assert entry.cost_source is (CostSource.RECONCILED if recording.cost is None else CostSource.BILLED)
    assert recording.cost in (None, entry.cost)
    assert (entry.served_slug, entry.provider) == (recording.served_model, recording.provider)
    assert entry.finish_reason == recording.finish_reason
    assert entry.usage is not None
    assert asdict(entry.usage) == recording.counters
    if recording.cost is not None:  # else the record has said it since
        assert entry.is_byok is recording.usage.get("is_byok")
    if recording.upstream_cost is not None:
        assert entry.upstream_cost == recording.upstream_cost
    if recording.generation_id.startswith("gen-"):
        assert entry.generation_id == recording.generation_id
    can_be_priced = listed(recording.served_model) and recording.name not in WITH_FEES_OF_THEIR_OWN
    assert (entry.catalogue_cost is not None) is can_be_priced


def assert_books_agree(caller: Caller, first: ModelCall) -> None:
    """Check that the ledger has the invoice's lines, one by one."""
    entries: list[Any] = [first, *caller.service.entries("talk")[1:]]
    lines = {line.generation_id: line.cost for line in caller.service.invoice("talk")}
    assert {each.generation_id: each.cost for each in entries} == lines
    assert sum(lines.values(), Decimal(0)) == caller.service.invoiced("talk")
