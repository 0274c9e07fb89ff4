"""Turns, sessions and messages as messages of agent_service.proto."""

from collections.abc import Callable
from typing import Any

from godoty.v1 import agent_service_pb2 as pb

from godoty_service.metering.latency import by_provider
from godoty_service.metering.money import format_usd
from godoty_service.metering.totals import NEWEST_RUNS, SessionFold
from godoty_service.rpc.message_codec import tool_status
from godoty_service.rpc.metering_messages import (
    call_message,
    duration,
    latency_messages,
    run_message,
    timestamp,
    totals_message,
)
from godoty_service.sessions.session import Session
from godoty_service.turns import events

_STOP_REASONS = {each: pb.StopReason.Value(f"STOP_REASON_{each.name}") for each in events.StopReason}


def event_message(turn_id: str, sequence: int, event: events.StreamEvent) -> pb.ConverseResponse:
    """Convert an event of a turn."""
    response = pb.ConverseResponse(sequence=sequence, turn_id=turn_id)
    _FILL[type(event)](response, event)
    return response


def session_message(session: Session, fold: SessionFold, *, message_count: int) -> pb.Session:
    """Convert a session."""
    return pb.Session(
        session_id=session.session_id,
        user=session.user or "",
        model=session.model,
        message_count=message_count,
        cost_usd=format_usd(fold.totals.cost),
        create_time=timestamp(session.create_time),
        update_time=timestamp(session.update_time),
    )


def metrics_message(session: Session, fold: SessionFold) -> pb.GetSessionMetricsResponse:
    """Convert what a session has cost."""
    dearest_first = sorted(fold.by_model, key=lambda each: (-each[1].cost, each[0]))
    response = pb.GetSessionMetricsResponse(
        totals=totals_message(fold.view()),
        recent_runs=[run_message(run) for run in reversed(fold.runs[-NEWEST_RUNS:])],
        latency=latency_messages(by_provider(fold.timings)),
        create_time=timestamp(session.create_time),
        update_time=timestamp(session.update_time),
    )
    for model, totals in dearest_first:
        response.by_model.add(model=model, totals=totals_message(totals))
    return response


def _started(response: pb.ConverseResponse, event: events.TurnStarted) -> None:
    response.turn_started.session_id = event.session_id
    response.turn_started.session_created = event.session_created
    response.turn_started.totals.CopyFrom(totals_message(event.totals))


def _text(response: pb.ConverseResponse, event: events.TextDelta) -> None:
    response.text_delta.text = event.text


def _reasoning(response: pb.ConverseResponse, event: events.ReasoningDelta) -> None:
    response.reasoning_delta.text = event.text


def _tool_started(response: pb.ConverseResponse, event: events.ToolCallStarted) -> None:
    started = response.tool_call_started
    started.tool_call_id, started.name, started.input_json = event.tool_call_id, event.name, event.input_json


def _tool_finished(response: pb.ConverseResponse, event: events.ToolCallFinished) -> None:
    finished = response.tool_call_finished
    finished.tool_call_id, finished.output = event.tool_call_id, event.output
    finished.status = tool_status(succeeded=event.succeeded)
    finished.duration.FromTimedelta(event.duration)


def _call_finished(response: pb.ConverseResponse, event: events.ModelCallFinished) -> None:
    response.model_call_finished.call.CopyFrom(call_message(event.call))


def _turn_finished(response: pb.ConverseResponse, event: events.TurnFinished) -> None:
    finished = response.turn_finished
    finished.stop_reason = _STOP_REASONS[event.stop_reason]  # type: ignore[assignment] # a number at run time
    finished.turn_totals.CopyFrom(totals_message(event.turn_totals))
    finished.session_totals.CopyFrom(totals_message(event.session_totals))
    for cycle in event.cycle_durations:
        finished.cycle_durations.add().FromTimedelta(cycle)
    for tool in event.tools:
        finished.tools.add(name=tool.name, calls=tool.calls, errors=tool.errors, duration=duration(tool.duration))


def _budget_reached(response: pb.ConverseResponse, event: events.BudgetReached) -> None:
    alert = event.alert
    response.budget_alert.CopyFrom(
        pb.BudgetAlert(
            window=f"BUDGET_WINDOW_{alert.window.name}",
            percent=alert.percent,
            spent_usd=format_usd(alert.spent),
            limit_usd=format_usd(alert.limit),
        )
    )


def _heartbeat(response: pb.ConverseResponse, _: events.Heartbeat) -> None:
    response.heartbeat.SetInParent()


_FILL: dict[type, Callable[[pb.ConverseResponse, Any], None]] = {
    events.TurnStarted: _started,
    events.TextDelta: _text,
    events.ReasoningDelta: _reasoning,
    events.ToolCallStarted: _tool_started,
    events.ToolCallFinished: _tool_finished,
    events.ModelCallFinished: _call_finished,
    events.TurnFinished: _turn_finished,
    events.BudgetReached: _budget_reached,
    events.Heartbeat: _heartbeat,
}
