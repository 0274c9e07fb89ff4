"""Connections whose peers must answer a request within a number of bytes.

An HTTP client reads interim answers (1xx) until another one comes. A peer that sends nothing else would keep the event
loop busy, as fast as the network is, until the request's time is over.
"""

import ssl
from typing import Any, Final

import httpcore2

_MAX_HEAD: Final = 128 * 1024  # bytes of the status, the headers and all interim answers
_READ: Final = 16 * 1024  # bytes of one read meanwhile: some milliseconds, if they are hundreds of interim answers


class BoundedHead(httpcore2.AsyncNetworkStream):
    """A connection that breaks if the headers of an answer have not arrived within a number of bytes."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        """Bound a connection.

        Args:
            stream: The connection.
        """
        self._stream = stream
        self._left: int | None = _MAX_HEAD  # None: the headers have arrived

    def head_arrived(self) -> None:
        """Read what follows without a bound, until the next request is sent."""
        self._left = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface's
        """Read some bytes.

        Raises:
            httpcore2.RemoteProtocolError: The headers should have arrived.
        """
        if self._left is None:
            return await self._stream.read(max_bytes, timeout)
        data = await self._stream.read(min(max_bytes, _READ), timeout)
        self._left -= len(data)
        if self._left < 0:
            raise httpcore2.RemoteProtocolError("The headers of the answer are too large.")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface's
        """Send bytes of a request, whose answer is to be read next."""
        self._left = _MAX_HEAD
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's
    ) -> httpcore2.AsyncNetworkStream:
        """Encrypt the connection."""
        return BoundedHead(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the connection."""
        return self._stream.get_extra_info(info)
