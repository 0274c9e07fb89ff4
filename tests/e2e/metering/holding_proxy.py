"""A proxy of MongoDB that holds an insert back until a test lets it pass."""

import asyncio
from typing import Self
from urllib.parse import urlsplit


class HoldingProxy:
    """Forwards the connections of a server to the primary.

    Attributes:
        uri: The address for the server.
        held: Set once an insert is held.
    """

    def __init__(self, mongodb_uri: str) -> None:
        address = urlsplit(mongodb_uri)
        self._host, self._port = address.hostname or "", address.port or 0
        self.uri = ""
        self.held = asyncio.Event()
        self._passes = asyncio.Event()
        self._wanted: bytes | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.uri = f"mongodb://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/?directConnection=true"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def hold(self, collection: str) -> None:
        """Hold the next insert into a collection, and what follows it on its connection."""
        name = collection.encode() + b"\0"
        self._wanted = b"insert\0" + len(name).to_bytes(4, "little") + name  # a field of BSON

    def release(self) -> None:
        """Let it pass."""
        self._passes.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, upstream_writer]
        self._pumps += [
            asyncio.create_task(self._pump(reader, upstream_writer)),
            asyncio.create_task(self._pump(upstream_reader, writer)),
        ]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._wanted is not None and self._wanted in data:
                self._wanted = None
                self.held.set()
                await self._passes.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
