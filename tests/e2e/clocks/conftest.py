"""Servers whose system clock is wrong."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.metering.conftest import godoty

__all__ = ["godoty"]


async def health(target: str, service: str = "") -> str:
    """Read the health of a service by name."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
