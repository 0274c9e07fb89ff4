"""The body of an error answer to a completion is read up to a bound of bytes and seconds."""

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from itertools import repeat
from typing import Any

import openai
import pytest

from godoty_service.errors import ProviderAccountRefused, ProviderThrottled
from godoty_service.openrouter import errors
from godoty_service.openrouter.client import ErrorBodyLimits, open_client
from godoty_service.openrouter.read_pacer import ReadPacer

LIMITS = ErrorBodyLimits(size=10_000, seconds=30)
ENDED = 20  # seconds; an answer that is read without a bound never ends
CHUNK = b"x" * 1_000
REFUSAL = {"error": {"code": 429, "message": "Slow down"}, "usage": {"cost": 0.25}}


class ErrorServer:
    """A server that answers each request with an error, and counts the bytes of the body that it sent."""

    def __init__(self, head: str, body: Any, *, pause: float) -> None:
        self.sent = 0
        self.ended = asyncio.Event()
        self._head = head
        self._body = body
        self._pause = pause

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {self._head}\r\nconnection: close\r\n\r\n".encode())
        with suppress(ConnectionError, RuntimeError):  # uvloop's word for a transport that is closed
            for data in self._body:
                writer.write(data)
                await writer.drain()
                self.sent += len(data)
                await asyncio.sleep(self._pause)
        self.ended.set()
        writer.close()


@asynccontextmanager
async def failed_completion(
    head: str, body: Any, *, pause: float = 0, limits: ErrorBodyLimits = LIMITS
) -> AsyncIterator[tuple[openai.APIStatusError, ErrorServer]]:
    """Yield the error that a completion ends with, and the server that sent it."""
    refusing = ErrorServer(head, body, pause=pause)
    server = await asyncio.start_server(refusing.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = open_client(
        api_key="key",
        base_url=url,
        site_url="",
        app_name="",
        connect_timeout=60,
        read_timeout=60,
        read_pacer=ReadPacer(),
        error_limits=limits,
    )
    try:
        async with asyncio.timeout(ENDED):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.complete({"model": "a/b"})
        yield caught.value, refusing
    finally:
        await client.close()
        server.close()


@pytest.mark.parametrize(
    ("data", "pause", "limits"),
    [(CHUNK, 0, LIMITS), (b"x", 0.05, ErrorBodyLimits(size=10_000, seconds=0.5))],
    ids=["fast", "slow"],
)
async def test_endless_error_body_is_closed_and_its_status_translated(
    data: bytes, pause: float, limits: ErrorBodyLimits
) -> None:
    """Reading ends at the bound of bytes or of seconds; status and `Retry-After` still count."""
    head = "429 x\r\nretry-after: 7"
    async with failed_completion(head, repeat(data), pause=pause, limits=limits) as (error, server):
        async with asyncio.timeout(180):
            await server.ended.wait()

        translated = errors.from_exception(error)
        assert isinstance(translated, ProviderThrottled)
        assert translated.retry_after == 7
        assert not errors.is_free_rejection(error)


async def test_compressed_error_body_is_not_expanded_beyond_bound() -> None:
    """A small body that expands to 100 MB needs little memory; the error is known by its status."""
    bomb = gzip.compress(b"\0" * 100_000_000)
    tracemalloc.start()
    try:
        async with failed_completion("402 x\r\ncontent-encoding: gzip", [bomb]) as (error, _):
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert isinstance(errors.from_exception(error), ProviderAccountRefused)
    assert peak < 10_000_000


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_error_body_within_bound_is_read(encoding: str) -> None:
    """Its code, its usage and the generation of its headers count, plain or compressed."""
    body = json.dumps(REFUSAL).encode()
    head = "503 x\r\nx-generation-id: gen-1" + (f"\r\ncontent-encoding: {encoding}" if encoding else "")
    async with failed_completion(head, [gzip.compress(body) if encoding else body]) as (error, _):
        assert isinstance(errors.from_exception(error), ProviderThrottled)
        assert errors.usage_of(error) == {"cost": Decimal("0.25")}
        assert errors.generation_id(error.response.headers) == "gen-1"


@pytest.mark.parametrize(
    "head",
    ["402 x\r\ncontent-length: 100", "402 x\r\ncontent-encoding: gzip", "402 x\r\ncontent-encoding: br"],
    ids=["broken", "not gzip", "unknown encoding"],
)
async def test_unreadable_error_body_is_known_by_its_status(head: str) -> None:
    """A body that breaks off or cannot be decoded counts as empty."""
    async with failed_completion(head, [b"xyz"]) as (error, _):
        assert isinstance(errors.from_exception(error), ProviderAccountRefused)
        assert errors.usage_of(error) is None


async def test_deeply_nested_error_body_is_known_by_its_status() -> None:
    """JSON beyond the parser's depth counts as no body."""
    async with failed_completion("402 x", [b"[" * 9_999]) as (error, _):
        assert isinstance(errors.from_exception(error), ProviderAccountRefused)
        assert not errors.is_free_rejection(error)
