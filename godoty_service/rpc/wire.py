"""Reads requests and encodes responses, within bounds of time and size.

Handlers get the bytes of a request only after admission, so that a caller without a good key costs no decoding.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from godoty_service.errors import GodotyError

Context = Any  # grpc.aio.ServicerContext, whose type parameters are of no use here
Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]

LARGEST_RESPONSE = 3 * 1024 * 1024  # bytes; clients refuse more than 4 MiB by default


class MalformedRequest(GodotyError):
    """The bytes are not the message that the method takes."""

    reason = "MALFORMED_REQUEST"


class RequestNotReceived(GodotyError):
    """The call was begun, but its message did not arrive."""

    reason = "DEADLINE_EXCEEDED"


class ResponseTooLarge(GodotyError):
    """A response would be larger than clients accept."""

    reason = "RESPONSE_TOO_LARGE"


async def read_request(context: Context, decode: Decode, *, seconds: float) -> Any:
    """Read the only message of a call.

    Args:
        context: The call.
        decode: Decodes the bytes of the message.
        seconds: In which the whole message must arrive.

    Raises:
        RequestNotReceived: It did not.
        MalformedRequest: There is none, or it cannot be decoded.
    """
    body = await _receive(context, seconds=seconds)
    if body is None:
        raise MalformedRequest("The call has no message.")
    return _decoded(decode, body)


async def read_requests(context: Context, decode: Decode, *, seconds: float) -> AsyncIterator[Any]:
    """Read the messages of a call until the client ends its stream.

    Args:
        context: The call.
        decode: Decodes the bytes of a message.
        seconds: In which each message must arrive.

    Raises:
        RequestNotReceived: One did not.
        MalformedRequest: One cannot be decoded.
    """
    while (body := await _receive(context, seconds=seconds)) is not None:
        yield _decoded(decode, body)


def encoded(encode: Encode, response: Any) -> bytes:
    """Encode a response.

    Raises:
        ResponseTooLarge: It has more than `LARGEST_RESPONSE` bytes.
    """
    body = encode(response)
    if len(body) > LARGEST_RESPONSE:
        raise too_large(body)
    return body


def too_large(body: bytes) -> ResponseTooLarge:
    """Make the error of a response that is too large."""
    return ResponseTooLarge(
        f"The response has {len(body):,} bytes, and {LARGEST_RESPONSE:,} are the most: ask for a smaller page.",
        metadata={"bytes": str(len(body))},
    )


async def _receive(context: Context, *, seconds: float) -> bytes | None:
    try:
        async with asyncio.timeout(seconds):
            body = await context.read()
    except TimeoutError:
        raise RequestNotReceived(f"The request's message did not arrive within {seconds:g} s.") from None
    return None if body is grpc.aio.EOF else body  # type: ignore[attr-defined] # the stubs hide it


def _decoded(decode: Decode, body: bytes) -> Any:
    try:
        return decode(body)
    except GodotyError:  # it is refused for what is in it
        raise
    except Exception as error:
        raise MalformedRequest("The request could not be decoded.") from error
