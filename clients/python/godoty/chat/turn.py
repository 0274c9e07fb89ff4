"""Shows the events of one turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from godoty.chat.formatting import format_cost, format_duration, format_totals
from godoty.types import (
    Annotations,
    Event,
    ModelCall,
    ModelCallFinished,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallStatus,
    TurnFinished,
    TurnStarted,
)

if TYPE_CHECKING:
    from godoty.chat.screen import Screen

_STOPPED = {
    StopReason.MAX_OUTPUT_TOKENS: "the answer reached its limit of output tokens",
    StopReason.MAX_MODEL_CALLS: "the turn reached its limit of model calls",
    StopReason.CONTENT_FILTERED: "the provider's filter stopped the answer",
    StopReason.INTERRUPTED: "the server that ran the turn stopped",
    StopReason.BUDGET: "the budget does not cover a longer answer",
    StopReason.OUTPUT_INVALID: "no answer was valid by the output schema",
}

_MAX_SOURCES = 10  # pages that are shown


class TurnView:
    """Shows the events of a turn as they arrive."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._tools: dict[str, ToolCallStarted] = {}
        self._served: list[str] = []
        self._sources: dict[str, str] = {}  # titles by address

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case TurnStarted():
                self._screen.wait("waiting for the model")
            case TextDelta(text):
                self._screen.stream(text)
            case ReasoningDelta(text):
                self._screen.stream(text, style="dim")
            case Annotations(citations):
                for page in citations:
                    self._sources.setdefault(page.url, page.title)
            case ToolCallStarted():
                self._begin_tool(event)
            case ToolCallFinished():
                self._end_tool(event)
            case ModelCallFinished(call):
                self._end_model_call(call)
            case TurnFinished():
                self._finish(event)

    def _begin_tool(self, call: ToolCallStarted) -> None:
        self._tools[call.tool_call_id] = call
        self._screen.wait(f"running {call.name}")

    def _end_tool(self, end: ToolCallFinished) -> None:
        call = self._tools.pop(end.tool_call_id, ToolCallStarted(name="tool"))
        failed = end.status is ToolCallStatus.ERROR
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

    def _finish(self, end: TurnFinished) -> None:
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
