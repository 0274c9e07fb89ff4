"""Adds a turn's ledger entries to Strands' spans: of the model call, of its cycle, and of the agent.

Strands counts an unknown number of tokens as 0; an entry distinguishes the two, so its figures replace Strands'.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span

from godoty_service.ledger.entries import ModelCall
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.telemetry import attributes as names
from godoty_service.telemetry.strands_tracing import CALL_SPAN, start_call_span

_CYCLE = "event_loop_cycle_span"  # the key of a cycle's span in Strands' invocation state

Attributes = dict[str, Any]  # as OpenTelemetry takes them


class CallSpans:
    """The spans of one turn's model calls. Without a collector no span records, and nothing is done."""

    def __init__(self, invocation: Mapping[str, Any]) -> None:
        """Initialize the spans.

        Args:
            invocation: The turn's invocation state, to which Strands adds the agent and the current cycle's span.
        """
        self._invocation = invocation
        self._sub_agents: dict[str, Mapping[str, Any]] = {}
        self._calls: dict[str, ModelCall] = {}
        self._spans: dict[str, tuple[Span, Span]] = {}  # the call's span and its cycle's, by call id
        self._own: set[Span] = set()

    def add_sub_agent(self, path: str, invocation: Mapping[str, Any]) -> None:
        """Add a sub-agent, whose calls belong to its own span and the cycles of its own loop."""
        self._sub_agents[path] = invocation

    def remove_sub_agent(self, path: str) -> None:
        """Remove a sub-agent that is done."""
        self._sub_agents.pop(path, None)

    def opened(self, call: ModelCall) -> None:
        """Add a call that is about to be sent to the current span."""
        current = trace.get_current_span()
        if not current.is_recording():
            return
        span = current
        if getattr(current, "name", CALL_SPAN) != CALL_SPAN:  # a summary's: Strands starts no span for it
            span = start_call_span(call.requested_model)
            self._own.add(span)
        self._calls[call.call_id] = call
        invocation = self._sub_agents.get(call.agent_path, self._invocation) if call.agent_path else self._invocation
        self._spans[call.call_id] = (span, invocation.get(_CYCLE) or INVALID_SPAN)
        self._write(call)

    def ended(self, call: ModelCall) -> None:
        """Add the final figures of a call, and end its span if it was started here."""
        if call.call_id not in self._spans:
            return
        self._calls[call.call_id] = call
        self._write(call)
        span = self._spans[call.call_id][0]
        if span in self._own:
            span.end()

    def close(self) -> None:
        """End the spans that Strands does not end if a turn is cancelled: they would never be exported."""
        for each in self._spans.values():
            for span in each:
                if span.is_recording():
                    span.end()

    def _write(self, call: ModelCall) -> None:
        own, cycle = self._spans[call.call_id]
        for position, span in enumerate((own, cycle)):
            if span.is_recording():
                span.set_attributes(call_attributes(self._calls_of(position, span)))
        for path, invocation in self._agents_of(call):
            agent = getattr(invocation.get("agent"), "trace_span", None)
            if agent is not None and agent.is_recording():
                agent.set_attributes(sum_attributes([each for each in self._calls.values() if _is_below(each, path)]))

    def _agents_of(self, call: ModelCall) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the path and the invocation state of the turn's own agent, and of each one down to that of a call."""
        own: list[tuple[str, Mapping[str, Any]]] = [("", self._invocation)]
        return own + [(path, state) for path, state in self._sub_agents.items() if _is_below(call, path)]

    def _calls_of(self, position: int, span: Span) -> list[ModelCall]:
        return [call for call_id, call in self._calls.items() if self._spans[call_id][position] is span]


def _is_below(call: ModelCall, path: str) -> bool:
    """Return whether a call is of the agent of a path, or of an agent that this one called; empty: the turn's own."""
    return not path or f"{call.agent_path or ''}/".startswith(f"{path}/")


def turn_attributes(*, tenant_id: str, session_id: str, turn_id: str) -> dict[str, str]:
    """Return the attributes of each span of a turn."""
    return {
        names.TENANT_ID: tenant_id,
        names.SESSION_ID: session_id,
        names.CONVERSATION_ID: session_id,
        names.TURN_ID: turn_id,
    }


def call_attributes(calls: Sequence[ModelCall]) -> Attributes:
    """Return the attributes of a span of one or more calls: the last call's properties, and the sums of all."""
    last = calls[-1]
    waited = last.time_to_first_token
    facts: Attributes = {
        names.CALL_ID: last.call_id,
        names.CALL_IDS: [call.call_id for call in calls] if len(calls) > 1 else None,
        names.CALL_ATTEMPT: last.attempt,
        names.CALL_STATE: last.state.value,
        names.REQUEST_MODEL: last.requested_model,
        names.RESPONSE_MODEL: last.served_model,
        names.PROVIDER_NAME: last.provider,
        names.RESPONSE_ID: last.generation_id,
        names.FINISH_REASONS: [last.finish_reason] if last.finish_reason else None,
        names.COST_SOURCE: last.cost_source.value if last.cost_source is not None else None,
        names.ERROR_TYPE: last.error,
        names.TIME_TO_FIRST_CHUNK: waited.total_seconds() if waited is not None else None,
    }
    return {name: value for name, value in facts.items() if value is not None} | sum_attributes(calls)


def sum_attributes(calls: Sequence[ModelCall]) -> Attributes:
    """Return the number of calls that were sent, and their known usage and cost."""
    calls = [call for call in calls if call.counts.call]
    costs = [counted for call in calls if (counted := call.counted_cost) is not None]
    usage: TokenUsage = reduce(add, (call.usage for call in calls if call.usage is not None), TokenUsage())
    sums: Attributes = {names.MODEL_CALLS: len(calls)}
    if open_calls := len(calls) - len(costs):
        sums[names.OPEN_CALLS] = open_calls
    if (cost := money.format_usd(money.total(costs) if costs else None)) is not None:
        sums[names.COST_USD] = cost
    for counter, attributes in names.USAGE.items():
        if (count := getattr(usage, counter)) is not None:
            sums |= dict.fromkeys(attributes, count)
    return sums
