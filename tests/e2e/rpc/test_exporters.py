"""Spans are exported by the protocol that the standard OTLP variables select."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter

from godoty_service.telemetry.exporters import open_exporter
from tests.conftest import Start, server_environment
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.collectors import Received, grpc_collector, http_collector
from tests.support.service import Service, soon

Connect = Callable[[Service], Caller]


def _costs(received: Received) -> list[str]:
    """Return the costs on the spans of model calls."""
    spans = [span for each in received for resource in each.resource_spans for span in _spans(resource)]
    named = [{each.key: each.value for each in span.attributes} for span in spans if span.name == "chat"]
    return [each["godoty.cost_usd"].string_value for each in named]


def _spans(resource: Any) -> list[Any]:
    return [span for scope in resource.scope_spans for span in scope.spans]


@pytest.mark.parametrize(
    ("protocol", "collector"), [("grpc", grpc_collector), ("http/protobuf", http_collector), ("", http_collector)]
)
@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
async def test_spans_are_exported_by_the_selected_protocol(
    serve: Start,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    *,
    protocol: str,
    collector: Any,
    variable: str,
) -> None:
    """Over gRPC, over HTTP, and over HTTP by default; the span has the cost of the call."""
    received: Received = []
    async with collector(received) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv(variable, protocol)
        turn = await connect(await serve()).converse("hi")

        await soon(lambda: _costs(received))
        assert _costs(received) == [turn.finished.turn_totals.cost_usd]


async def test_unknown_protocol_stops_the_start_with_one_line(backends: Backends, tmp_path: Path) -> None:
    """The line names the variable, its value and the valid values."""
    environment = server_environment(backends, backends.new_database()) | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
    }
    process = ServerProcess(environment=environment, log=tmp_path / "server.log")

    with pytest.raises(RuntimeError, match="the server exited"):
        await process.start()

    lines = [line for line in process.log.read_text().splitlines() if line.strip()]
    message = "OTEL_EXPORTER_OTLP_PROTOCOL: got 'http/json', takes one of http/protobuf, grpc."
    assert lines == [f"godoty: {message}"]


@pytest.mark.parametrize("protocol", ["http/json", "GRPC"])
def test_unknown_protocol_is_refused(protocol: str) -> None:
    """The variable of traces takes precedence over the general one."""
    variables = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}

    with pytest.raises(ValueError, match=f"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: got '{protocol}'"):
        open_exporter(variables)


def test_default_exporter_uses_http() -> None:
    """Without any variable it exports over HTTP."""
    assert isinstance(open_exporter({}), SpanExporter)
