"""The events of a turn. The package `rpc` converts each into a message of the stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from godoty_service.actions.action import StepCall
from godoty_service.budgets.alerts import BudgetAlert
from godoty_service.citations import Citation
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.totals import Totals


class StopReason(StrEnum):
    """Why a turn ended."""

    END_TURN = "end_turn"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    MAX_MODEL_CALLS = "max_model_calls"
    CONTENT_FILTERED = "content_filtered"
    INTERRUPTED = "interrupted"
    BUDGET = "budget"
    OUTPUT_INVALID = "output_invalid"
    ACTION_REQUIRED = "action_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted:
    """The turn has started, and the user's text is durable.

    Attributes:
        totals: The session's totals before the turn.
        agent: The name of the agent; empty: the event is of an earlier build.
        agent_version: The number of the agent's version; None: likewise.
        stores_starts: In steps of several tool calls, a call begins once its start is stored; False: an earlier build.
    """

    session_id: str
    session_created: bool
    totals: Totals
    agent: str = ""
    agent_version: int | None = None
    stores_starts: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Annotations:
    """Citations of the answer."""

    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """A tool call has started. `sub_agent_path` is the path of the sub-agent that it runs; empty: it runs none."""

    tool_call_id: str
    name: str
    input_json: str
    sub_agent_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress:
    """A running tool call reports how far it has come. `progress_total` is None if unknown; `message` may be empty."""

    tool_call_id: str
    progress: float
    progress_total: float | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallFinished:
    """A tool call has ended.

    Attributes:
        content: The output as the model gets it; empty: it is the text alone.
    """

    tool_call_id: str
    succeeded: bool
    output: str
    duration: timedelta
    content: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallFinished:
    """A request to the provider has ended."""

    call: ModelCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSummary:
    """A tool's calls in the turn."""

    name: str
    calls: int
    errors: int
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """The turn has ended.

    Attributes:
        output_json: The value of a turn with an output schema; None: there is none.
        actions: The actions that are open, without their inputs.
    """

    stop_reason: StopReason
    turn_totals: Totals
    session_totals: Totals
    cycle_durations: tuple[timedelta, ...]
    tools: tuple[ToolSummary, ...]
    output_json: str | None = None
    actions: tuple[StepCall, ...] = ()


@dataclass(frozen=True, slots=True)
class ActionRequired:
    """A tool call waits for an answer, and what the session needs to go on is durable."""

    action: StepCall


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReached:
    """The tenant's spending has reached an alert threshold of a budget."""

    alert: BudgetAlert


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The turn is running, and no event has occurred for a while. No log contains it."""


HEARTBEAT = Heartbeat()


@dataclass(frozen=True, slots=True)
class SubAgentEvent:
    """An event of a sub-agent. It is no event of the turn's own agent, so it has no part in the answer.

    Attributes:
        path: The sub-agent, as in `ModelCall.agent_path`.
        event: The event.
    """

    path: str
    event: "ToolCallStarted | ToolProgress | ToolCallFinished | ModelCallFinished | ActionRequired"


Event = (
    TurnStarted
    | TextDelta
    | ReasoningDelta
    | Annotations
    | ToolCallStarted
    | ToolProgress
    | ToolCallFinished
    | ModelCallFinished
    | TurnFinished
    | BudgetReached
    | ActionRequired
    | SubAgentEvent
)
StreamEvent = Event | Heartbeat  # the events of a reader

# An event with its sequence, and its time in milliseconds since 1970; None: the log has no times.
StoredEvent = tuple[int, Event, int | None]
ReadEvent = tuple[int, StreamEvent, int | None]
