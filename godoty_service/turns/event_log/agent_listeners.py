"""Listeners of an agent's loop and tools: they append model calls and tool calls to the turn's event log."""

import json
from datetime import timedelta
from typing import Any

from strands.hooks import AfterToolCallEvent, BeforeToolCallEvent, HookProvider, HookRegistry
from strands.types.tools import ToolResultContent, ToolUse

from godoty_service.agents.mcp.tools import ProgressReport
from godoty_service.metering.meter import TurnMeter
from godoty_service.sessions.messages import tool_result_text
from godoty_service.turns.event_log.answer_listener import AnswerListener
from godoty_service.turns.event_log.events import (
    BudgetReached,
    ModelCallFinished,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolSummary,
)
from godoty_service.turns.event_log.log import EventLog


class CallListener:
    """Receives the events of the agent's loop: appends finished model calls and budget alerts.

    Attributes:
        cycle_providers: The provider that served each finished cycle's model call, in order; None: unknown.
    """

    def __init__(self, log: EventLog, *, meter: TurnMeter, answer: AnswerListener) -> None:
        self._log = log
        self._meter = meter
        self._answer = answer
        self._appended = 0
        self.cycle_providers: list[str | None] = []

    def on_event(self, event: dict[str, Any]) -> None:
        """Handle an event of `Agent.stream_async`."""
        if "modelCall" in event.get("event", {}):
            self._append_calls()
        elif "tool_stream_event" in event:
            self._append_progress(**event["tool_stream_event"])
        elif "message" in event:
            self._answer.complete()
            if event["message"]["role"] == "assistant":  # the model call of a cycle has ended without an error
                calls = self._meter.entries
                self.cycle_providers.append(calls[-1].provider if calls else None)

    def _append_progress(self, tool_use: ToolUse, data: Any) -> None:
        """Append a report of a running tool; other tools stream data of their own."""
        if isinstance(data, ProgressReport):
            self._log.append(
                ToolProgress(
                    tool_call_id=tool_use["toolUseId"],
                    progress=data.progress,
                    total=data.total,
                    message=data.message,
                )
            )

    def _append_calls(self) -> None:
        """Append the calls that have finished, including those of a summary, which no event announces."""
        calls = self._meter.entries
        for call in calls[self._appended :]:
            self._log.append(ModelCallFinished(call=call))
        self._appended = len(calls)
        alerts = self._meter.turn_budget.alerts
        while alerts:
            self._log.append(BudgetReached(alert=alerts.pop(0)))


class ToolListener(HookProvider):
    """Appends the start and the end of each tool call, and sums the calls by tool."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._summaries: dict[str, ToolSummary] = {}

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register both hooks; neither of them awaits."""
        registry.add_callback(BeforeToolCallEvent, self._on_start)
        registry.add_callback(AfterToolCallEvent, self._on_end)

    def summaries(self) -> tuple[ToolSummary, ...]:
        """Return a summary of each tool, in the order of their first calls."""
        return tuple(self._summaries.values())

    def _on_start(self, event: BeforeToolCallEvent) -> None:
        use = event.tool_use
        self._log.append(
            ToolCallStarted(
                tool_call_id=use["toolUseId"],
                name=use["name"],
                input_json=json.dumps(use["input"], ensure_ascii=False),
            )
        )

    def _on_end(self, event: AfterToolCallEvent) -> None:
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
                duration=duration,
            )
        )


class ToolOutputLimit(HookProvider):
    """Cuts each tool result to a maximum size before it is appended, stored or sent to the model."""

    def __init__(self, max_bytes: int) -> None:
        """Initialize the limit.

        Args:
            max_bytes: Bytes of UTF-8 that a result may have, without the note about the cut.
        """
        self._max_bytes = max_bytes

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register the hook. After a tool call, Strands calls the last hook provider of an agent first."""
        registry.add_callback(AfterToolCallEvent, self._cut_result)

    def _cut_result(self, event: AfterToolCallEvent) -> None:
        content = cut_tool_result(event.result["content"], max_bytes=self._max_bytes)
        if content is not event.result["content"]:
            event.result = {**event.result, "content": content}


def cut_tool_result(content: list[ToolResultContent], *, max_bytes: int) -> list[ToolResultContent]:
    """Return a tool result cut to a number of bytes, with a note for the model and the user; unchanged if it fits."""
    remaining = max_bytes
    for index, block in enumerate(content):
        text = tool_result_text([block])
        start = _start(text, remaining)
        if len(start) < len(text):
            dropped = len(text) - len(start) + sum(len(tool_result_text([each])) for each in content[index + 1 :])
            note = f"\n[The result is cut: {dropped:,} more characters are left out.]"
            return [*content[:index], {"text": start + note}]
        remaining -= len(text.encode("utf-8", "replace"))
    return content


def _start(text: str, max_bytes: int) -> str:
    """Return the start of a text, with at most a number of bytes in UTF-8."""
    if len(text) * 4 <= max_bytes:
        return text
    return text[: max(max_bytes, 0)].encode("utf-8", "replace")[: max(max_bytes, 0)].decode(errors="ignore")
