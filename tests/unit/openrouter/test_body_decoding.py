"""A response's body is decoded in bounded pieces, and read up to a bound of decoded bytes."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest

from godoty_service.openrouter.transport import UnreadableBody, decoded, read_bounded

MOST = 1000


class Stream(httpx.AsyncByteStream):
    """A body in chunks of 100 bytes that counts how much of it was read."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), 100):
            self.taken = start + 100
            yield self._body[start : start + 100]

    async def aclose(self) -> None:
        """Record the close."""
        self.closed = True


def response(body: bytes, encoding: str = "") -> tuple[httpx.Response, Stream]:
    """Return a response with this body, and its stream."""
    stream = Stream(body)
    return httpx.Response(200, headers={"content-encoding": encoding} if encoding else None, stream=stream), stream


@pytest.mark.parametrize(
    ("encoding", "encode"), [("", bytes), ("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_body_up_to_bound_is_decoded(encoding: str, encode: type[bytes]) -> None:
    """A body of the largest allowed size is returned whole, plain or compressed."""
    body = bytes(range(250)) * 4
    found, stream = response(encode(body), encoding)

    assert await read_bounded(found, max_size=MOST) == body
    assert stream.closed


async def test_endless_body_is_read_no_further_than_bound() -> None:
    """Reading stops after the bound, and the response is closed."""
    found, stream = response(b"x" * 1_000_000)

    with pytest.raises(UnreadableBody):
        await read_bounded(found, max_size=MOST)

    assert stream.taken <= MOST + 100
    assert stream.closed


async def test_compressed_body_is_not_expanded_beyond_bound() -> None:
    """A small body that expands to 100 MB is rejected after the bound."""
    found, _ = response(gzip.compress(b"\0" * 100_000_000), "gzip")

    with pytest.raises(UnreadableBody):
        await read_bounded(found, max_size=MOST)


async def test_compressed_stream_is_decoded_in_bounded_pieces() -> None:
    """No piece is larger than requested, and together they are the body."""
    body = bytes(range(256)) * 40_000
    found, _ = response(gzip.compress(body), "gzip")

    pieces = [each async for each in decoded(found, piece=5000)]

    assert max(map(len, pieces)) <= 5000
    assert b"".join(pieces) == body


async def test_what_follows_a_compressed_stream_is_ignored() -> None:
    """Bytes after its end, which a decoder returns again and again."""
    body = b"\0" * 200_000
    found, _ = response(gzip.compress(body) + b"and more", "gzip")

    async with asyncio.timeout(180):
        pieces = [each async for each in decoded(found, piece=65_536)]
    assert b"".join(pieces) == body


async def test_deflated_body_without_header_is_decoded() -> None:
    """Some servers send `deflate` without the zlib header."""
    found, _ = response(zlib.compress(b"hello")[2:-4], "deflate")

    assert await read_bounded(found, max_size=MOST) == b"hello"


@pytest.mark.parametrize(("encoding", "body"), [("br", b"x"), ("gzip", b"not gzip")])
async def test_undecodable_body_is_rejected(encoding: str, body: bytes) -> None:
    """An unknown encoding, or a body that is not in the stated one, is rejected."""
    found, _ = response(body, encoding)

    with pytest.raises(UnreadableBody):
        await read_bounded(found, max_size=MOST)
