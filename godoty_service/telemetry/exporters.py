"""The exporter of spans, by the standard variables: OTLP over HTTP or over gRPC."""

from collections.abc import Mapping

from opentelemetry.sdk.trace.export import SpanExporter

_HTTP, _GRPC = "http/protobuf", "grpc"
_SPECIFIC, _GENERAL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"


def open_exporter(environ: Mapping[str, str]) -> SpanExporter:
    """Return the exporter of the protocol that the variables name; endpoint, headers and the rest it reads itself.

    Each is imported where it is chosen: the other's packages are not loaded.

    Raises:
        ValueError: The protocol is not supported.
    """
    name = _SPECIFIC if environ.get(_SPECIFIC) else _GENERAL
    protocol = environ.get(name, "").strip() or _HTTP
    if protocol == _HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above

        return OTLPSpanExporter()
    if protocol == _GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - see above
            OTLPSpanExporter as GrpcSpanExporter,
        )

        return GrpcSpanExporter()
    raise ValueError(f"{name}={protocol} is not supported: set {_HTTP} or {_GRPC}.")
