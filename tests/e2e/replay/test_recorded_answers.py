"""Each recorded answer, byte for byte from the provider's side, passes through the whole service unchanged."""

import asyncio
import json
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import metering_pb2
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from tests.e2e.metering.reconciler_harness import calls
from tests.e2e.replay.recording import FOLDER, Recording, ToolUse, listed
from tests.support.caller import Caller, Turn
from tests.support.service import format_amount

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
    "json_2026-08_perplexity-sonar.json",  # each request searches, and no counter counts the searches
    "sse_2026-08_websearch-exa_server-tool.sse",  # a server tool's fee is in no price list
}
THE_REST = "That was all."
STOPS = {"stop": turn_pb.STOP_REASON_END_TURN, "length": turn_pb.STOP_REASON_MAX_OUTPUT_TOKENS}


async def test_every_recorded_answer_is_replayed() -> None:
    """None is omitted by accident: of 36 answers six call tools, and one of these a tool that the agent has."""
    assert (len(ANSWERS), len(CALLING_TOOLS), len(CALLING_UNKNOWN)) == (36, 6, 5)


@pytest.mark.parametrize("name", ANSWERS)
async def test_recorded_answer_arrives_unchanged(caller: Caller, name: str) -> None:
    """Text, reasoning, tool calls, usage, cost, model, provider and finish reason are those of the recording."""
    recording = Recording(name)

    turn = await replay(caller, recording)

    assert turn.text == recording.text + (THE_REST if recording.tools else "")
    assert turn.reasoning == recording.reasoning
    assert _started_tools(turn) == recording.tools
    cited = [page for each in turn.responses for page in each.annotations.citations]
    assert [(page.url, page.title) for page in cited] == recording.cited
    assert turn.finished.stop_reason == STOPS.get(recording.finish_reason, turn_pb.STOP_REASON_END_TURN)
    assert_streamed(turn.calls[0], recording)
    entry = await settled(caller)
    assert_entry(entry, recording)
    assert_invoice_agrees(caller, entry)
    metrics = await caller.metrics()
    assert metrics.totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    assert (metrics.totals.pending_calls, metrics.totals.unresolved_calls) == (0, 0)


@pytest.mark.parametrize("name", CALLING_UNKNOWN)
async def test_unknown_tool_is_error_result_and_loop_continues(caller: Caller, name: str) -> None:
    """Every recorded call of an unknown tool gets an error result, and the model is called once more."""
    recording = Recording(name)

    turn = await replay(caller, recording)

    ended = [each.tool_call_finished for each in turn.responses if each.HasField("tool_call_finished")]
    assert {each.tool_call_id for each in ended} == {each.id for each in recording.tools}
    assert {each.status for each in ended} == {session_pb.TOOL_CALL_STATUS_ERROR}
    assert sum(each.errors for each in turn.finished.tools) == len(recording.tools)
    assert turn.finished.turn_totals.model_calls == 2
    _, again = caller.service.requests("talk")
    (answer,) = [each for each in again["messages"] if each.get("tool_calls")]
    assert [(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in answer["tool_calls"]] == [
        (each.name, each.input) for each in recording.tools
    ]
    results = {each["tool_call_id"]: str(each["content"]) for each in again["messages"] if each["role"] == "tool"}
    assert results.keys() == {each["id"] for each in answer["tool_calls"]}
    assert all(each["function"]["name"] in results[each["id"]] for each in answer["tool_calls"])


async def test_encrypted_reasoning_is_sent_again_unchanged_in_tool_loop(caller: Caller) -> None:
    """The next request has the reasoning that preceded the tool call."""
    recording = Recording("sse_2026-08_reasoning_gpt-5.2.sse")

    await replay(caller, recording)

    _, again = caller.service.requests("talk")
    (answer,) = [each for each in again["messages"] if each.get("tool_calls")]
    assert recording.encrypted
    assert recording.encrypted == "".join(each.get("data", "") for each in answer["reasoning_details"])


async def replay(caller: Caller, recording: Recording) -> Turn:
    """Take a turn whose first model call is the recording; with tool calls, an ordinary answer follows."""
    directive = f"@sandbox replay file={recording.name}"
    if not recording.tools:
        return await caller.converse(directive)
    backends = caller.service.backends
    for each in (directive, f'@sandbox plain text="{THE_REST}"'):
        backends.ask(lambda wish={"directive": each}: backends.sandbox.scenarios.add(wish))  # type: ignore[misc] # a default binds it now
    return await caller.converse("What do you make of it?")


async def settled(caller: Caller) -> ModelCall:
    """Return the first entry, once it is settled: at once if the answer reported its cost, else from the record."""
    async with asyncio.timeout(180):
        while (entry := calls(caller)[0]).state is CallState.PENDING:
            await asyncio.sleep(0.05)
    return entry


def _started_tools(turn: Turn) -> list[ToolUse]:
    started = [each.tool_call_started for each in turn.responses if each.HasField("tool_call_started")]
    return [ToolUse(each.tool_call_id, each.name, json.loads(each.input_json)) for each in started]


def assert_streamed(call: metering_pb2.ModelCall, recording: Recording) -> None:
    """Check the call as the stream reports it."""
    assert call.served_slug == recording.served_model
    assert call.provider == (recording.provider or "")
    assert call.finish_reason == recording.finish_reason
    if recording.cost is None:
        assert (call.state, call.HasField("cost_usd")) == (metering_pb2.CALL_STATE_PENDING, False)
    else:
        assert (call.state, call.cost_source) == (metering_pb2.CALL_STATE_SETTLED, metering_pb2.COST_SOURCE_BILLED)
        assert call.cost_usd == format_amount(recording.cost)
    for field in call.usage.DESCRIPTOR.fields:
        streamed = getattr(call.usage, field.name) if call.usage.HasField(field.name) else None
        assert (field.name, streamed) == (field.name, recording.counters[field.name])


def assert_entry(entry: ModelCall, recording: Recording) -> None:
    """Check the call's ledger entry."""
    assert (entry.state, entry.error) == (CallState.SETTLED, None)
    assert entry.cost_source is (CostSource.RECONCILED if recording.cost is None else CostSource.BILLED)
    assert recording.cost in (None, entry.cost)
    assert (entry.served_slug, entry.provider) == (recording.served_model, recording.provider)
    assert entry.finish_reason == recording.finish_reason
    assert entry.usage is not None
    assert asdict(entry.usage) == recording.counters
    if recording.cost is not None:  # else it is from the record
        assert entry.is_byok is recording.usage.get("is_byok")
    if recording.upstream_cost is not None:
        assert entry.upstream_cost == recording.upstream_cost
    if recording.generation_id.startswith("gen-"):
        assert entry.generation_id == recording.generation_id
    can_be_priced = listed(recording.served_model) and recording.name not in WITH_FEES_OF_THEIR_OWN
    assert (entry.catalogue_cost is not None) is can_be_priced


def assert_invoice_agrees(caller: Caller, first: ModelCall) -> None:
    """Check that the ledger has the invoice's lines, one by one."""
    entries: list[Any] = [first, *caller.service.entries("talk")[1:]]
    lines = {line.generation_id: line.cost for line in caller.service.invoice("talk")}
    assert {each.generation_id: each.cost for each in entries} == lines
    assert sum(lines.values(), Decimal(0)) == caller.service.invoiced("talk")
