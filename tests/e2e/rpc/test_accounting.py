"""Every call is in the ledger, and all totals agree."""

import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import metering_pb2

from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from tests.support.caller import Caller, Turn
from tests.support.service import format_amount

pytestmark = pytest.mark.usefixtures("driver")


def assert_in_order(turn: Turn) -> None:
    """Check the order of a turn's events: `turn_started`, deltas, entry and tools of each call, `turn_finished`."""
    sequences = [each.sequence for each in turn.responses]
    assert all(before < after for before, after in pairwise(sequences))
    assert {each.turn_id for each in turn.responses} == {turn.responses[0].turn_id}
    assert (turn.kinds[0], turn.kinds[-1]) == ("turn_started", "turn_finished")
    follows = {
        "turn_started": {"text_delta", "reasoning_delta", "model_call_finished"},
        "reasoning_delta": {"reasoning_delta", "text_delta", "model_call_finished"},
        "text_delta": {"text_delta", "model_call_finished"},
        "model_call_finished": {"tool_call_started", "turn_finished"},
        "tool_call_started": {"tool_call_started", "tool_call_finished"},
        "tool_call_finished": {
            *("tool_call_started", "tool_call_finished", "text_delta", "reasoning_delta", "model_call_finished")
        },
    }
    assert [pair for pair in pairwise(turn.kinds) if pair[1] not in follows[pair[0]]] == []


def assert_settled(entry: ModelCall, number: int) -> None:
    """Check that an entry has all that the provider reported, and its prices."""
    assert (entry.number, entry.state, entry.cost_source) == (number, CallState.SETTLED, CostSource.BILLED)
    assert entry.requested_model == entry.served_model == "openai/gpt-4o-mini"
    assert entry.provider == "OpenAI"
    assert entry.generation_id
    assert entry.generation_id.startswith("gen-")
    assert entry.usage is not None
    assert (entry.usage.total_tokens or 0) == (entry.usage.input_tokens or 0) + (entry.usage.output_tokens or 0) > 0
    assert entry.cost is not None
    assert entry.upper_bound is not None
    assert entry.upper_bound >= entry.cost > 0
    assert entry.cost == entry.catalogue_cost
    assert entry.evidence is not None
    assert entry.evidence.prices.prompt == Decimal("0.00000015")
    assert len(entry.evidence.catalogue_hash) == 64
    assert entry.time_to_first_token is not None
    assert entry.duration is not None
    assert entry.duration >= entry.time_to_first_token
    assert (entry.attempt, entry.error, entry.provider_key_id != "") == (1, None, True)


async def assert_sums_agree(caller: Caller, last: Turn) -> str:
    """Check that four sources have the same sum to the last decimal; return it."""
    entries = caller.service.entry_documents("talk")
    summed = format_amount(sum((each["cost"].to_decimal() for each in entries), Decimal(0)))
    metrics = await caller.metrics()
    invoiced = format_amount(caller.service.invoiced("talk"))
    assert last.finished.session_totals.cost_usd == metrics.totals.cost_usd == summed == invoiced
    assert metrics.totals == last.finished.session_totals
    lines = {line.generation_id: line.cost for line in caller.service.invoice("talk")}
    assert {each["generation_id"]: each["cost"].to_decimal() for each in entries} == lines
    return summed


async def test_two_turns_are_accounted_for_to_the_last_decimal(caller: Caller) -> None:
    """Two turns make two entries; the stream, the metrics, the ledger's sum and the invoice are one amount."""
    first = await caller.converse("What is the capital of France?")
    second = await caller.converse("And of Spain?")

    for turn in (first, second):
        assert_in_order(turn)
        assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    entries = caller.service.entries("talk")
    assert len(entries) == 2
    for number, entry in enumerate(entries, 1):
        assert_settled(entry, number)
    total = await assert_sums_agree(caller, second)
    assert Decimal(total) > Decimal(first.finished.session_totals.cost_usd) > 0
    assert (first.started.session_created, second.started.session_created) == (True, False)
    assert first.started.totals.cost_usd == "0"
    assert second.started.totals == first.finished.session_totals
    assert second.finished.session_totals.turns == 2
    assert second.finished.turn_totals.turns == 1
    assert second.finished.turn_totals.cost_usd == format_amount(entries[1].cost or Decimal(0))


async def test_tool_loop_of_five_calls_has_five_entries(caller: Caller) -> None:
    """Five cycles make five entries, numbered in order; the events list tools and cycles."""
    await caller.converse("hello")
    turn = await caller.converse("@sandbox tool-loop calls=5")

    assert_in_order(turn)
    entries = caller.service.entries("talk")
    assert len(entries) == 6
    for number, entry in enumerate(entries, 1):
        assert_settled(entry, number)
    await assert_sums_agree(caller, turn)
    assert [call.number for call in turn.calls] == [2, 3, 4, 5, 6]
    assert [call.finish_reason for call in turn.calls] == ["tool_calls"] * 4 + ["stop"]
    assert turn.finished.turn_totals.model_calls == 5
    assert turn.finished.session_totals.model_calls == 6
    assert len(turn.finished.cycle_durations) == 5
    assert sum(tool.calls for tool in turn.finished.tools) == 4
    assert {tool.name for tool in turn.finished.tools} == {"calculator", "current_time"}
    assert not any(tool.errors for tool in turn.finished.tools)


async def test_stream_and_ledger_have_the_same_calls(caller: Caller) -> None:
    """Each `model_call_finished` equals its ledger entry, field by field."""
    turn = await caller.converse("hello")

    (call,), (entry,) = turn.calls, caller.service.entries("talk")
    assert call.call_id == entry.call_id
    assert call.session_id == "talk"
    assert call.turn_id == turn.responses[0].turn_id == entry.turn_id
    assert call.state == metering_pb2.CALL_STATE_SETTLED
    assert call.cost_source == metering_pb2.COST_SOURCE_BILLED
    assert call.cost_usd == call.catalogue_cost_usd == format_amount(entry.cost or Decimal(0))
    assert call.upper_bound_usd == format_amount(entry.upper_bound or Decimal(0))
    assert (call.requested_model, call.served_model) == ("openai/gpt-4o-mini", "openai/gpt-4o-mini")
    assert (call.provider, call.generation_id) == ("OpenAI", entry.generation_id)
    assert call.unit_prices.input_usd == "0.00000015"
    assert call.unit_prices.output_usd == "0.0000006"
    assert call.start_time.ToDatetime(entry.start_time.tzinfo) == entry.start_time
    assert call.duration.ToTimedelta() == entry.duration
    assert entry.usage is not None
    assert call.usage.input_tokens == entry.usage.input_tokens
    assert call.usage.output_tokens == entry.usage.output_tokens


async def test_parallel_tools_run_concurrently_under_their_own_ids(caller: Caller) -> None:
    """Tools of one answer start and finish under their own ids, and the model gets their results."""
    turn = await caller.converse("@sandbox tool-loop calls=2 parallel=3")

    assert_in_order(turn)
    started = [each.tool_call_started for each in turn.responses if each.HasField("tool_call_started")]
    finished = [each.tool_call_finished for each in turn.responses if each.HasField("tool_call_finished")]
    assert len(started) == 3
    assert len({each.tool_call_id for each in started}) == 3
    assert sorted(each.tool_call_id for each in started) == sorted(each.tool_call_id for each in finished)
    assert {each.status for each in finished} == {pb.TOOL_CALL_STATUS_SUCCESS}
    results = {each["tool_call_id"]: each["content"] for each in _last_results(caller)}
    assert {each.tool_call_id for each in finished} == set(results)


async def test_failed_tool_is_reported_to_the_model_and_the_caller(caller: Caller) -> None:
    """The error is an event with its text, a result for the model, and counted; the turn continues."""
    turn = await caller.converse('@sandbox tool-loop calls=2 tool=calculator input=\'{"expression":"1/0"}\'')

    (finished,) = [each.tool_call_finished for each in turn.responses if each.HasField("tool_call_finished")]
    assert finished.status == pb.TOOL_CALL_STATUS_ERROR
    assert finished.output
    assert [(tool.name, tool.calls, tool.errors) for tool in turn.finished.tools] == [("calculator", 1, 1)]
    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    await assert_sums_agree(caller, turn)


async def test_metrics_show_models_runs_and_latency(caller: Caller) -> None:
    """By model, by run (newest first) and by provider, the metrics add up to the same totals."""
    first = await caller.converse("one", model="openai/gpt-4o-mini")
    second = await caller.converse("@sandbox tool-loop calls=3", model="anthropic/claude-haiku-4.5")

    metrics = await caller.metrics()
    assert [each.model for each in metrics.by_model] == ["anthropic/claude-haiku-4.5", "openai/gpt-4o-mini"]
    assert _sum(each.totals.cost_usd for each in metrics.by_model) == metrics.totals.cost_usd
    assert [each.totals.model_calls for each in metrics.by_model] == [3, 1]
    runs = [(run.model, run.turn_id, run.cost_usd) for run in metrics.recent_runs]
    assert runs == [
        ("anthropic/claude-haiku-4.5", second.responses[0].turn_id, second.finished.turn_totals.cost_usd),
        ("openai/gpt-4o-mini", first.responses[0].turn_id, first.finished.turn_totals.cost_usd),
    ]
    assert [(each.provider, each.model_calls) for each in metrics.latency] == [("", 4), ("Anthropic", 3), ("OpenAI", 1)]
    for each in metrics.latency:
        assert each.time_to_first_token.median.ToTimedelta() <= each.time_to_first_token.p95.ToTimedelta()
        assert each.duration.median.ToTimedelta() <= each.duration.p95.ToTimedelta()
    assert metrics.update_time.ToDatetime() >= metrics.create_time.ToDatetime()


async def test_session_matches_its_turns(caller: Caller) -> None:
    """`GetSession` has the same cost, number of messages, model and user as the stream."""
    turn = await caller.converse("@sandbox tool-loop calls=2", user="alice")

    session = (await caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))).session
    assert session.cost_usd == turn.finished.session_totals.cost_usd
    assert session.message_count == len(await caller.messages()) == 4
    assert (session.session_id, session.user, session.model) == ("talk", "alice", "openai/gpt-4o-mini")


async def test_empty_session_id_creates_a_session(caller: Caller) -> None:
    """`turn_started` has the id of the new session."""
    first, second = await caller.converse("hi", session_id=""), await caller.converse("hi", session_id="")

    assert first.started.session_id != second.started.session_id
    again = await caller.converse("hi", session_id=first.started.session_id)
    assert again.started.totals == first.finished.session_totals


async def test_agent_state_is_a_projection_of_the_ledger(caller: Caller) -> None:
    """`godoty_metrics` in the stored agent state agrees with the metrics, in its documented form."""
    turn = await caller.converse("hello")

    session = caller.service.session("talk")
    assert session is not None
    metrics = json.loads(session["state"])["godoty_metrics"]
    (run,) = metrics["run_history"]
    assert metrics["total_cost"] == run["cost"] == turn.finished.session_totals.cost_usd
    assert metrics["total_tokens"] == turn.finished.session_totals.usage.total_tokens
    assert run["model"] == "openai/gpt-4o-mini"
    assert datetime.fromisoformat(run["timestamp"]) == caller.service.entries("talk")[0].start_time


def _sum(amounts: Iterable[str]) -> str:
    return format_amount(sum(map(Decimal, amounts), Decimal(0)))


def _last_results(caller: Caller) -> list[dict[str, str]]:
    return [each for each in caller.service.requests("talk")[-1]["messages"] if each["role"] == "tool"]
