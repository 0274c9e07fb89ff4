"""Converts a turn's events to documents and back. Deltas, which are most of the events, take the least space."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service import errors, exact_json
from godoty_service.actions.codec import call_from_document as action_from_document
from godoty_service.actions.codec import call_to_document as action_to_document
from godoty_service.budgets.alerts import BudgetAlert
from godoty_service.budgets.budget import BudgetWindow
from godoty_service.citations import citations_from_text, citations_to_text
from godoty_service.errors import GodotyError
from godoty_service.ledger.codec import call_from_document, entry_to_document
from godoty_service.ledger.session_totals import totals_from_document, totals_to_document
from godoty_service.ledger.totals import Totals
from godoty_service.turns.event_log.events import (
    ActionRequired,
    Annotations,
    BudgetReached,
    Event,
    ModelCallFinished,
    ReasoningDelta,
    StopReason,
    SubAgentEvent,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolSummary,
    TurnFinished,
    TurnStarted,
)

Document = dict[str, Any]
_MICROSECOND = timedelta(microseconds=1)
_STOP_REASONS = frozenset(StopReason)
_WINDOWS = frozenset(BudgetWindow)


def event_to_document(event: Event) -> Any:
    """Return a text delta's text, or a document with one key for any other event."""
    if isinstance(event, TextDelta):
        return event.text
    name = _NAMES[type(event)]
    return {name: _ENCODERS[name](event)}


def event_from_document(document: Any) -> Event:
    """Return the event of a document; an event of a later version becomes an empty text and retains its number."""
    if isinstance(document, str):
        return TextDelta(document)
    return next((_DECODERS[name](value) for name, value in document.items() if name in _DECODERS), TextDelta(""))


def error_to_document(error: GodotyError) -> Document:
    """Return the document of the error that a turn failed with."""
    return {
        "reason": error.reason,
        "text": error.text,
        "metadata": error.metadata,
        "retry_after": error.retry_after,
        "quota": error.quota if isinstance(error, errors.QuotaExceeded) else None,
    }


def error_from_document(document: Document) -> GodotyError:
    """Return the error that a turn failed with: the same that its first reader got."""
    kind = _kinds().get(document["reason"], GodotyError)
    known: dict[str, Any] = {"metadata": document["metadata"], "retry_after": document["retry_after"]}
    if issubclass(kind, errors.QuotaExceeded):
        known["quota"] = document["quota"] or ""
    return kind(document["text"], **known)


def _by_reason(base: type[GodotyError]) -> dict[str, type[GodotyError]]:
    found = {base.reason: base}
    for kind in base.__subclasses__():
        for reason, each in _by_reason(kind).items():
            found.setdefault(reason, each)
    return found


@cache
def _kinds() -> dict[str, type[GodotyError]]:
    """Return the errors of all packages by their reasons; all are imported before the first log is read."""
    return _by_reason(GodotyError)


def totals_to_log(totals: Totals) -> Document:
    """Encode totals, with the number of pending calls."""
    return {**totals_to_document(totals), "pending_calls": totals.pending_calls}


def totals_from_log(document: Document) -> Totals:
    """Decode totals."""
    return replace(totals_from_document(document), pending_calls=document["pending_calls"])


def _encode_call(event: ModelCallFinished) -> Document:
    """Encode a call without its end user, whom no reader of a log needs."""
    document = entry_to_document(event.call)
    document.pop("user", None)
    document.pop("user_reference", None)
    return document


def _encode_finished(event: TurnFinished) -> Document:
    return {
        "stop": event.stop_reason.value,
        "turn": totals_to_log(event.turn_totals),
        "session": totals_to_log(event.session_totals),
        "cycles": [cycle // _MICROSECOND for cycle in event.cycle_durations],
        "tools": [[tool.name, tool.calls, tool.errors, tool.duration // _MICROSECOND] for tool in event.tools],
        **({"output": event.output_json} if event.output_json is not None else {}),
        **({"actions": [action_to_document(each) for each in event.actions]} if event.actions else {}),
    }


def _decode_started(value: list[Any]) -> TurnStarted:
    """Decode the start of a turn; earlier builds did not store all of it."""
    stored: list[Any] = [*value, *("", None, False)[max(0, len(value) - 3) :]]
    session_id, created, totals, agent, version, stores_starts, *_ = stored
    return TurnStarted(
        session_id=session_id,
        session_created=created,
        totals=totals_from_log(totals),
        agent=agent,
        agent_version=version,
        stores_starts=stores_starts,
    )


def _decode_finished(document: Document) -> TurnFinished:
    return TurnFinished(
        stop_reason=stop_reason_of(document["stop"]),
        turn_totals=totals_from_log(document["turn"]),
        session_totals=totals_from_log(document["session"]),
        cycle_durations=tuple(cycle * _MICROSECOND for cycle in document["cycles"]),
        tools=tuple(
            ToolSummary(name=name, calls=calls, errors=failed, duration=duration * _MICROSECOND)
            for name, calls, failed, duration, *_ in document["tools"]
        ),
        output_json=document.get("output"),
        actions=tuple(map(action_from_document, document.get("actions", ()))),
    )


def stop_reason_of(value: str) -> StopReason:
    """Return a stop reason; one of a later version is an ordinary end."""
    return StopReason(value) if value in _STOP_REASONS else StopReason.END_TURN


def _decode_budget(value: Any) -> Event:
    if value[0] not in _WINDOWS:
        return TextDelta("")
    return BudgetReached(
        alert=BudgetAlert(
            window=BudgetWindow(value[0]),
            percent=value[1],
            spent=value[2].to_decimal(),
            limit=value[3].to_decimal(),
        )
    )


def _decode_sub_agent(value: list[Any]) -> Event:
    """Decode an event of a sub-agent; one of a kind that only a later build knows is an empty text."""
    event = event_from_document(value[1])
    return SubAgentEvent(value[0], event) if isinstance(event, _OF_SUB_AGENTS) else TextDelta("")


_OF_SUB_AGENTS = (ToolCallStarted, ToolProgress, ToolCallFinished, ModelCallFinished, ActionRequired)
_NAMES: dict[type, str] = {
    TurnStarted: "started",
    ReasoningDelta: "reasoning",
    Annotations: "citations",
    ToolCallStarted: "tool",
    ToolProgress: "progress",
    ToolCallFinished: "result",
    ModelCallFinished: "call",
    TurnFinished: "finished",
    BudgetReached: "budget",
    ActionRequired: "action",
    SubAgentEvent: "sub_agent",
}
_ENCODERS: dict[str, Callable[[Any], Any]] = {
    "started": lambda event: [
        *(event.session_id, event.session_created, totals_to_log(event.totals), event.agent, event.agent_version),
        event.stores_starts,
    ],
    "reasoning": lambda event: event.text,
    "citations": lambda event: citations_to_text(event.citations),
    "tool": lambda event: [event.tool_call_id, event.name, event.input_json, event.sub_agent_path],
    "progress": lambda event: [event.tool_call_id, event.progress, event.progress_total, event.message],
    "result": lambda event: [
        *(event.tool_call_id, event.succeeded, event.output, event.duration // _MICROSECOND),
        *((exact_json.dumps(list(event.content)),) if event.content else ()),
    ],
    "call": _encode_call,
    "finished": _encode_finished,
    "budget": lambda event: [
        event.alert.window.value,
        event.alert.percent,
        Decimal128(event.alert.spent),
        Decimal128(event.alert.limit),
    ],
    "action": lambda event: action_to_document(event.action),
    "sub_agent": lambda event: [event.path, event_to_document(event.event)],
}
_DECODERS: dict[str, Callable[[Any], Event]] = {
    "started": _decode_started,
    "reasoning": ReasoningDelta,
    "citations": lambda value: Annotations(citations_from_text(value)),
    "tool": lambda value: ToolCallStarted(
        tool_call_id=value[0], name=value[1], input_json=value[2], sub_agent_path="".join(value[3:4])
    ),
    "progress": lambda value: ToolProgress(
        tool_call_id=value[0], progress=value[1], progress_total=value[2], message=value[3]
    ),
    "result": lambda value: ToolCallFinished(
        tool_call_id=value[0],
        succeeded=value[1],
        output=value[2],
        duration=value[3] * _MICROSECOND,
        content=tuple(exact_json.loads(value[4])) if value[4:] else (),
    ),
    "call": lambda value: ModelCallFinished(call=call_from_document(value)),
    "finished": _decode_finished,
    "budget": _decode_budget,
    "action": lambda value: ActionRequired(action_from_document(value)),
    "sub_agent": _decode_sub_agent,
}
