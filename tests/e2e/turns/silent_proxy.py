"""A proxy between a client and a server that stops forwarding unnoticed by both sides, or closes their connections."""

import asyncio
from types import TracebackType
from typing import Self


class SilentProxy:
    """Forwards TCP connections to a server until `cut`, or until `fall_silent`: then it reads and closes nothing.

    Attributes:
        address: The address for clients.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fall_silent()
        for writer in self._writers:
            writer.close()
        if self._server is not None:
            self._server.close()

    def fall_silent(self) -> None:
        """Stop forwarding in both directions, on connections that stay open."""
        for pump in self._pumps:
            pump.cancel()

    def cut(self) -> None:
        """Close the connections on both sides, as a network that resets them; later connections are forwarded."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, upstream_writer]
        self._pumps += [
            asyncio.create_task(_pump(reader, upstream_writer)),
            asyncio.create_task(_pump(upstream_reader, writer)),
        ]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
