"""Exports traces if an endpoint is configured; the span of each call is a child of its caller's span."""

import asyncio
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from godoty_service.telemetry.exporters import EXPORTER, open_exporter
from godoty_service.telemetry.span_redaction import RedactingExporter

log = structlog.get_logger(__name__)

SERVICE_NAME = "godoty"
HEALTH_PREFIX = "/grpc.health.v1.Health/"

CANCELLED = 1
UNKNOWN = 2
# The codes that OpenTelemetry's conventions count as errors of the server: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
# INTERNAL, UNAVAILABLE, DATA_LOSS.
SERVER_ERRORS = frozenset({2, 4, 12, 13, 14, 15})

_PROPAGATED = frozenset({"traceparent", "tracestate"})


class ServerSpan:
    """The span of one call."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.code: int | None = None

    def set_code(self, code: int) -> None:
        """Set the number of the gRPC status that the call ended with."""
        self.code = code

    def _end(self, default: int) -> None:
        code = default if self.code is None else self.code
        self._span.set_attribute("rpc.grpc.status_code", code)
        if code in SERVER_ERRORS:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracing:
    """Starts spans; `provider` is None if they are not exported."""

    def __init__(self, *, provider: TracerProvider | None) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer(__name__) if provider else trace.NoOpTracer()

    @contextmanager
    def server_span(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[ServerSpan]:
        """Make the span of a call the current span while the block runs, so that spans started in it are its children.

        Args:
            method: The full gRPC method, as in `/godoty.v1.AgentService/Converse`.
            metadata: The call's metadata, whose `traceparent` names the caller's span.

        Yields:
            The span, to set the status of the call. By default it is OK; CANCELLED after a cancellation; UNKNOWN after
            another exception.
        """
        if self.provider is None or method.startswith(HEALTH_PREFIX):
            yield ServerSpan(INVALID_SPAN)
            return
        parent = context_from_metadata(metadata)
        span = self._tracer.start_span(
            method.lstrip("/"), parent, kind=SpanKind.SERVER, attributes=_rpc_attributes(method)
        )
        call = ServerSpan(span)
        default = UNKNOWN
        try:
            with _current(trace.set_span_in_context(span, parent)):
                yield call
            default = 0
        except (asyncio.CancelledError, GeneratorExit):
            default = CANCELLED
            raise
        finally:
            call._end(default)  # noqa: SLF001 - the same module

    def close(self, timeout: float) -> None:
        """Send the pending spans and shut down. Blocks until the collector has them, at most `timeout` seconds."""
        if self.provider is None:
            return
        # The exporter may retry for longer than the timeout; a daemon thread does not keep the process alive.
        closing = threading.Thread(target=self.provider.shutdown, name="close-tracing", daemon=True)
        closing.start()
        closing.join(timeout)
        if closing.is_alive():
            log.warning("spans_not_sent", timeout=timeout)


def otlp_configured(environ: Mapping[str, str]) -> bool:
    """Return whether the standard OTLP variables configure an endpoint for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if (environ.get(EXPORTER) or "otlp") != "otlp":
        return False
    return bool(environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def open_tracing(*, enabled: bool, trace_content: bool = False, exporter: SpanExporter | None = None) -> Tracing:
    """Set up the export of spans.

    Args:
        enabled: Whether to export spans: `otlp_configured(os.environ)`.
        trace_content: Whether spans may have prompts, answers and tool data.
        exporter: Replaces the exporter that the standard variables configure.

    Raises:
        ValueError: The standard variables name a protocol that is not supported.
    """
    if not enabled:
        return Tracing(provider=None)
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence over our name.
    resource = Resource.create().merge(Resource({"service.name": SERVICE_NAME}))
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    target = open_exporter(os.environ) if exporter is None else exporter
    provider.add_span_processor(BatchSpanProcessor(RedactingExporter(target, content=trace_content)))
    return Tracing(provider=provider)


def context_from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """Return the caller's W3C trace context; an empty one if it sent none, or an invalid one."""
    carrier = {key: value for key, value in metadata if key in _PROPAGATED and isinstance(value, str)}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _rpc_attributes(method: str) -> dict[str, str]:
    service, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


@contextmanager
def _current(context: Context) -> Iterator[None]:
    token = otel_context.attach(context)
    try:
        yield
    finally:
        # An abandoned generator ends in another task, in which this context was never attached.
        if otel_context.get_current() is context:
            otel_context.detach(token)
