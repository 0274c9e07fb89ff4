"""Idle connections and calls are limited in number and in time, so that other callers are served."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from godoty_service.ids import new_id
from godoty_service.rpc.listener import bounded_connections, raise_file_limit
from tests.conftest import Start, StartProcess
from tests.e2e.edge.process import Usage, open_files
from tests.e2e.edge.raw_http2 import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Http2,
    frame,
    header_block,
)
from tests.e2e.edge.raw_http2 import message as grpc_message
from tests.support.caller import Caller, failure_of
from tests.support.command import FILES
from tests.support.service import PATIENCE, Service, eventually

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
NO_WINDOW = b"\0\x04\0\0\0\0"  # SETTINGS_INITIAL_WINDOW_SIZE = 0
Connect = Callable[[Service], Caller]


@asynccontextmanager
async def connections(target: str, count: int, **how: object) -> AsyncIterator[list[Http2]]:
    """Open raw connections."""
    opened = [await Http2.connect(target, **how) for _ in range(count)]  # type: ignore[arg-type] # as it takes them
    try:
        yield opened
    finally:
        for each in opened:
            await each.close()


async def served(caller: Caller) -> bool:
    """Call the server over a new connection."""
    async with grpc.aio.insecure_channel(
        caller.service.target, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=180)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def all_closed(opened: list[Http2], *, within: float = PATIENCE) -> None:
    """Wait until the server has closed connections."""

    async def closed() -> bool:
        return all(each.closed.is_set() for each in opened)

    assert await eventually(closed, within=within)


async def settled(connection: Http2) -> bool:
    """Return whether the server's settings have come; they are acknowledged as they are read."""
    return any(kind == SETTINGS and not flags for kind, flags, *_ in connection.frames)


async def test_watch_streams_per_source_are_limited(serve: Start, connect: Connect) -> None:
    """Of 300 health watches over three connections, 100 stay open; the rest are refused at once."""
    service = await serve()
    async with connections(service.target, 3) as opened:
        for connection in opened:
            for _ in range(100):
                stream = connection.begin(WATCH)
                connection.send(frame(0, grpc_message(b""), flags=END_STREAM, stream=stream))

        async def refused() -> bool:
            return sum(len(each.ended()) for each in opened) == 200

        assert await eventually(refused)
        failure = await failure_of(_watch(service))
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert failure.quotas == ("keyless_calls/concurrent",)
        assert failure.retry_after
        await connect(service).call("ListSessions", pb.ListSessionsRequest())

    async def watched() -> bool:
        try:
            return await _watch(service) == 1  # SERVING
        except grpc.aio.AioRpcError:
            return False

    assert await eventually(watched)


async def _watch(service: Service) -> int:
    async with grpc.aio.insecure_channel(service.target) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=180)
        return int((await anext(aiter(call))).status)


async def test_half_sent_calls_without_a_key_end(serve_process: StartProcess, connect: Connect) -> None:
    """3,000 calls that never send their message: the service's own end at once, health checks within seconds."""
    process, service = await serve_process(GODOTY_REQUEST_TIMEOUT="5")
    assert process.process is not None
    caller = connect(service)
    await caller.call("ListSessions", pb.ListSessionsRequest())
    usage = Usage(process.process.pid)
    async with connections(service.target, 10) as opened:
        for connection in opened:
            for number in range(300):
                connection.begin(CHECK if number % 2 else "/godoty.v1.AgentService/GetSession")
            await asyncio.sleep(0)

        async def ended() -> bool:
            return all(len(each.ended()) == 300 for each in opened)

        assert await eventually(ended)
        await caller.call("ListSessions", pb.ListSessionsRequest())
    assert usage.peak_growth < 80


@pytest.mark.parametrize(
    "request_message",
    [pb.ConverseRequest(session_id="talk", text="again"), pb.GetSessionRequest(session_id="talk")],
    ids=["Converse", "GetSession"],
)
async def test_message_that_comes_after_its_key_was_revoked_is_refused(
    serve: Start, connect: Connect, request_message: pb.ConverseRequest | pb.GetSessionRequest
) -> None:
    """The key was valid when the call began: a late message starts no turn, and reads nothing."""
    service = await serve(request_timeout=60)
    caller = connect(service)
    await caller.converse("hello")
    path = "/godoty.v1.AgentService/" + type(request_message).__name__.removesuffix("Request")
    body = grpc_message(request_message.SerializeToString())
    async with connections(service.target, 1) as (connection,):
        late, other = (connection.begin(path, service.metadata) for _ in range(2))

        async def ended(stream: int) -> bool:
            return stream in connection.ended()

        async def refused() -> bool:
            try:
                await caller.call("ListSessions", pb.ListSessionsRequest())
            except grpc.aio.AioRpcError:
                return True
            return False

        connection.send(frame(DATA, body, flags=END_STREAM, stream=other))
        assert await eventually(partial(ended, other))
        turns = service.database["turns"].count_documents({})
        revoked = {"$set": {"revoke_time": datetime.now(UTC)}}
        service.database["api_keys"].update_one({"_id": service.key_id}, revoked)
        assert await eventually(refused)
        connection.send(frame(DATA, body, flags=END_STREAM, stream=late))
        assert await eventually(partial(ended, late))
        answered = {stream for kind, _, stream, _ in connection.frames if kind == DATA}

    assert answered == {other}
    assert service.database["turns"].count_documents({}) == turns


async def test_unread_watch_does_not_block_others(serve: Start, connect: Connect) -> None:
    """A client with a closed window watches the health: other watches, and the server's stop, are not delayed."""
    service = await serve(request_timeout=5.0)
    async with connections(service.target, 1, settings=NO_WINDOW) as (stuck,):
        stream = stuck.begin(WATCH)
        stuck.send(frame(0, grpc_message(b""), flags=END_STREAM, stream=stream))

        await asyncio.sleep(0.2)
        assert await _watch(service) == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_stream_without_requests_ends(serve: Start) -> None:
    """It needs no key, so it times out."""
    service = await serve(request_timeout=0.5)
    async with connections(service.target, 1) as (connection,):
        stream = connection.begin(REFLECT)

        async def ended() -> bool:
            return stream in connection.ended()

        assert await eventually(ended)


@pytest.mark.parametrize(
    "sent", [b"", PREFACE[:10], PREFACE, b"GET / HTTP/1.1\r\n"], ids=["no", "half", "only", "http1"]
)
async def test_connection_that_does_not_speak_http2_is_closed(serve: Start, sent: bytes) -> None:
    """Within the handshake timeout, whichever part of the preface a client sends."""
    service = await serve(handshake_timeout=0.5)
    async with connections(service.target, 3, preface=sent, answers=False) as opened:
        await all_closed(opened)


async def test_connection_without_a_call_is_closed(serve: Start) -> None:
    """Also one that answers pings, and one whose call never sends all of its headers."""
    service = await serve(connection_idle=1)
    async with connections(service.target, 3) as opened:
        half = opened[0]
        half._answers = False
        half.send(frame(HEADERS, header_block(CHECK)[:20], stream=1))
        await all_closed(opened)


async def test_old_connection_accepts_no_new_calls_and_finishes_its_calls(serve: Start, connect: Connect) -> None:
    """A turn that outlives its connection's age finishes; the client reconnects by itself."""
    service = await serve(connection_age=1, connection_grace=60)
    caller = connect(service)
    turn = await caller.converse("@sandbox slow tokens=40 first_delay_ms=0 delay_ms=100")
    assert turn.finished

    async with connections(service.target, 1) as (old,):
        await all_closed([old])
        assert any(each[0] == GOAWAY for each in old.frames)
    await caller.call("ListSessions", pb.ListSessionsRequest())


async def test_calls_of_a_connection_that_outlive_its_grace_end(serve: Start, connect: Connect) -> None:
    """The turn's log is retained: its rest is read over another connection."""
    service = await serve(connection_age=3, connection_grace=3)
    caller = connect(service)
    hold = new_id("hold")
    call = caller.start(
        f"@sandbox plain tokens=9 hold_after=3 hold={hold}", on_disconnect=turn_pb.ON_DISCONNECT_CONTINUE
    )
    first = await anext(aiter(call))
    failure = await failure_of(_rest(call))
    service.backends.allow(hold)
    assert failure.code is grpc.StatusCode.UNAVAILABLE

    stub = connect(service).stub
    kinds = []
    after = 0
    for _ in range(20):
        request = pb.ResumeTurnRequest(turn_id=first.turn_id, after_sequence=after)
        try:
            async for response in stub.ResumeTurn(request, metadata=service.metadata, timeout=90):
                kinds.append(response.event.WhichOneof("event"))
                after = response.event.sequence
            break
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - the loop goes on after it
    assert kinds[-1] == "turn_finished"


async def _rest(call: object) -> None:
    async for _ in call:  # type: ignore[attr-defined] # a call
        pass


async def test_calls_per_connection_are_limited(serve: Start) -> None:
    """Streams above the limit are refused; a client that respects the limit queues its calls."""
    service = await serve(max_connection_streams=5)
    async with connections(service.target, 1) as (connection,):
        # Streams count from when the server has its settings acknowledged, which is before it reads what follows.
        assert await eventually(lambda: settled(connection))
        streams = [connection.begin(CHECK) for _ in range(8)]

        async def refused() -> bool:
            return {each[2] for each in connection.frames if each[0] == RST_STREAM} >= set(streams[5:])

        assert await eventually(refused)
    # Calls are held, since a finished one counts until the server has released it, which may be after its answer.
    async with grpc.aio.insecure_channel(service.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        held = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE) for _ in range(5)]
        for each in held:
            await each.read()
        queued = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        await asyncio.sleep(0.1)
        assert not queued.done()
        held[0].cancel()
        assert (await queued).status == health_pb2.HealthCheckResponse.SERVING


async def test_client_that_pings_too_often_is_disconnected(serve: Start) -> None:
    """One that pings at the allowed interval stays connected."""
    service = await serve(min_ping_interval=1)
    async with connections(service.target, 1) as (flood,):

        async def answered(pings: int) -> bool:
            return sum(each[0] == PING for each in flood.frames) >= pings or flood.closed.is_set()

        for number in range(1, 11):
            flood.send(frame(PING, bytes(8)))
            assert await eventually(partial(answered, number))
        await all_closed([flood])
        assert any(each[0] == GOAWAY and each[3].endswith(b"too_many_pings") for each in flood.frames)


async def test_connections_are_limited_and_open_ones_are_served(serve: Start, connect: Connect) -> None:
    """The next one is closed at once; when one ends, another is accepted."""
    service = await serve(max_connections=5, connection_idle=30)
    caller = connect(service)
    await caller.call("ListSessions", pb.ListSessionsRequest())
    async with connections(service.target, 12) as opened:

        async def closed() -> bool:
            return sum(each.closed.is_set() for each in opened) >= 8

        assert await eventually(closed)
        assert sum(not each.closed.is_set() for each in opened) <= 4
        await caller.call("ListSessions", pb.ListSessionsRequest())
        assert not await served(caller)

    async def again() -> bool:
        return await served(caller)

    assert await eventually(again)


async def test_idle_connections_do_not_exhaust_the_usual_file_limit(
    serve_process: StartProcess, connect: Connect
) -> None:
    """A process that starts with 1,024 files raises its limit: beside 1,500 idle connections, others are served."""
    process, service = await serve_process(**{FILES: "1024"})
    assert process.process is not None
    caller = connect(service)
    assert resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE)[0] > 10_000
    async with connections(service.target, 1500):
        assert await served(caller)
        await caller.converse("hello")
        assert open_files(process.process.pid) > 1500


async def test_connections_leave_files_for_the_database(serve_process: StartProcess, connect: Connect) -> None:
    """If files are scarce, connections get half of them: turns run beside the maximum of idle connections."""
    process, service = await serve_process(**{FILES: "256", "GODOTY_OPEN_FILES": "256"})
    assert process.process is not None
    caller = connect(service)
    assert (await caller.converse("hello")).finished
    async with connections(service.target, 300) as opened:

        async def closed() -> bool:
            return sum(each.closed.is_set() for each in opened) > 150

        assert await eventually(closed)
        assert (await caller.converse("hello again")).finished


def test_file_limit_is_raised_within_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never lowered, and never raised above the requested value."""
    limits = [1024, 20_000]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.__setitem__(0, wanted[0]))

    assert raise_file_limit(4096) == 4096 == limits[0]
    assert raise_file_limit(65_536) == 20_000 == limits[0]
    assert raise_file_limit(4096) == 20_000 == limits[0]
    limits[:] = [1024, resource.RLIM_INFINITY]
    assert raise_file_limit(65_536) == 65_536 == limits[0]


def test_connections_are_at_most_half_of_the_files() -> None:
    """The minimum is one."""
    assert bounded_connections(4096, files=65_536) == 4096
    assert bounded_connections(4096, files=1024) == 512
    assert bounded_connections(4096, files=1) == 1
