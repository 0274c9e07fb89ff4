"""Shows the events of one turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from godoty.chat.formatting import format_cost, format_duration, format_totals
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

if TYPE_CHECKING:
    from godoty.chat.screen import Screen
    from godoty.v1.metering_pb2 import ModelCall

_STOPPED = {
    turn_pb.STOP_REASON_MAX_OUTPUT_TOKENS: "the answer reached its limit of output tokens",
    turn_pb.STOP_REASON_MAX_MODEL_CALLS: "the turn reached its limit of model calls",
    turn_pb.STOP_REASON_CONTENT_FILTERED: "the provider's filter stopped the answer",
    turn_pb.STOP_REASON_INTERRUPTED: "the server that ran the turn stopped",
    turn_pb.STOP_REASON_BUDGET: "the budget does not cover a longer answer",
    turn_pb.STOP_REASON_OUTPUT_INVALID: "no answer was valid by the output schema",
}

_MAX_SOURCES = 10  # pages that are shown


class TurnView:
    """Shows the events of a turn as they arrive."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._tools: dict[str, turn_pb.ToolCallStarted] = {}
        self._served: list[str] = []
        self._sources: dict[str, str] = {}  # titles by address
        self.session_id = ""

    def show(self, event: turn_pb.TurnEvent) -> None:
        """Show one event; an event of a later version of the contract is skipped."""
        match event.WhichOneof("event"):
            case "turn_started":
                self.session_id = event.turn_started.session_id
                self._screen.wait("waiting for the model")
            case "text_delta":
                self._screen.stream(event.text_delta.text)
            case "reasoning_delta":
                self._screen.stream(event.reasoning_delta.text, style="dim")
            case "annotations":
                for page in event.annotations.citations:
                    self._sources.setdefault(page.url, page.title)
            case "tool_call_started":
                self._begin_tool(event.tool_call_started)
            case "tool_call_finished":
                self._end_tool(event.tool_call_finished)
            case "model_call_finished":
                self._end_model_call(event.model_call_finished.call)
            case "turn_finished":
                self._finish(event.turn_finished)

    def _begin_tool(self, call: turn_pb.ToolCallStarted) -> None:
        self._tools[call.tool_call_id] = call
        self._screen.wait(f"running {call.name}")

    def _end_tool(self, end: turn_pb.ToolCallFinished) -> None:
        call = self._tools.pop(end.tool_call_id, turn_pb.ToolCallStarted(name="tool"))
        failed = end.status == session_pb.TOOL_CALL_STATUS_ERROR
        outcome = f"{'failed' if failed else 'ok'} in {format_duration(end.duration)}: {end.output}"
        self._screen.tool(call.name, call.input_json, outcome, failed=failed)
        waiting_for = ", ".join(tool.name for tool in self._tools.values())
        self._screen.wait(f"running {waiting_for}" if waiting_for else "waiting for the model")

    def _end_model_call(self, call: ModelCall) -> None:
        if call.served_model and call.served_model not in self._served:
            self._served.append(call.served_model)
        if call.error:
            cost = format_cost(call.cost_usd)
            self._screen.line(f"model call, attempt {call.attempt}: {call.error} (cost: {cost})", style="yellow")

    def _finish(self, end: turn_pb.TurnFinished) -> None:
        for url, title in list(self._sources.items())[:_MAX_SOURCES]:
            self._screen.line(f"source: {title or 'untitled'} {url}", style="dim")
        if end.stop_reason in _STOPPED:
            self._screen.line(f"stopped: {_STOPPED[end.stop_reason]}", style="yellow")
        parts = [
            f"turn: {format_totals(end.turn_totals, turns=False)}",
            f"session: {format_totals(end.session_totals)}",
        ]
        if self._served:
            parts.append(", ".join(self._served))
        self._screen.line(" | ".join(parts), style="green")
