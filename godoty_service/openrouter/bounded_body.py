"""Reads a response's body up to a bound of decoded bytes, so that no answer exhausts the memory."""

import zlib

import httpx2 as httpx

ENCODINGS = "gzip, deflate"  # what `read_bounded` decodes: the request's `Accept-Encoding`
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
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    decoder = None if encoding == "identity" else zlib.decompressobj(_ANY_ZLIB)
    body = bytearray()
    try:
        if encoding not in {"identity", "gzip", "x-gzip", "deflate"}:
            raise UnreadableBody("unknown content encoding")
        async for data in response.aiter_raw():
            body += data if decoder is None else decoder.decompress(data, most + 1 - len(body))
            if len(body) > most:
                raise UnreadableBody(f"more than {most} bytes")
    except zlib.error as error:
        raise UnreadableBody("not the stated content encoding") from error
    finally:
        await response.aclose()
    return bytes(body)
