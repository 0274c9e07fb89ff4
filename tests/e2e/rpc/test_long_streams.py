"""Streams that last as long as the server: health watches and reflection."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

import godoty_service.server
from godoty_service.rpc.keyless import ServingStatus
from godoty_service.server import running
from tests.support.backends import Backends

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SOON = 20.0  # seconds
GRACE = 120.0  # seconds that gRPC would wait for open calls


async def statuses(watch: Any) -> list[int]:
    """Read a watch to its end."""
    return [answer.status async for answer in watch]


async def test_open_streams_do_not_delay_the_stop(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch ends with NOT_SERVING and OK, a reflection stream with OK, and the server stops at once."""
    monkeypatch.setattr(godoty_service.server, "_STOP_GRACE", GRACE)
    async with running(backends.settings(backends.empty_database())) as server:
        channel: Any = grpc.aio.insecure_channel(server.address)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "godoty.v1.AgentService")]
        assert [(await anext(aiter(each))).status for each in watches] == [SERVING, SERVING]
        reflections = []
        for version in ("v1", "v1alpha"):
            reflect: Any = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            reflect = reflect()
            await reflect.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert (await reflect.read()).list_services_response.service
            reflections.append(reflect)
        rest = [asyncio.create_task(statuses(each)) for each in watches]
        begun = time.monotonic()
    took = time.monotonic() - begun

    assert took < SOON
    assert await asyncio.gather(*rest) == [[NOT_SERVING], [NOT_SERVING]]
    for each in (*watches, *reflections):
        assert await each.code() is grpc.StatusCode.OK
    await channel.close(None)


class Unread:
    """The context of a watch whose client reads nothing."""

    async def write(self, _: object) -> None:
        """Wait, as gRPC does if the client's window is full."""
        await asyncio.Event().wait()


class Read:
    """The context of a watch whose client reads all."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def write(self, answer: Any) -> None:
        """Record a response."""
        self.seen.append(answer.status)


async def test_client_that_does_not_read_delays_no_report() -> None:
    """Other watches get each change, and so does `Check`."""
    status = ServingStatus(("",))
    status.open()
    request = health_pb2.HealthCheckRequest()
    unread: Any = Unread()
    read: Any = Read()
    watches = [asyncio.create_task(status.Watch(request, context)) for context in (unread, read)]
    await asyncio.sleep(0)
    status.storage_probed(available=False)
    await asyncio.sleep(0)
    assert (await status.Check(request, unread)).status == NOT_SERVING
    status.storage_probed(available=True)
    await asyncio.sleep(0)
    status.end_watches()
    await asyncio.wait_for(watches[1], 180)

    assert read.seen == [SERVING, NOT_SERVING, SERVING]
    watches[0].cancel()


async def test_unknown_service_is_watched_as_unknown() -> None:
    """As the protocol requires, the watch continues, because the service may be added later."""
    status, read = ServingStatus(("",)), Read()
    context: Any = read
    watch = asyncio.create_task(status.Watch(health_pb2.HealthCheckRequest(service="else"), context))
    await asyncio.sleep(0)
    assert not watch.done()
    status.end_watches()
    await asyncio.wait_for(watch, 180)

    assert read.seen == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]


async def test_all_statuses_are_listed() -> None:
    """`List` returns each service with its status."""
    status = ServingStatus(("", "godoty.v1.AgentService"))
    listed = await status.List(health_pb2.HealthListRequest(), None)

    assert {name: each.status for name, each in listed.statuses.items()} == dict.fromkeys(
        ("", "godoty.v1.AgentService"), NOT_SERVING
    )
