"""The transport tells of a request what money hangs on: whether it left, and how it failed."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx2 as httpx
import pytest

from godoty_service.errors import SessionLost
from godoty_service.openrouter.pace import Pace
from godoty_service.openrouter.transport import SENDING, AiohttpTransport
from tests.service.handshake import unanswered_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def client(handler: Handler | None, *, port: int = 0) -> AsyncIterator[tuple[httpx.AsyncClient, list[str]]]:
    """A client of a server that does just what its handler does, and what was told of requests leaving."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0) if handler is not None else None
    if server is not None:
        port = server.sockets[0].getsockname()[1]
    sent: list[str] = []
    token = SENDING.set(lambda: sent.append("sent"))
    try:
        timeout = httpx.Timeout(0.5, connect=0.3)
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, transport=AiohttpTransport(Pace()), timeout=timeout) as made:
            yield made, sent
    finally:
        SENDING.reset(token)
        if server is not None:
            server.close()


async def request_head(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head and its small body."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.read(1024)
    return head


def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_request_to_nobody_never_left() -> None:
    """A refused connection carries nothing."""
    async with client(None, port=unused_port()) as (asking, sent):
        with pytest.raises(httpx.ConnectError):
            await asking.post("/", content=b"x")

    assert sent == []


async def test_a_connection_that_never_stands_carries_nothing() -> None:
    """A host that does not answer the handshake: the time to connect runs out, and nothing has left."""
    with unanswered_port() as port:
        async with client(None, port=port) as (asking, sent):
            with pytest.raises(httpx.ConnectTimeout):
                await asking.post("/", content=b"x")

    assert sent == []


async def test_a_connection_that_breaks_under_a_request_is_not_one_that_never_stood() -> None:
    """The request left: what the other side did with it is not known."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.close()

    async with client(hang_up) as (asking, sent):
        with pytest.raises(httpx.TransportError) as caught:
            await asking.post("/", content=b"x")

    assert not isinstance(caught.value, (httpx.ConnectError, httpx.ConnectTimeout))
    assert sent == ["sent"]


async def test_silence_after_the_request_is_a_read_timeout() -> None:
    """It left, and nothing came in time."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        await asyncio.sleep(2)
        writer.close()

    async with client(say_nothing) as (asking, sent):
        with pytest.raises(httpx.ReadTimeout):
            await asking.post("/", content=b"x")

    assert sent == ["sent"]


async def test_silence_in_the_middle_of_an_answer_is_a_read_timeout() -> None:
    """An answer may take as long as it likes while bytes come; once none do, it has failed."""

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD)
        for _ in range(4):
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.25)
        with suppress(ConnectionError):
            await reader.read()  # until the other side has had enough
        writer.close()

    got = [b""]

    async def listen(response: httpx.Response) -> None:
        async for data in response.aiter_bytes():
            got[0] += data

    async with client(fall_silent) as (asking, _), asking.stream("POST", "/", content=b"x") as response:
        with pytest.raises(httpx.ReadTimeout):
            await asyncio.wait_for(listen(response), 10)

    assert got == [b"xxxx"]


async def test_what_objects_keeps_the_request_from_leaving() -> None:
    """Not a byte of a request arrives to which the listener said no."""
    arrived: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.read(1024))
        writer.close()

    def object_() -> None:
        raise SessionLost("no")

    async with client(note) as (asking, _):
        token = SENDING.set(object_)
        with pytest.raises(SessionLost):
            await asking.post("/", content=b"x")
        SENDING.reset(token)
        await asyncio.sleep(0.05)

    assert b"".join(arrived) == b""


async def test_a_body_that_was_read_leaves_its_connection_for_the_next() -> None:
    """Two requests, one connection."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\nx")
                writer.write(HEAD + b"3\r\nabc\r\n0\r\n\r\n")
        writer.close()

    async with client(answer) as (asking, sent):
        for _ in range(2):
            async with asking.stream("POST", "/", content=b"x") as response:
                assert [each async for each in response.aiter_bytes()] == [b"abc"]

    assert (connections, sent) == (1, ["sent", "sent"])


async def test_a_body_that_was_left_closes_its_connection_at_once() -> None:
    """Whoever stops reading stops the provider, too."""
    gone = asyncio.Event()

    async def go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD + b"3\r\nabc\r\n")
        await reader.read()
        gone.set()
        writer.close()

    async with client(go_on) as (asking, _):
        request = asking.build_request("POST", "/", content=b"x")
        response = await asking.send(request, stream=True)
        assert await anext(response.aiter_bytes()) == b"abc"
        await response.aclose()
        await asyncio.wait_for(gone.wait(), 1)


async def test_a_stream_that_is_cut_is_an_error() -> None:
    """A body without its end is not taken for a whole one."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD + b"3\r\nabc\r\n")
        await writer.drain()
        writer.close()

    async with client(cut) as (asking, _):
        with pytest.raises(httpx.TransportError):
            async with asking.stream("POST", "/", content=b"x") as response:
                assert [each async for each in response.aiter_bytes()] == [b"abc"]
