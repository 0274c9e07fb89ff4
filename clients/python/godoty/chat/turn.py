"""What happens in one turn, shown as it arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from godoty.chat.formatting import count_of, format_cost
from godoty.types import (
    Action,
    Annotations,
    BudgetAlert,
    Citation,
    Event,
    ModelCall,
    ModelCallFinished,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallStatus,
    ToolProgress,
    TurnFinished,
    TurnStarted,
)

if TYPE_CHECKING:
    from godoty.chat.screen import Screen
    from godoty.chat.status import Status

_STOPPED = {
    StopReason.MAX_OUTPUT_TOKENS: "the answer reached its limit of output tokens",
    StopReason.MAX_MODEL_CALLS: "the turn reached its limit of model calls",
    StopReason.CONTENT_FILTERED: "the provider's filter stopped the answer",
    StopReason.INTERRUPTED: "the server that ran the turn stopped; what is above is all that it answered",
    StopReason.BUDGET: "the budget does not cover a longer answer",
    StopReason.OUTPUT_INVALID: "no answer was valid by the output schema",
}

_MAX_SOURCES = 10  # pages that are shown
_TEXTS = {ReasoningDelta, TextDelta}


@dataclass
class ToolCall:
    """A tool call, and its outcome once there is one."""

    started: ToolCallStarted
    finished: ToolCallFinished | None = None


@dataclass
class TurnRecord:
    """What has happened in a turn.

    Attributes:
        finished: Its end. None: it has not come.
        actions: What the turn waits for.
        lost_connections: How often the connection was lost.
    """

    session_id: str = ""
    turn_id: str = ""
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tools: dict[tuple[str, str], ToolCall] = field(default_factory=dict)
    calls: list[ModelCall] = field(default_factory=list)
    sources: dict[str, Citation] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    finished: TurnFinished | None = None
    lost_connections: int = 0
    served: list[str] = field(default_factory=list)
    """Who answered and how fast, for people."""

    @property
    def models(self) -> list[str]:
        """The models that answered, each once."""
        return list(dict.fromkeys(call.served_model for call in self.calls if call.served_model))


class TurnView:
    """Shows the events of a turn.

    Args:
        screen: Where they are shown.
        status: Follows them.
        show_reasoning: The model's reasoning is shown, and not its length alone.

    Attributes:
        record: What has happened.
    """

    def __init__(self, screen: Screen, status: Status, *, show_reasoning: bool) -> None:
        self._screen = screen
        self._status = status
        self._show_reasoning = show_reasoning
        self._reasoned = 0  # characters that were not shown
        self._last: type[Event] = TurnStarted
        self.record = TurnRecord()

    def show(self, event: Event) -> None:
        """Show one event."""
        if type(event) is not Annotations:  # these come within the text
            if type(event) is not self._last and self._last in _TEXTS:
                self._end_text()
            self._last = type(event)
        self._status.receive(event)
        match event:
            case TextDelta(text):
                self.record.text.append(text)
                self._activity("")
                self._screen.stream(text)
            case ReasoningDelta(text):
                self._reason(text)
            case TurnStarted():
                self.record.session_id = event.session_id
                self.record.turn_id = event.turn_id
                self._activity("waiting for the model")
            case ToolCallStarted() | ToolProgress() | ToolCallFinished():
                self._show_tool(event)
            case _:
                self._show_other(event)

    def end(self) -> None:
        """End what is shown of the answer, in whichever way the turn has ended."""
        self._end_text()

    def _show_other(self, event: Event) -> None:
        match event:
            case Annotations(citations):
                for page in citations:
                    self.record.sources.setdefault(page.url, page)
            case ModelCallFinished(call):
                self._end_model_call(call)
            case BudgetAlert():
                limit, spent = format_cost(event.limit_usd), format_cost(event.spent_usd)
                window = f"budget of the {event.window.lower()}" if event.window else "budget"
                self._screen.line(f"{event.percent} % of the {window} are spent: {spent} of {limit}", style="yellow")
            case Action():
                self.record.actions.append(event)
            case TurnFinished():
                self._finish(event)

    def _reason(self, text: str) -> None:
        self.record.reasoning.append(text)
        if self._show_reasoning:
            self._screen.stream(text, reasoning=True)
            return
        self._reasoned += len(text)
        self._activity(f"reasoning, {count_of(self._reasoned, 'character')}")

    def _end_text(self) -> None:
        self._screen.end_answer()
        if self._reasoned and self._screen.interactive:
            self._screen.line(f"reasoning: {count_of(self._reasoned, 'character')}, /details shows it", style="dim")
        self._reasoned = 0

    def _show_tool(self, event: ToolCallStarted | ToolProgress | ToolCallFinished) -> None:
        place = (event.agent_path, event.tool_call_id)
        match event:
            case ToolCallStarted():
                self.record.tools[place] = ToolCall(event)
            case ToolProgress():
                total = f" of {event.total:g}" if event.total is not None else ""
                name = self._call(event).started.name
                self._activity(f"running {name}: {event.progress:g}{total} {event.message}".strip())
                return
            case ToolCallFinished():
                call = self._call(event)
                call.finished = event
                self._show_outcome(call.started, event)
        waiting_for = [call.started.name for call in self.record.tools.values() if call.finished is None]
        self._activity(f"running {', '.join(waiting_for)}" if waiting_for else "waiting for the model")

    def _call(self, event: ToolProgress | ToolCallFinished) -> ToolCall:
        unknown = ToolCall(ToolCallStarted(tool_call_id=event.tool_call_id, name="tool"))
        return self.record.tools.setdefault((event.agent_path, event.tool_call_id), unknown)

    def _show_outcome(self, call: ToolCallStarted, end: ToolCallFinished) -> None:
        failed = end.status is ToolCallStatus.ERROR
        name = f"{end.agent_path}/{call.name}" if end.agent_path else call.name
        self._screen.tool(name, call.input_json, end.output, failed=failed, duration=end.duration)

    def _end_model_call(self, call: ModelCall) -> None:
        self.record.calls.append(call)
        if call.error:
            cost = format_cost(call.cost_usd)
            self._screen.line(f"model call, attempt {call.attempt}: {call.error} (cost: {cost})", style="yellow")
            self._activity("waiting for the model")

    def _finish(self, end: TurnFinished) -> None:
        self.record.finished = end
        for url, page in list(self.record.sources.items())[:_MAX_SOURCES]:
            self._screen.line(f"source: {page.title or 'untitled'} {url}", style="dim")
        if self.record.lost_connections:
            times = count_of(self.record.lost_connections, "time")
            self._screen.line(f"the connection was lost {times}, and made again", style="yellow")
        if end.stop_reason in _STOPPED:
            kind = "interrupted" if end.stop_reason is StopReason.INTERRUPTED else "stopped"
            self._screen.line(f"{kind}: {_STOPPED[end.stop_reason]}", style="yellow")
        self.record.served = self._status.served()
        self._screen.turn(self.record)

    def _activity(self, text: str) -> None:
        self._status.activity = text
        self._screen.activity(text)
