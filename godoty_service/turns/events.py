"""What happens in a turn. The rpc room turns each into a message of the stream."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from godoty_service.metering.budgets import BudgetAlert
from godoty_service.metering.call import ModelCall
from godoty_service.metering.totals import Totals


class StopReason(StrEnum):
    """Why a turn ended."""

    END_TURN = "end_turn"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    MAX_MODEL_CALLS = "max_model_calls"
    CONTENT_FILTERED = "content_filtered"
    INTERRUPTED = "interrupted"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted:
    """The user's words are kept. `totals` is what the session has cost before."""

    session_id: str
    session_created: bool
    totals: Totals


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Some more of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """A tool begins to run."""

    tool_call_id: str
    name: str
    input_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallFinished:
    """A tool ended."""

    tool_call_id: str
    succeeded: bool
    output: str
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallFinished:
    """A request to the provider ended."""

    call: ModelCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSummary:
    """How a tool did in the turn."""

    name: str
    calls: int
    errors: int
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """The turn has ended."""

    stop_reason: StopReason
    turn_totals: Totals
    session_totals: Totals
    cycle_durations: tuple[timedelta, ...]
    tools: tuple[ToolSummary, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReached:
    """The tenant's spending has reached a share of a budget."""

    alert: BudgetAlert


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing has happened for a while, and the turn goes on. It stands in no log."""


HEARTBEAT = Heartbeat()

Event = (
    TurnStarted
    | TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallFinished
    | ModelCallFinished
    | TurnFinished
    | BudgetReached
)
StreamEvent = Event | Heartbeat  # what a reader gets
