"""Listeners of an agent's loop and tools: they append model calls and tool calls to the turn's event log."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from strands.hooks import AfterToolCallEvent, BeforeToolCallEvent, HookProvider, HookRegistry
from strands.types.tools import AgentTool, ToolUse

from godoty_service.agents.mcp.tools import McpTool, ProgressReport
from godoty_service.agents.tools.client import OfferedClientTool
from godoty_service.agents.tools.outcomes import ToolKind, ToolOutcome, outcome_of
from godoty_service.attachments.blocks import attachment_of
from godoty_service.metering.meter import TurnMeter
from godoty_service.sessions.messages import tool_result_text
from godoty_service.turns.agents.kept_tools import KeptResult
from godoty_service.turns.agents.sub_agent_tool import SubAgentTool
from godoty_service.turns.event_log.events import (
    ActionRequired,
    BudgetReached,
    Event,
    ModelCallFinished,
    SubAgentEvent,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolSummary,
)

ObserveToolCall = Callable[[ToolKind, ToolOutcome, timedelta], None]
_OF_AGENTS = (ToolCallStarted, ToolProgress, ToolCallFinished, ModelCallFinished, ActionRequired)


class EventSink(Protocol):
    """Takes events of an agent: the turn's log, or a part of it."""

    def append(self, event: Event) -> None:
        """Append an event."""


class SubAgentLog:
    """The part of a turn's log that has a sub-agent's events."""

    def __init__(self, log: EventSink, path: str) -> None:
        self._log = log
        self._path = path

    def append(self, event: Event) -> None:
        """Append an event of the sub-agent; other kinds of events are of the turn."""
        if isinstance(event, _OF_AGENTS):
            event = SubAgentEvent(self._path, event)
        self._log.append(event)


class Answer(Protocol):
    """Receives the ends of messages."""

    def complete(self) -> None:
        """Mark the text so far as a complete message."""


class CallAnnouncer:
    """Appends the model calls of all agents of a turn as they end, each once, and budget alerts."""

    def __init__(self, log: EventSink, meter: TurnMeter) -> None:
        self._log = log
        self._meter = meter
        self._announced: set[str] = set()

    def announce(self) -> None:
        """Append the calls that have ended since, including those of a summary, which no event announces."""
        for call in self._meter.finished:
            if call.call_id not in self._announced:
                self._announced.add(call.call_id)
                log = SubAgentLog(self._log, call.agent_path) if call.agent_path else self._log
                log.append(ModelCallFinished(call=call))
        alerts = self._meter.turn_budget.alerts
        while alerts:
            self._log.append(BudgetReached(alert=alerts.pop(0)))


class CallListener:
    """Receives the events of one agent's loop: appends finished model calls, progress of tools and budget alerts.

    Attributes:
        announcer: Appends the calls.
        cycle_providers: The provider that served each finished cycle's model call, in order; None: unknown.
    """

    def __init__(self, log: EventSink, *, meter: TurnMeter, answer: Answer, announcer: CallAnnouncer) -> None:
        self._log = log
        self._meter = meter
        self._answer = answer
        self.announcer = announcer
        self.cycle_providers: list[str | None] = []

    def on_event(self, event: dict[str, Any]) -> None:
        """Handle an event of `Agent.stream_async`."""
        if "modelCall" in event.get("event", {}):
            self.announcer.announce()
        elif "tool_stream_event" in event:
            self._append_progress(**event["tool_stream_event"])
        elif "message" in event:
            self._answer.complete()
            if event["message"]["role"] == "assistant":  # the model call of a cycle has ended without an error
                calls = [call for call in self._meter.entries if not call.agent_path]
                self.cycle_providers.append(calls[-1].provider if calls else None)

    def _append_progress(self, tool_use: ToolUse, data: Any) -> None:
        """Append a report of a running tool; other tools stream data of their own."""
        if isinstance(data, ProgressReport):
            self._log.append(
                ToolProgress(
                    tool_call_id=tool_use["toolUseId"],
                    progress=data.progress,
                    progress_total=data.total,
                    message=data.message,
                )
            )


class ToolListener(HookProvider):
    """Appends the start and the end of each tool call, and sums the calls by tool."""

    def __init__(self, log: EventSink, *, observe: ObserveToolCall, turn: "ToolListener | None" = None) -> None:
        """Initialize the listener.

        Args:
            log: Gets the events.
            observe: Measures each call.
            turn: The listener of the turn's own agent, with which the calls of a sub-agent are summed; None: it is it.
        """
        self._log = log
        self._observe = observe
        self._summaries: dict[str, ToolSummary] = turn._summaries if turn is not None else {}  # noqa: SLF001 - its own class

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register both hooks; neither of them awaits."""
        registry.add_callback(BeforeToolCallEvent, self._on_start)
        registry.add_callback(AfterToolCallEvent, self._on_end)

    def summaries(self) -> tuple[ToolSummary, ...]:
        """Return a summary of each tool, in the order of their first calls."""
        return tuple(self._summaries.values())

    def _on_start(self, event: BeforeToolCallEvent) -> None:
        use, tool = event.tool_use, event.selected_tool
        if isinstance(tool, KeptResult) and tool.shown:
            return
        self._log.append(
            ToolCallStarted(
                tool_call_id=use["toolUseId"],
                name=use["name"],
                input_json=json.dumps(use["input"], ensure_ascii=False),
                sub_agent_path=tool.path_of(use["toolUseId"]) if isinstance(tool, SubAgentTool) else "",
            )
        )

    def _on_end(self, event: AfterToolCallEvent) -> None:
        if isinstance(event.selected_tool, KeptResult) and event.selected_tool.shown:
            return
        name = event.tool_use["name"]
        duration = timedelta(seconds=event.duration or 0.0)
        succeeded = event.result["status"] == "success"
        known = self._summaries.get(name) or ToolSummary(name=name, calls=0, errors=0, duration=timedelta())
        self._summaries[name] = ToolSummary(
            name=name,
            calls=known.calls + 1,
            errors=known.errors + (not succeeded),
            duration=known.duration + duration,
        )
        self._log.append(
            ToolCallFinished(
                tool_call_id=event.tool_use["toolUseId"],
                succeeded=succeeded,
                output=tool_result_text(event.result["content"]),
                content=_more_than_text(event.result["content"]),
                duration=duration,
            )
        )
        cancelled = event.cancel_message is not None
        tool = event.selected_tool or event.agent.tool_registry.registry.get(name)
        outcome = outcome_of(succeeded=succeeded, error=event.exception, cancelled=cancelled or tool is None)
        self._observe(_kind_of(tool), outcome, duration)


def _kind_of(tool: AgentTool | None) -> ToolKind:
    if tool is None:
        return ToolKind.UNKNOWN
    if isinstance(tool, KeptResult | OfferedClientTool):
        return ToolKind.CLIENT
    if isinstance(tool, McpTool):
        return ToolKind.MCP
    return ToolKind.AGENT if isinstance(tool, SubAgentTool) else ToolKind.BUILT_IN


def _more_than_text(content: Sequence[Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the content of a result that names attachments; nothing: its text says all."""
    return tuple(content) if any(attachment_of(block) is not None for block in content) else ()
