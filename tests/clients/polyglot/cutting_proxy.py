"""A proxy that closes the connections of its clients after given numbers of bytes."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Forwards TCP connections to a server, until the server has sent as many bytes as `cut_after` has said.

    Attributes:
        address: The address for clients.
        cuts: How often it has closed all connections.
        forwarded: Bytes of the server that it has forwarded.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self.cuts = 0
        self.forwarded = 0
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._left: int | None = None
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._abort()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut_after(self, count: int) -> None:
        """Close the connections, as a network that resets them, once the server has sent this number of bytes."""
        self._left = count

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, upstream_writer]
        for source, sink, counted in ((reader, upstream_writer, False), (upstream_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, sink, counted=counted))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if counted and self._left is not None:
                    data, rest = data[: self._left], data[self._left :]
                    self._left -= len(data)
                    if rest:
                        await self._cut(writer, data)
                        return
                writer.write(data)
                await writer.drain()
                self.forwarded += len(data) if counted else 0
            writer.close()

    async def _cut(self, writer: asyncio.StreamWriter, last: bytes) -> None:
        """Close all connections, after the last bytes have left."""
        self._left = None
        writer.write(last)
        await writer.drain()
        self._abort()
        self.cuts += 1

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
