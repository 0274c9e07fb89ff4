"""Decodes a response's body in bounded pieces, and reads it up to a bound, so that no answer exhausts the memory."""

import asyncio
import zlib
from collections.abc import AsyncIterator

import httpx2 as httpx

ENCODINGS = "gzip, deflate"  # what `read_bounded` decodes: the request's `Accept-Encoding`
_PIECE = 256 * 1024  # decoded bytes
_ANY_ZLIB = 47  # window bits: zlib or gzip, by the header


class UnreadableBody(ValueError):
    """The body is larger than allowed, or encoded in an unknown way."""


async def read_bounded(response: httpx.Response, *, most: int) -> bytes:
    """Read a body and close the response.

    Args:
        response: Its headers are here; nothing of its body was read.
        most: Bytes, after decoding.

    Raises:
        UnreadableBody: There are more bytes, or they cannot be decoded.
        httpx.TransportError: The connection broke.
    """
    body = bytearray()
    try:
        async for data in decoded(response, piece=min(_PIECE, most + 1)):
            body += data
            if len(body) > most:
                raise UnreadableBody(f"more than {most} bytes")
    finally:
        await response.aclose()
    return bytes(body)


async def decoded(response: httpx.Response, *, piece: int = _PIECE) -> AsyncIterator[bytes]:
    """Decode a body as it comes, a bounded number of bytes at a time: a compressed one may expand a thousandfold.

    Args:
        response: Its headers are here; nothing of its body was read.
        piece: Bytes, after decoding.

    Raises:
        UnreadableBody: It cannot be decoded.
        httpx.TransportError: The connection broke.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", "deflate"}:
        raise UnreadableBody("unknown content encoding")
    decoder: zlib._Decompress | None = None
    async for data in response.aiter_raw():
        if encoding == "identity":
            yield data
            continue
        rest = data
        decoder = decoder or _decoder(encoding, data)
        while rest:
            try:
                some, rest = decoder.decompress(rest, piece), decoder.unconsumed_tail
            except zlib.error as error:
                raise UnreadableBody("not the stated content encoding") from error
            if some:
                yield some
            if rest:
                await asyncio.sleep(0)
    if decoder is not None and (some := decoder.flush()):
        yield some


def _decoder(encoding: str, first: bytes) -> "zlib._Decompress":
    """Return the decoder of an encoding; some send `deflate` without the header of zlib."""
    bare = encoding == "deflate" and first[0] & 0x0F != zlib.DEFLATED
    return zlib.decompressobj(-zlib.MAX_WBITS if bare else _ANY_ZLIB)
