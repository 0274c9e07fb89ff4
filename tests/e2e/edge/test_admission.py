"""A request is read and decoded only for a valid key, once and within limits; a compressed one is refused."""

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.conftest import Start
from tests.e2e.edge.process import Usage
from tests.e2e.edge.raw_http2 import DATA, Http2, frame, message
from tests.faults.cluster import ServerProcess
from tests.support.caller import Caller, failure_of
from tests.support.service import Service, eventually

UPDATE_POLICY = "/godoty.v1.AdminService/UpdatePolicy"
LIST_SESSIONS = "/godoty.v1.AgentService/ListSessions"
CHECK = "/grpc.health.v1.Health/Check"
UNKNOWN_KEY = f"Bearer gdt_{'0' * 16}_{'A' * 43}"
# Of UpdatePolicy: 2 million empty budgets, of which each is an object once it is decoded.
_BUDGETS = b"\x52\x00" * 2_000_000
BOMB = b"\x12" + b"\x80\x92\xf4\x01" + _BUDGETS
Connect = Callable[[Service], Caller]
Measured = tuple[ServerProcess, Service]


def raw(channel: Any, method: str) -> Any:
    """Return a method whose request is given in bytes."""
    return channel.unary_unary(method)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
async def test_requests_with_a_wrong_key_cost_neither_memory_nor_time(
    measured: Measured, connect: Connect, compression: grpc.Compression
) -> None:
    """50 concurrent requests of 4 MB, or 4 KB compressed: at most 50 MB, and less than a tenth of a second each."""
    process, service = measured
    assert process.process is not None
    caller = connect(service)
    await caller.call("ListSessions", pb.ListSessionsRequest())
    usage = Usage(process.process.pid)

    calls = [
        raw(caller.channel, UPDATE_POLICY)(
            BOMB, metadata=(("authorization", UNKNOWN_KEY),), compression=compression, timeout=60
        )
        for _ in range(50)
    ]
    failures = [await failure_of(call) for call in calls]

    assert {each.code for each in failures} <= {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    assert usage.peak_growth < 20
    assert usage.cpu_seconds < 5


async def test_wrong_key_is_refused_before_the_request_arrives(serve: Start) -> None:
    """A call that sends its metadata and no message is refused at once."""
    service = await serve()
    connection = await Http2.connect(service.target)
    streams = {connection.begin(LIST_SESSIONS, [("authorization", UNKNOWN_KEY)]) for _ in range(100)}

    async def refused() -> bool:
        return connection.ended() >= streams

    assert await eventually(refused)
    await connection.close()


@pytest.mark.parametrize("compressed_with", ["gzip", "deflate"])
async def test_compressed_request_is_refused(caller: Caller, compressed_with: str) -> None:
    """With any key it is UNIMPLEMENTED, gRPC's status for an unsupported compression."""
    compression = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}[compressed_with]
    request = pb.ListSessionsRequest(user="x" * 100)
    call = caller.stub.ListSessions(request, metadata=caller.service.metadata, compression=compression, timeout=180)
    failure = await failure_of(call)

    assert failure.code is grpc.StatusCode.UNIMPLEMENTED


async def test_compressed_requests_do_not_fill_the_log(measured: Measured, connect: Connect) -> None:
    """Every log line is the service's own, however many requests gRPC's core refuses."""
    process, service = measured
    caller = connect(service)
    for _ in range(20):
        request = pb.ListSessionsRequest(user="x" * 100)
        await failure_of(caller.stub.ListSessions(request, compression=grpc.Compression.Gzip, timeout=180))

    assert [line for line in process.log.read_text().splitlines() if not line.startswith("{")] == []


async def test_compressed_message_with_a_valid_key_is_never_expanded(measured: Measured, connect: Connect) -> None:
    """A compression bomb, declared or not, does not raise the memory."""
    process, service = measured
    assert process.process is not None
    await connect(service).call("ListSessions", pb.ListSessionsRequest())
    bomb = gzip.compress(bytes(100_000_000))
    usage = Usage(process.process.pid)
    connection = await Http2.connect(service.target)
    for encoding in ("gzip", "identity", ""):
        headers = [("authorization", service.metadata[0][1]), *([("grpc-encoding", encoding)] if encoding else [])]
        for _ in range(4):
            await connection.send_data(
                connection.begin(LIST_SESSIONS, headers), message(bomb, compressed=True), end=True
            )

    async def answered() -> bool:
        return len(connection.ended()) == 12 or connection.closed.is_set()

    assert await eventually(answered)
    await connection.close()
    assert usage.peak_growth < 20


async def test_maximum_request_follows_from_the_maximum_text(serve: Start, connect: Connect) -> None:
    """A maximum text is accepted with all other fields; a message 256 KiB larger is refused.

    One that is larger than with all inline attachments, too, is refused unread.
    """
    service = await serve(max_text_bytes=100_000)
    caller = connect(service)
    turn = await caller.converse("@sandbox plain text=ok " + "x" * 99_977, user="u" * 128, request_id="r" * 128)
    assert turn.text == "ok"

    call, most, inline = raw(caller.channel, LIST_SESSIONS), 100_000 + 256 * 1024, 1024 * 1024
    larger = await failure_of(call(bytes(most + 1), metadata=service.metadata))
    unread = await failure_of(call(bytes(most + inline + 1), metadata=service.metadata))
    assert (larger.code, larger.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert unread.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_incomplete_message_ends_its_call(serve: Start) -> None:
    """A call with a valid key, and a health check, time out after their metadata, whichever part has arrived."""
    service = await serve(request_timeout=0.5)
    connection = await Http2.connect(service.target)
    streams = set()
    for path in (LIST_SESSIONS, CHECK, "/godoty.v1.AgentService/Converse", "/grpc.health.v1.Health/Watch"):
        streams.add(connection.begin(path, service.metadata))
        half = connection.begin(path, service.metadata)
        connection.send(frame(DATA, message(b"\x0a", length=1000), stream=half))
        streams.add(half)

    async def ended() -> bool:
        return connection.ended() >= streams

    assert await eventually(ended)
    await connection.close()


async def test_message_that_announces_gigabytes_is_not_buffered(measured: Measured, connect: Connect) -> None:
    """A valid key announces a message of 1 GB and sends 64 MB of it: they are not retained."""
    process, service = measured
    assert process.process is not None
    await connect(service).call("ListSessions", pb.ListSessionsRequest())
    usage = Usage(process.process.pid)
    connection = await Http2.connect(service.target)
    stream = connection.begin(LIST_SESSIONS, service.metadata)
    body = message(bytes(64_000_000), length=1_000_000_000)
    sent = await asyncio.wait_for(connection.send_data(stream, body), 180)

    await connection.close()
    assert sent < len(body)
    assert usage.peak_growth < 20
