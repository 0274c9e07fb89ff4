"""A small receiver of webhooks, for development: it verifies signatures and passes events to a function."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from godoty_service.webhooks.signatures import SignatureRefused, verify

_MAX_HEAD: Final = 16 * 1024  # bytes of a request's line and headers
_MAX_BODY: Final = 1024 * 1024  # bytes
_SECONDS: Final = 10.0  # in which a request must arrive
_ACCEPTED, _INVALID, _UNSIGNED = "204 No Content", "400 Bad Request", "401 Unauthorized"


class Receiver:
    """The receiver, on 127.0.0.1.

    Attributes:
        port: Its port.
        secret: The secret by which events must be signed.
    """

    def __init__(self, *, port: int, on_event: Callable[[str], None], on_refused: Callable[[str], None]) -> None:
        """Create it; nothing listens yet.

        Args:
            port: The port; 0: a free one.
            on_event: Called with the body of each event whose signature is right.
            on_refused: Called with the reason for each request that is refused.
        """
        self.port = port
        self.secret = ""
        self._on_event = on_event
        self._on_refused = on_refused

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}/"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_MAX_HEAD)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_SECONDS):
                status = await self._answer(reader)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> str:
        """Read a request; return the status of its answer."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "")
        if not first.startswith("POST ") or not length.isdecimal() or int(length) > _MAX_BODY:
            self._on_refused("It is no POST with a body of known and moderate size.")
            return _INVALID
        body = await reader.readexactly(int(length))
        try:
            verify(self.secret, headers, body, now=time.time())  # noqa: TID251 - a receiver has this host's clock
        except SignatureRefused as refused:
            self._on_refused(str(refused))
            return _UNSIGNED
        self._on_event(body.decode("utf-8", "replace"))
        return _ACCEPTED
