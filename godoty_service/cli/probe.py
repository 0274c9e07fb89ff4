"""Asks a service for its health, in the way that its listener speaks."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from godoty_service.certificates import Certificates
from godoty_service.health_certificates import health_client

_TIMEOUT = 3.0  # seconds
_ANYWHERE = ("0.0.0.0", "[::]")  # noqa: S104 - compared, not bound


async def serving(address: str, certificates: Certificates | None = None) -> bool:
    """Tell whether the service on host:port says that it serves.

    Args:
        address: Where it listens.
        certificates: Its own files: they say whom to trust, and under which name. Where it asks its clients for
            certificates, it is shown one that its private key has signed.

    Raises:
        ValueError: A file cannot be read.
    """
    host, _, port = address.rpartition(":")
    target = f"127.0.0.1:{port}" if host in _ANYWHERE else address
    async with _channel(target, certificates) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(target: str, certificates: Certificates | None) -> grpc.aio.Channel:
    if certificates is None:
        return grpc.aio.insecure_channel(target)
    pems = certificates.read()
    shown = health_client(pems.key) if pems.authorities is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(pems.chain, *shown)
    options = [("grpc.ssl_target_name_override", pems.name)] if pems.name else []
    return grpc.aio.secure_channel(target, credentials, options=options)
