"""Collectors of spans, by OTLP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb

Received = list[pb.ExportTraceServiceRequest]
_EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


@asynccontextmanager
async def grpc_collector(received: Received) -> AsyncIterator[str]:
    """Collect by OTLP over gRPC."""

    async def export(request: pb.ExportTraceServiceRequest, _: Any) -> pb.ExportTraceServiceResponse:
        received.append(request)
        return pb.ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=pb.ExportTraceServiceRequest.FromString,
        response_serializer=pb.ExportTraceServiceResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_EXPORT, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"http://127.0.0.1:{port}"
    await server.stop(None)


@asynccontextmanager
async def http_collector(received: Received) -> AsyncIterator[str]:
    """Collect by OTLP over HTTP, uncompressed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("post /v1/traces ")
        length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
        received.append(pb.ExportTraceServiceRequest.FromString(await reader.readexactly(int(length[15:]))))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
