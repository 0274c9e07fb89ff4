"""Opens the exporter of spans that the standard variables choose: OTLP over HTTP or over gRPC."""

from collections.abc import Mapping

from opentelemetry.sdk.trace.export import SpanExporter

EXPORTER = "OTEL_TRACES_EXPORTER"
_HTTP, _GRPC = "http/protobuf", "grpc"
_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def otlp_protocol(environ: Mapping[str, str]) -> str:
    """Return the protocol that the variables name; "http/protobuf" by default.

    Raises:
        ValueError: A variable names an exporter or a protocol that is not supported.
    """
    exporter = environ.get(EXPORTER) or "otlp"
    if exporter not in ("otlp", "none"):
        raise ValueError(f"{EXPORTER}: got {exporter[:100]!r}, takes one of otlp, none.")
    for name in _VARIABLES:
        if protocol := environ.get(name, "").strip():
            if protocol not in (_HTTP, _GRPC):
                raise ValueError(f"{name}: got {protocol[:100]!r}, takes one of {_HTTP}, {_GRPC}.")
            return protocol
    return _HTTP


def open_exporter(environ: Mapping[str, str]) -> SpanExporter:
    """Return the exporter of the protocol that the variables name; it reads its endpoint and headers from them itself.

    Only the chosen exporter is imported: the packages of the other one are not loaded.

    Raises:
        ValueError: The protocol is not supported.
    """
    if otlp_protocol(environ) == _HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - see above
        OTLPSpanExporter as GrpcSpanExporter,
    )

    return GrpcSpanExporter()
