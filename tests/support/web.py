"""A web server in the test's event loop, which answers as tests say, byte for byte."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def page(body: bytes, *, content_type: str = "text/plain", status: str = "200 OK", headers: str = "") -> bytes:
    """Return an answer with a body."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """Return an answer that redirects."""
    return f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


class Web:
    """The server, at 127.0.0.1 and 127.0.0.2.

    Attributes:
        port: Its port.
        answers: Its answers by path and query; other paths are 404.
        requests: The requests that came: their lines, in lower case except for the first.
        waiting: Connections whose answer does not come.
    """

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, Answer] = {}
        self.requests: list[list[str]] = []
        self.waiting = 0

    @property
    def paths(self) -> list[str]:
        """The paths that were requested."""
        return [lines[0].split()[1] for lines in self.requests]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Return the URL of a path."""
        return f"http://{host}:{self.port}{path}"

    async def hang(self, _: asyncio.StreamWriter) -> None:
        """Answer nothing until the client closes the connection."""
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._second = await asyncio.start_server(self._serve, "127.0.0.2", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._second.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *rest = head.strip().split("\r\n")
                self.requests.append([first, *map(str.lower, rest)])
                answer = self.answers.get(first.split()[1], page(b"", status="404 Not Found"))
                if callable(answer):
                    await self._until_closed(reader, answer(writer))
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def _until_closed(self, reader: asyncio.StreamReader, answer: Awaitable[None]) -> None:
        """Answer until that ends, or the client closes the connection."""
        answering = asyncio.ensure_future(answer)
        closed = asyncio.ensure_future(reader.read())
        await asyncio.wait({answering, closed}, return_when=asyncio.FIRST_COMPLETED)
        for each in (answering, closed):
            each.cancel()
        await asyncio.gather(answering, closed, return_exceptions=True)
