"""Asks a service for its health."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT = 3.0  # seconds
_ANYWHERE = ("0.0.0.0", "[::]")  # noqa: S104 - compared, not bound


async def serving(address: str) -> bool:
    """Tell whether the service on host:port says that it serves."""
    host, _, port = address.rpartition(":")
    target = f"127.0.0.1:{port}" if host in _ANYWHERE else address
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
