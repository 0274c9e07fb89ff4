"""Removes the content of conversations from spans before they are exported.

Strands' own redaction (`gen_ai_unredacted_attributes=`) covers the messages in its events, but neither the span status
nor the exception events, which have the texts of tools' and providers' errors. So spans are redacted here, as the last
step, by an allow-list: an attribute that a later version of Strands adds is not exported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from godoty_service.telemetry.log_redaction import mask, mask_text

MAX_NAME = 128

ALLOWED = frozenset(
    {
        "error.type",
        "event_loop.cycle_id",
        "event_loop.parent_cycle_id",
        "exception.type",
        "gen_ai.agent.name",
        "gen_ai.agent.tools",
        "gen_ai.conversation.id",
        "gen_ai.event.end_time",
        "gen_ai.event.start_time",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.finish_reasons",
        "gen_ai.response.id",
        "gen_ai.response.model",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.system",
        "gen_ai.tool.call.id",
        "gen_ai.tool.name",
        "gen_ai.tool.status",
        "strands.cancellation.type",
    }
)
ALLOWED_PREFIXES = ("gen_ai.usage.", "godoty.", "rpc.")


class RedactingExporter(SpanExporter):
    """Redacts spans, and exports them with another exporter.

    Without content, it keeps the attributes of an allow-list, the types of exceptions, and the code of the status. With
    content, it keeps everything. Keys are masked in both cases.
    """

    def __init__(self, exporter: SpanExporter, *, content: bool) -> None:
        self._exporter = exporter
        self._content = content

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Redact and export spans."""
        return self._exporter.export([_masked(span) if self._content else _redacted(span) for span in spans])

    def shutdown(self) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the other exporter."""
        return self._exporter.force_flush(timeout_millis)


def _redacted(span: ReadableSpan) -> ReadableSpan:
    return _copy(
        span,
        attributes=_allowed(span.attributes),
        events=[
            Event(event.name, _allowed(event.attributes), event.timestamp)
            for event in span.events
            if event.name == "exception"
        ],
        links=[Link(link.context) for link in span.links],
        status=Status(span.status.status_code),
    )


def _masked(span: ReadableSpan) -> ReadableSpan:
    status = span.status
    description = mask_text(status.description) if status.description else None
    return _copy(
        span,
        attributes=mask(dict(span.attributes or {})),
        events=[Event(event.name, mask(dict(event.attributes or {})), event.timestamp) for event in span.events],
        links=span.links,
        status=Status(status.status_code, description),
    )


def _allowed(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        key: mask(value)
        for key, value in (attributes or {}).items()
        if key in ALLOWED or key.startswith(ALLOWED_PREFIXES)
    }


def _copy(
    span: ReadableSpan,
    *,
    attributes: Mapping[str, Any],
    events: Sequence[Event],
    links: Sequence[Link],
    status: Status,
) -> ReadableSpan:
    return ReadableSpan(
        name=mask_text(span.name[:MAX_NAME]),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=events,
        links=links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
