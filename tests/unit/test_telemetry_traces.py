import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from godoty_service.telemetry.traces import Tracing, context_from_metadata, open_tracing, otlp_configured

METHOD = "/godoty.v1.AgentService/Converse"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")
KEY = "gdt_abc123_S3cretS3cretS3cret"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    tracing = open_tracing(enabled=True, exporter=exporter)
    yield tracing
    tracing.close(10)


def finished(tracing: Tracing, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    assert tracing.provider is not None
    tracing.provider.force_flush()
    return list(exporter.get_finished_spans())


def test_call_is_a_server_span_under_its_callers_trace(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """A call's span continues the caller's trace, and has its method and status."""
    with tracing.server_span(METHOD, [TRACEPARENT, ("authorization", "Bearer x")]) as call:
        call.set_code(0)

    (span,) = finished(tracing, exporter)
    assert span.context is not None
    assert span.parent is not None
    assert int(TRACE_ID, 16) == span.context.trace_id
    assert int(PARENT_ID, 16) == span.parent.span_id
    assert (span.name, span.kind) == ("godoty.v1.AgentService/Converse", SpanKind.SERVER)
    expected = {
        "rpc.system": "grpc",
        "rpc.service": "godoty.v1.AgentService",
        "rpc.method": "Converse",
        "rpc.grpc.status_code": 0,
    }
    assert expected == dict(span.attributes or {})


async def test_spans_of_tasks_started_inside_are_children(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Spans that a call starts, also in other tasks, are its children; afterwards no span is current."""
    assert tracing.provider is not None
    tracer = tracing.provider.get_tracer("t")

    async def work() -> None:
        with tracer.start_as_current_span("child"):
            pass

    with tracing.server_span(METHOD, []):
        await asyncio.create_task(work())

    child, server = finished(tracing, exporter)
    assert server.context is not None
    assert child.parent is not None
    assert server.context.span_id == child.parent.span_id
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (RuntimeError("words"), 2, StatusCode.ERROR),
        (asyncio.CancelledError(), 1, StatusCode.UNSET),
    ],
)
def test_default_status_depends_on_the_exception(
    tracing: Tracing, exporter: InMemorySpanExporter, fault: BaseException, code: int, status: StatusCode
) -> None:
    """A call without a status is UNKNOWN if it failed, and CANCELLED if it was cancelled."""
    with pytest.raises(type(fault)), tracing.server_span(METHOD, []):
        raise fault

    (span,) = finished(tracing, exporter)
    assert span.attributes is not None
    assert (code, status) == (span.attributes["rpc.grpc.status_code"], span.status.status_code)


@pytest.mark.parametrize(("code", "status"), [(5, StatusCode.UNSET), (13, StatusCode.ERROR)])
def test_only_server_errors_are_errors(
    tracing: Tracing, exporter: InMemorySpanExporter, code: int, status: StatusCode
) -> None:
    """NOT_FOUND is an answer, INTERNAL is an error."""
    with tracing.server_span(METHOD, []) as call:
        call.set_code(code)

    (span,) = finished(tracing, exporter)
    assert status == span.status.status_code


def test_health_calls_are_not_traced(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """A probe every few seconds creates no trace."""
    with tracing.server_span("/grpc.health.v1.Health/Check", [TRACEPARENT]) as call:
        call.set_code(0)

    assert finished(tracing, exporter) == []


def test_nothing_is_traced_without_an_exporter() -> None:
    """Without an exporter there is no provider, and a call's span is a no-op."""
    tracing = open_tracing(enabled=False)
    with tracing.server_span(METHOD, [TRACEPARENT]) as call:
        call.set_code(0)
        current = trace.get_current_span()
    tracing.close(10)

    assert tracing.provider is None
    assert not current.is_recording()


@pytest.mark.parametrize("value", ["", "nonsense", "00-zz-yy-01", b"\x00\x01"])
def test_broken_trace_context_starts_a_new_trace(value: str | bytes) -> None:
    """An invalid context of a caller is ignored without an error."""
    context = context_from_metadata([("traceparent", value), ("blob-bin", b"\xff")])

    assert not trace.get_current_span(context).get_span_context().is_valid


def test_trace_state_is_kept() -> None:
    """`tracestate` is part of the caller's context."""
    context = context_from_metadata([TRACEPARENT, ("tracestate", "vendor=1")])

    assert trace.get_current_span(context).get_span_context().trace_state.get("vendor") == "1"


def test_service_is_named_godoty_unless_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`service.name` is godoty; OTEL_SERVICE_NAME takes precedence."""
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    ours = open_tracing(enabled=True, exporter=InMemorySpanExporter())
    monkeypatch.setenv("OTEL_SERVICE_NAME", "godoty-eu")
    theirs = open_tracing(enabled=True, exporter=InMemorySpanExporter())

    names = [
        tracing.provider.resource.attributes["service.name"]
        for tracing in (ours, theirs)
        if tracing.provider is not None
    ]
    assert names == ["godoty", "godoty-eu"]
    ours.close(10)
    theirs.close(10)


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_standard_variables_enable_traces(environ: dict[str, str], *, enabled: bool) -> None:
    """Traces are exported if an OTLP endpoint is set and no standard variable disables them."""
    assert enabled is otlp_configured(environ)


@pytest.mark.parametrize(("content", "words"), [(False, None), (True, "said hello with [key]")])
def test_content_is_exported_only_if_allowed(*, content: bool, words: str | None) -> None:
    """Status texts, events and unknown attributes are exported with `trace_content` only; keys never are."""
    exporter = InMemorySpanExporter()
    tracing = open_tracing(enabled=True, trace_content=content, exporter=exporter)
    assert tracing.provider is not None
    with tracing.provider.get_tracer("t").start_as_current_span("work") as span:
        span.set_attribute("gen_ai.something.new", f"said hello with {KEY}")
        span.set_attribute("gen_ai.request.model", f"m {KEY}")
        span.add_event("gen_ai.user.message", {"content": "hello"})
        span.record_exception(ValueError("hello"))
        span.set_status(StatusCode.ERROR, f"hello {KEY}")

    (left,) = finished(tracing, exporter)
    tracing.close(10)
    assert left.attributes is not None
    assert words == left.attributes.get("gen_ai.something.new")
    assert len(left.events) == (2 if content else 1)
    assert left.attributes["gen_ai.request.model"] == "m [key]"
    assert ("hello" in left.to_json()) is content
    assert "S3cret" not in left.to_json()
    assert left.status.status_code is StatusCode.ERROR
    assert {"exception.type": "ValueError"}.items() <= dict(left.events[-1].attributes or {}).items()
