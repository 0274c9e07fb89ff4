"""A receiver of webhooks in the test's event loop, which verifies signatures by code of its own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from tests.support.ports import hold_port
from tests.support.service import soon

Answer = Callable[["Received"], Awaitable[bytes]]


def status(code: int, headers: str = "") -> bytes:
    """Return an answer without a body."""
    return f"HTTP/1.1 {code} Said\r\n{headers}Content-Length: 0\r\n\r\n".encode()


@dataclass(frozen=True)
class Received:
    """A request.

    Attributes:
        path: Its path.
        headers: Its headers, by their names in lower case.
        body: Its body.
    """

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event."""
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def data(self) -> dict[str, Any]:
        """What the event reports."""
        data: dict[str, Any] = self.event["data"]
        return data

    @property
    def event_id(self) -> str:
        """The id of the event."""
        return self.headers["webhook-id"]

    @property
    def signatures(self) -> list[str]:
        """The signatures."""
        return self.headers["webhook-signature"].split()

    def is_signed_by(self, secret: str) -> bool:
        """Return whether one of the signatures is that of a secret."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.event_id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"
        return expected in self.signatures


class Receiver:
    """A receiver on 127.0.0.1.

    Attributes:
        port: Its port, which remains that of a receiver that is stopped.
        received: The requests that came, in the order of their arrival.
        answer: Returns the answer to a request; at first 204.
        pieces: Yields the pieces of an answer instead; None: it does not.
        sent: The bytes of such answers that were sent.
    """

    def __init__(self) -> None:
        self.port = 0
        self.received: list[Received] = []
        self.answer: Answer = self.take
        self.pieces: Callable[[], AsyncIterator[bytes]] | None = None
        self.sent = 0
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return its URL."""
        return f"http://{host}:{self.port}{path}"

    async def take(self, _: Received) -> bytes:
        """Answer that an event is taken."""
        return status(204)

    async def hang(self, _: Received) -> bytes:
        """Answer nothing."""
        await asyncio.Event().wait()
        return b""

    def always(self, answer: bytes) -> Answer:
        """Return a function that always gives the same answer."""

        async def give(_: Received) -> bytes:
            return answer

        return give

    @property
    def types(self) -> list[str]:
        """The types of the events that came."""
        return [each.event["type"] for each in self.received]

    def of_type(self, event_type: str) -> list[Received]:
        """Return the events of a type that came."""
        return [each for each in self.received if each.event["type"] == event_type]

    async def first(self, event_type: str = "turn.finished") -> Received:
        """Wait for the first event of a type."""
        return (await soon(lambda: self.of_type(event_type)))[0]

    async def start(self) -> None:
        """Listen, on the port of before."""
        self._reserved = self._reserved or hold_port()
        self.port = self._reserved.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Stop to listen, and close all connections."""
        if self._server is not None:
            self._server.close()
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._reserved is not None:
            self._reserved.close()

    async def _send_pieces(self, pieces: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
        async for piece in pieces:
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    first, *lines = head.strip().split("\r\n")
                    pairs = (line.partition(":") for line in lines)
                    headers = {name.lower(): value.strip() for name, _, value in pairs}
                    body = await reader.readexactly(int(headers["content-length"]))
                    received = Received(first.split()[1], headers, body)
                    self.received.append(received)
                    if self.pieces is not None:
                        await self._send_pieces(self.pieces(), writer)
                    else:
                        writer.write(await self.answer(received))
                        await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.close()
