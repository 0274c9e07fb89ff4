"""The transport reports the facts of a request that its cost depends on: whether it was sent, and how it failed."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx2 as httpx
import pytest

from godoty_service.errors import SessionLost
from godoty_service.openrouter.read_pacer import ReadPacer
from godoty_service.openrouter.transport import AiohttpTransport, SizedBody, client_timeout
from tests.support.handshake import unanswered_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = 60.0  # seconds


class Client:
    """Sends requests to one server, and records which of them were sent."""

    def __init__(self, port: int, *, connect: float, read: float) -> None:
        self.transport = AiohttpTransport(ReadPacer())
        self._limits = client_timeout({"connect": connect, "read": read})
        self.url = f"http://127.0.0.1:{port}/"
        self.sent: list[str] = []

    async def post(
        self, *, on_sending: Callable[[], None] | None = None, content: "bytes | SizedBody" = b"x"
    ) -> httpx.Response:
        """Send a request, with a small body unless one is given."""
        on_sending = on_sending or (lambda: self.sent.append("sent"))
        return await self.transport.send(
            "POST", self.url, headers={}, content=content, limits=self._limits, on_sending=on_sending
        )


@asynccontextmanager
async def client(
    handler: Handler | None, *, port: int = 0, connect: float = LONG, read: float = LONG
) -> AsyncIterator[Client]:
    """Connect a client with time limits to a server that runs a handler, or to a port."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0) if handler is not None else None
    made = Client(server.sockets[0].getsockname()[1] if server is not None else port, connect=connect, read=read)
    try:
        yield made
    finally:
        await made.transport.aclose()
        if server is not None:
            server.close()


async def request_head(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head and its small body."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.read(1024)
    return head


def unused_port() -> int:
    """Return a port on which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_refused_connection_sends_nothing() -> None:
    """A request to a port without a server was never sent."""
    async with client(None, port=unused_port()) as made:
        with pytest.raises(httpx.ConnectError):
            await made.post()

    assert made.sent == []


async def test_connection_that_is_never_established_sends_nothing() -> None:
    """A host does not answer the handshake: the time to connect expires, and nothing was sent."""
    with unanswered_port() as port:
        async with client(None, port=port, connect=0.3) as made:
            with pytest.raises(httpx.ConnectTimeout):
                await made.post()

    assert made.sent == []


async def test_connection_that_breaks_during_request_counts_as_sent() -> None:
    """The request was sent; what the server did with it is unknown."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.close()

    async with client(hang_up) as made:
        with pytest.raises(httpx.TransportError) as caught:
            await made.post()

    assert not isinstance(caught.value, (httpx.ConnectError, httpx.ConnectTimeout))
    assert made.sent == ["sent"]


async def test_silence_after_request_is_read_timeout() -> None:
    """The request was sent, and no answer came in time."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        with suppress(ConnectionError):
            await reader.read()  # until the client closes
        writer.close()

    async with client(say_nothing, read=0.5) as made:
        with pytest.raises(httpx.ReadTimeout):
            await made.post()

    assert made.sent == ["sent"]


async def test_silence_within_answer_is_read_timeout() -> None:
    """An answer may take any time while bytes arrive; once none do, it has failed."""

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD)
        for _ in range(10):
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.5)
        with suppress(ConnectionError):
            await reader.read()  # until the client closes
        writer.close()

    received = bytearray()

    async def receive(response: httpx.Response) -> None:
        async for data in response.aiter_raw():
            received.extend(data)

    async with client(fall_silent, read=4.5) as made:
        response = await made.post()
        with pytest.raises(httpx.ReadTimeout):
            await asyncio.wait_for(receive(response), LONG)

    assert received == b"x" * 10


async def test_error_in_on_sending_keeps_request_from_being_sent() -> None:
    """Not a byte of the request arrives, and the error is raised unchanged."""
    arrived: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.read(1024))
        writer.close()

    def refuse() -> None:
        raise SessionLost("no")

    async with client(record) as made:
        with pytest.raises(SessionLost):
            await made.post(on_sending=refuse)
        await asyncio.sleep(0.05)

    assert b"".join(arrived) == b""


async def test_each_of_two_concurrent_requests_calls_its_own_on_sending() -> None:
    """One request is refused while another is sent: the two callbacks are not confused."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD + b"0\r\n\r\n")
        writer.close()

    def refuse() -> None:
        raise SessionLost("no")

    async with client(answer) as made:
        refused, response = await asyncio.gather(made.post(on_sending=refuse), made.post(), return_exceptions=True)

    assert isinstance(refused, SessionLost)
    assert isinstance(response, httpx.Response)
    assert made.sent == ["sent"]


async def test_connection_of_read_body_is_reused() -> None:
    """Two requests use one connection."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\nx")
                writer.write(HEAD + b"3\r\nabc\r\n0\r\n\r\n")
        writer.close()

    async with client(answer) as made:
        for _ in range(2):
            response = await made.post()
            assert await response.aread() == b"abc"

    assert (connections, made.sent) == (1, ["sent", "sent"])


async def test_connection_of_unread_body_is_closed_at_once() -> None:
    """To stop reading stops the provider as well."""
    gone = asyncio.Event()

    async def go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD + b"3\r\nabc\r\n")
        await reader.read()
        gone.set()
        writer.close()

    async with client(go_on) as made:
        response = await made.post()
        assert await anext(response.aiter_raw()) == b"abc"
        await response.aclose()
        await asyncio.wait_for(gone.wait(), 180)


async def test_body_without_its_end_is_error() -> None:
    """A body that is cut is not mistaken for a complete one."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD + b"3\r\nabc\r\n")
        await writer.drain()
        writer.close()

    async with client(cut) as made:
        response = await made.post()
        with pytest.raises(httpx.TransportError):
            assert [each async for each in response.aiter_raw()] == [b"abc"]


async def test_httpx_client_sends_by_transport() -> None:
    """The `AsyncOpenAI`'s own requests use the same connections, with its client's time limits."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(HEAD + b"3\r\nabc\r\n")
        await reader.read()
        writer.close()

    async with (
        client(answer) as made,
        httpx.AsyncClient(transport=made.transport, timeout=httpx.Timeout(30, read=0.3)) as http,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await http.post(made.url, content=b"x")


class Pieces:
    """A body that is read while it is sent."""

    def __init__(self, *, number: int) -> None:
        self.size = number * 1024 * 1024
        self._number = number

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._number):
            yield bytes(1024 * 1024)


@pytest.mark.parametrize("content", [bytes(32 * 1024 * 1024), Pieces(number=32)], ids=["bytes", "pieces"])
async def test_body_that_the_server_does_not_take_fails(content: bytes | Pieces) -> None:
    """The server reads the head of the request alone, and keeps the connection open."""
    done = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await done.wait()
        writer.close()

    async with client(mute, connect=1.0, read=0.2) as made:
        with pytest.raises(httpx.ReadTimeout):
            await made.post(content=content)
        done.set()

    assert made.sent == ["sent"]
