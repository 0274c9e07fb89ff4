"""Checks the health of a service, over plain text, TLS or mTLS as its listener requires."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from godoty_service.tls import Certificates, health_client

_TIMEOUT = 3.0  # seconds
_WILDCARDS = ("0.0.0.0", "[::]")  # noqa: S104 - compared, not bound


async def serving(address: str, certificates: Certificates | None = None) -> bool:
    """Return whether the service on host:port reports SERVING.

    Args:
        address: Its listener.
        certificates: Its own files: the certificate to trust, and its host name. If it requires client certificates,
            it gets one that its own private key has signed.

    Raises:
        ValueError: A file cannot be read.
    """
    host, _, port = address.rpartition(":")
    target = f"127.0.0.1:{port}" if host in _WILDCARDS else address
    async with _channel(target, certificates) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(target: str, certificates: Certificates | None) -> grpc.aio.Channel:
    if certificates is None:
        return grpc.aio.insecure_channel(target)
    material = certificates.read()
    client = health_client(material.key) if material.authorities is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(material.chain, *client)
    options = [("grpc.ssl_target_name_override", material.name)] if material.name else []
    return grpc.aio.secure_channel(target, credentials, options=options)
