"""Servers whose system clock is wrong."""

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pymongo.database import Database

from tests.metering.conftest import godoty

__all__ = ["godoty"]
EXPIRIES = {"expire_time", "until", "due", "since", "delete_time"}  # lie in the future on purpose


def late_times(database: Database[dict[str, Any]], *, now: datetime) -> list[str]:
    """Name the stored times after a time, but for expiries."""
    return [
        f"{name} {path}: {time.isoformat()}"
        for name in database.list_collection_names()
        for document in database[name].find()
        for path, time in _times(document)
        if path.rpartition(".")[2] not in EXPIRIES and time > now
    ]


def late_expiries(database: Database[dict[str, Any]], *, until: datetime) -> list[str]:
    """Name the stored expiries after a time."""
    return [
        f"{name} {path}: {time.isoformat()}"
        for name in database.list_collection_names()
        for document in database[name].find()
        for path, time in _times(document)
        if time > until
    ]


def _times(value: Any, path: str = "") -> list[tuple[str, datetime]]:
    if isinstance(value, datetime):
        return [(path, value if value.tzinfo else value.replace(tzinfo=UTC))]
    if isinstance(value, dict):
        return [found for name, each in value.items() for found in _times(each, f"{path}.{name}")]
    if isinstance(value, list):
        return [found for each in value for found in _times(each, path)]
    return []


async def health(target: str, service: str = "") -> str:
    """Read the health of a service by name."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


@pytest.fixture
def metrics_port() -> int:
    """A free port."""
    import socket  # noqa: PLC0415 - used here only

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
