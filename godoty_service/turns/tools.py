"""Watches the tools of a turn: an event when one begins and ends, and how each did in all."""

import json
from datetime import timedelta
from typing import Any

from strands.hooks import AfterToolCallEvent, BeforeToolCallEvent, HookProvider, HookRegistry

from godoty_service.turns.events import ToolCallFinished, ToolCallStarted, ToolSummary
from godoty_service.turns.log import EventLog
from godoty_service.turns.tool_output import tool_output


class ToolWatch(HookProvider):
    """Strands' tool hooks, as events."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._tools: dict[str, ToolSummary] = {}

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register both hooks; neither waits for anything."""
        registry.add_callback(BeforeToolCallEvent, self._started)
        registry.add_callback(AfterToolCallEvent, self._finished)

    def summaries(self) -> tuple[ToolSummary, ...]:
        """Tell how each tool did, in the order of their first calls."""
        return tuple(self._tools.values())

    def _started(self, event: BeforeToolCallEvent) -> None:
        use = event.tool_use
        self._log.append(
            ToolCallStarted(
                tool_call_id=use["toolUseId"],
                name=use["name"],
                input_json=json.dumps(use["input"], ensure_ascii=False),
            )
        )

    def _finished(self, event: AfterToolCallEvent) -> None:
        name = event.tool_use["name"]
        duration = timedelta(seconds=event.duration or 0.0)
        succeeded = event.result["status"] == "success"
        known = self._tools.get(name) or ToolSummary(name=name, calls=0, errors=0, duration=timedelta())
        self._tools[name] = ToolSummary(
            name=name,
            calls=known.calls + 1,
            errors=known.errors + (not succeeded),
            duration=known.duration + duration,
        )
        self._log.append(
            ToolCallFinished(
                tool_call_id=event.tool_use["toolUseId"],
                succeeded=succeeded,
                output=tool_output(event.result["content"]),
                duration=duration,
            )
        )
