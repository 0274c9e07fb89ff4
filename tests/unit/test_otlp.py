"""The protocol of the trace exporter, and a collector that does not answer."""

import threading
import time
from itertools import product

import pytest

from godoty_service.telemetry.exporters import otlp_protocol
from godoty_service.telemetry.traces import open_tracing
from tests.support.handshake import unanswered_port
from tests.support.service import PATIENCE

METHOD = "/godoty.v1.AgentService/Converse"


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf, grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC", "http/protobuf, grpc"),
        ("OTEL_TRACES_EXPORTER", "console", "otlp, none"),
    ],
)
def test_unsupported_protocol_is_refused(name: str, value: str, taken: str) -> None:
    """The error names the variable, its value and what it takes."""
    with pytest.raises(ValueError, match=f"{name}: got '{value}', takes one of {taken}"):
        otlp_protocol({name: value})


def test_protocol_is_http_unless_another_is_named() -> None:
    """HTTP is the default that OpenTelemetry recommends; an empty variable counts as unset."""
    assert otlp_protocol({}) == "http/protobuf"
    assert otlp_protocol({"OTEL_EXPORTER_OTLP_PROTOCOL": "", "OTEL_TRACES_EXPORTER": "none"}) == "http/protobuf"


def test_dead_collector_delays_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for an absent or silent collector no longer than the setting, by either protocol."""
    before = {*threading.enumerate()}
    with unanswered_port() as silent:
        for protocol, port in product(("http/protobuf", "grpc"), (1, silent)):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")  # seconds that an export may take
            tracing = open_tracing(enabled=True)
            with tracing.server_span(METHOD, []):
                pass
            begun = time.monotonic()
            tracing.close(0.5)
            took = time.monotonic() - begun
            assert took < 20, (protocol, port)

    left = {*threading.enumerate()} - before
    assert all(each.daemon for each in left if each.name == "close-tracing")
    for each in left:  # what they log in the end must not be in another test's output
        each.join(PATIENCE)
