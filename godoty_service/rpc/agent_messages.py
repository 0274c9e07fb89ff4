"""Turns, sessions and messages as messages of agent_service.proto."""

import json
from collections.abc import Callable
from typing import Any

from godoty.v1 import agent_service_pb2 as pb

from godoty_service.metering.latency import by_provider
from godoty_service.metering.money import format_usd
from godoty_service.metering.totals import NEWEST_RUNS, SessionFold
from godoty_service.rpc.metering_messages import (
    call_message,
    duration,
    latency_messages,
    run_message,
    timestamp,
    totals_message,
)
from godoty_service.sessions.messages import KeptMessage
from godoty_service.sessions.session import Session
from godoty_service.turns import events
from godoty_service.turns.tools import tool_output

_STOP_REASONS = {each: pb.StopReason.Value(f"STOP_REASON_{each.name}") for each in events.StopReason}
_ROLES = {"user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}


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


def message_message(message: KeptMessage) -> pb.Message:
    """Convert a message of a conversation."""
    return pb.Message(
        number=message.number,
        role=_ROLES[message.role],
        content=[block for each in message.content if (block := _block(each)) is not None],
        create_time=timestamp(message.create_time),
        turn_id=message.turn_id,
    )


def _block(block: dict[str, Any]) -> pb.ContentBlock | None:
    """Convert a part of a message; one that says nothing, such as encrypted reasoning, is left out."""
    if "text" in block:
        return pb.ContentBlock(text=block["text"])
    if use := block.get("toolUse"):
        return pb.ContentBlock(
            tool_use=pb.ToolUse(
                tool_call_id=use["toolUseId"],
                name=use["name"],
                input_json=json.dumps(use["input"], ensure_ascii=False),
            )
        )
    if result := block.get("toolResult"):
        return pb.ContentBlock(
            tool_result=pb.ToolResult(
                tool_call_id=result["toolUseId"],
                status=_tool_status(succeeded=result["status"] == "success"),
                output=tool_output(result["content"]),
            )
        )
    reasoning = block.get("reasoningContent", {}).get("reasoningText", {}).get("text")
    return pb.ContentBlock(reasoning=reasoning) if reasoning else None


def _tool_status(*, succeeded: bool) -> pb.ToolCallStatus:
    return pb.TOOL_CALL_STATUS_SUCCESS if succeeded else pb.TOOL_CALL_STATUS_ERROR


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
    finished.status = _tool_status(succeeded=event.succeeded)
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
