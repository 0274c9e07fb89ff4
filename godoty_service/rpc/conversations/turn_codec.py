"""Converts turns and their events to messages of turn.proto, and the requests of StartTurn and WaitTurn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import turn_pb2 as pb
from godoty.v1.budget_pb2 import BudgetAlert

from godoty_service.errors import InvalidRequest
from godoty_service.pricing.money import format_usd
from godoty_service.rpc.conversations.action_codec import action_message
from godoty_service.rpc.conversations.codec import citation_message, parse_turn_id, tool_status
from godoty_service.rpc.metering_codec import call_message, duration, timestamp, totals_message
from godoty_service.rpc.validation import Violations
from godoty_service.turns.event_log import events
from godoty_service.turns.listing import TurnSummary

_WAIT: Final = timedelta(seconds=30)  # of WaitTurn, unless the request says otherwise
_LONGEST_WAIT: Final = timedelta(minutes=5)
_NANOSECONDS = 1_000_000  # of a millisecond
_STOP_REASONS = {each: pb.StopReason.Value(f"STOP_REASON_{each.name}") for each in events.StopReason}


def parse_start(request: agent_pb.StartTurnRequest) -> agent_pb.ConverseRequest:
    """Return the request of Converse that begins the same turn.

    Raises:
        InvalidRequest: There is none.
    """
    if not request.HasField("request"):
        raise InvalidRequest.of("request", "must be set")
    converse = agent_pb.ConverseRequest()
    converse.CopyFrom(request.request)
    if converse.on_disconnect == pb.ON_DISCONNECT_CANCEL:
        raise InvalidRequest.of("request.on_disconnect", "must be ON_DISCONNECT_CONTINUE, or unset")
    converse.on_disconnect = converse.on_disconnect or pb.ON_DISCONNECT_CONTINUE
    return converse


@contextmanager
def within(path: str) -> Iterator[None]:
    """Name the invalid fields of a message by their paths in the request that has it."""
    try:
        yield
    except InvalidRequest as error:
        error.violations = tuple(replace(each, field=f"{path}.{each.field}") for each in error.violations)
        raise


def parse_wait(request: agent_pb.WaitTurnRequest) -> tuple[str, timedelta]:
    """Return the turn to wait for, and for how long.

    Raises:
        InvalidRequest: A field is invalid.
    """
    violations = Violations()
    longest = _WAIT
    if request.HasField("timeout"):
        longest = violations.read_duration("timeout", request.timeout, most=_LONGEST_WAIT)
    turn_id = parse_turn_id(request.turn_id)
    violations.raise_if_any()
    return turn_id, longest


def fill_event(message: pb.TurnEvent, turn_id: str, read: events.ReadEvent) -> None:
    """Fill an empty message with an event of a turn."""
    sequence, event, time = read
    message.turn_id = turn_id
    message.sequence = sequence
    if time is not None:
        seconds, milliseconds = divmod(time, 1000)
        message.time.seconds, message.time.nanos = seconds, milliseconds * _NANOSECONDS
    _FILL[type(event)](message, event)


def turn_message(turn: TurnSummary) -> pb.Turn:
    """Convert a turn."""
    message = pb.Turn(
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        state=f"TURN_STATE_{turn.state.name}",
        error_reason=turn.error_reason or "",
        model=turn.model or "",
        agent=turn.agent,
        agent_version=turn.agent_version,
        user=turn.user or "",
        request_id=turn.request_id or "",
        totals=totals_message(turn.totals),
        create_time=timestamp(turn.create_time),
        end_time=timestamp(turn.end_time) if turn.end_time is not None else None,
        output_json=turn.output_json,
    )
    if turn.stop_reason is not None:
        message.stop_reason = _STOP_REASONS[turn.stop_reason]  # type: ignore[assignment] # a number at run time
    return message


def _started(message: pb.TurnEvent, event: events.TurnStarted) -> None:
    message.turn_started.session_id = event.session_id
    message.turn_started.session_created = event.session_created
    message.turn_started.totals.CopyFrom(totals_message(event.totals))
    message.turn_started.agent = event.agent
    if event.agent_version is not None:
        message.turn_started.agent_version = event.agent_version


def _text(message: pb.TurnEvent, event: events.TextDelta) -> None:
    message.text_delta.text = event.text


def _reasoning(message: pb.TurnEvent, event: events.ReasoningDelta) -> None:
    message.reasoning_delta.text = event.text


def _annotations(message: pb.TurnEvent, event: events.Annotations) -> None:
    message.annotations.citations.extend(map(citation_message, event.citations))


def _tool_started(message: pb.TurnEvent, event: events.ToolCallStarted) -> None:
    started = message.tool_call_started
    started.tool_call_id, started.name, started.input_json = event.tool_call_id, event.name, event.input_json
    started.sub_agent_path = event.sub_agent_path


def _tool_progress(message: pb.TurnEvent, event: events.ToolProgress) -> None:
    reported = message.tool_progress
    reported.tool_call_id, reported.progress, reported.message = event.tool_call_id, event.progress, event.message
    if event.progress_total is not None:
        reported.total = event.progress_total


def _tool_finished(message: pb.TurnEvent, event: events.ToolCallFinished) -> None:
    finished = message.tool_call_finished
    finished.tool_call_id, finished.output = event.tool_call_id, event.output
    finished.status = tool_status(succeeded=event.succeeded)
    finished.duration.FromTimedelta(event.duration)


def _call_finished(message: pb.TurnEvent, event: events.ModelCallFinished) -> None:
    message.model_call_finished.call.CopyFrom(call_message(event.call))


def _turn_finished(message: pb.TurnEvent, event: events.TurnFinished) -> None:
    finished = message.turn_finished
    finished.stop_reason = _STOP_REASONS[event.stop_reason]  # type: ignore[assignment] # a number at run time
    finished.turn_totals.CopyFrom(totals_message(event.turn_totals))
    finished.session_totals.CopyFrom(totals_message(event.session_totals))
    for cycle in event.cycle_durations:
        finished.cycle_durations.add().FromTimedelta(cycle)
    for tool in event.tools:
        finished.tools.add(name=tool.name, calls=tool.calls, errors=tool.errors, duration=duration(tool.duration))
    if event.output_json is not None:
        finished.output_json = event.output_json
    finished.actions.extend(map(action_message, event.actions))


def _budget_reached(message: pb.TurnEvent, event: events.BudgetReached) -> None:
    alert = event.alert
    message.budget_alert.CopyFrom(
        BudgetAlert(
            window=f"BUDGET_WINDOW_{alert.window.name}",
            percent=alert.percent,
            spent_usd=format_usd(alert.spent),
            limit_usd=format_usd(alert.limit),
        )
    )


def _action_required(message: pb.TurnEvent, event: events.ActionRequired) -> None:
    message.action_required.CopyFrom(action_message(event.action))


def _sub_agent(message: pb.TurnEvent, event: events.SubAgentEvent) -> None:
    message.agent_path = event.path
    _FILL[type(event.event)](message, event.event)


def _heartbeat(message: pb.TurnEvent, _: events.Heartbeat) -> None:
    message.heartbeat.SetInParent()


_FILL: dict[type, Callable[[pb.TurnEvent, Any], None]] = {
    events.TurnStarted: _started,
    events.TextDelta: _text,
    events.ReasoningDelta: _reasoning,
    events.Annotations: _annotations,
    events.ToolCallStarted: _tool_started,
    events.ToolProgress: _tool_progress,
    events.ToolCallFinished: _tool_finished,
    events.ModelCallFinished: _call_finished,
    events.TurnFinished: _turn_finished,
    events.BudgetReached: _budget_reached,
    events.ActionRequired: _action_required,
    events.SubAgentEvent: _sub_agent,
    events.Heartbeat: _heartbeat,
}
