"""Pools of HTTP connections to checked addresses, and the reading of bounded answers."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import httpcore2
import httpx2

from godoty_service.agents.outbound.addresses import AddressRefused, AddressRules, CheckedNetwork
from godoty_service.agents.outbound.lookups import Lookups
from godoty_service.agents.outbound.streams import BoundedHead

_CONNECTIONS = 256  # of a pool: as many requests run at once
_IDLE_CONNECTIONS = 20
_IDLE_SECONDS = 30.0
_PIECES_AT_ONCE = 256  # of a body: a read of 64 KiB may have ten thousand, at 20 us each
FAILURES: Final = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
    OSError,
)
Headers = list[tuple[bytes, bytes]]


class RequestFailed(Exception):
    """A request has no usable answer. The text is for the model and the tenant: bounded, and without secrets."""


class RequestRefused(RequestFailed):
    """A request may not be sent: its URL, its host or the host's address is not permitted."""


class RequestTimedOut(RequestFailed):
    """A request has no answer in time."""


@cache
def trusted_certificates() -> ssl.SSLContext:
    """Return the context that trusts the usual authorities. It is loaded once, as that takes 50 ms."""
    return httpx2.create_ssl_context()


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the connections of several pools have in common.

    Attributes:
        rules: Decides which addresses may be connected to.
        certificates: The certificates that are trusted.
        connect_timeout: Seconds in which a connection must be established.
        lookups: Resolves names.
    """

    rules: AddressRules
    certificates: ssl.SSLContext = field(default_factory=trusted_certificates)
    connect_timeout: float = 5.0
    lookups: Lookups = field(default_factory=Lookups)


class HttpPool:
    """A pool of connections; encrypted and unencrypted ones are checked by different rules."""

    def __init__(self, network: Network, *, owner: str = "") -> None:
        """Create it without a connection.

        Args:
            network: What it has in common with other pools.
            owner: Whose hosts it connects to; empty: all tenants'.
        """
        self._network = network
        self._owner = owner
        self._pools: dict[str, httpcore2.AsyncConnectionPool] = {}

    async def send(
        self, method: str, url: httpcore2.URL, *, headers: Headers, content: bytes, read_timeout: float
    ) -> httpcore2.Response:
        """Send a request; return the response when its headers have arrived. The caller closes it.

        Args:
            method: The HTTP method.
            url: The URL.
            headers: All headers.
            content: The body; may be empty.
            read_timeout: Seconds for which the response may be silent.

        Raises:
            RequestFailed: No response came.
        """
        connect = self._network.connect_timeout
        timeout = {"connect": connect, "pool": connect, "write": read_timeout, "read": read_timeout}
        request = httpcore2.Request(method, url, headers=headers, content=content, extensions={"timeout": timeout})
        try:
            response = await self._pool(url.scheme.decode()).handle_async_request(request)
        except FAILURES as error:
            raise _failure(error) from error
        if isinstance(stream := response.extensions.get("network_stream"), BoundedHead):
            stream.head_arrived()
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    def _pool(self, scheme: str) -> httpcore2.AsyncConnectionPool:
        """Return the connections of a scheme.

        Raises:
            RequestFailed: The scheme is not one of HTTP.
        """
        if scheme not in ("http", "https"):
            raise RequestFailed("The server redirects to a URL that is not one of HTTP.")
        if scheme not in self._pools:
            backend = CheckedNetwork(
                self._network.rules, encrypted=scheme == "https", lookups=self._network.lookups, owner=self._owner
            )
            self._pools[scheme] = httpcore2.AsyncConnectionPool(
                ssl_context=self._network.certificates,
                max_connections=_CONNECTIONS,
                max_keepalive_connections=_IDLE_CONNECTIONS,
                keepalive_expiry=_IDLE_SECONDS,
                network_backend=backend,
            )
        return self._pools[scheme]


def _failure(error: Exception) -> RequestFailed:
    """Return what an error of the network means for a request."""
    text = failure_text(error)
    if isinstance(error, AddressRefused):
        return RequestRefused(text)
    return RequestTimedOut(text) if isinstance(error, httpcore2.TimeoutException) else RequestFailed(text)


def failure_text(error: Exception) -> str:
    """Return what an error of the network means, in words that reveal nothing of this host."""
    match error:
        case AddressRefused():
            return "The server's address is not permitted: it is not public, or HTTP is not encrypted."
        case httpcore2.ConnectTimeout() | httpcore2.ConnectError():
            return "The server cannot be reached."
        case httpcore2.PoolTimeout():
            return "Too many requests to the server are running."
        case httpcore2.TimeoutException():
            return "The server did not answer in time."
        case ssl.SSLError():
            return "The server's certificate is not trusted."
        case _:
            return "The connection to the server broke."


async def read_bounded(response: httpcore2.Response, *, max_bytes: int) -> bytes:
    """Read a body and close the response; return at most `max_bytes` of it.

    Raises:
        RequestFailed: The connection broke.
    """
    body = bytearray()
    try:
        async for piece in pieces(response):
            body += piece
            if len(body) >= max_bytes:
                break
    except FAILURES as error:
        raise _failure(error) from error
    finally:
        await response.aclose()
    return bytes(body[:max_bytes])


async def pieces(response: httpcore2.Response) -> AsyncIterator[bytes]:
    """Yield the pieces of a response's body as they arrive; the event loop gets a turn between many tiny ones."""
    number = 0
    async for piece in response.aiter_stream():
        yield piece
        number += 1
        if number % _PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)


def header(response: httpcore2.Response, name: str) -> str:
    """Return a header of a response; empty: it has none."""
    wanted = name.encode()
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == wanted), "")


def raw_headers(headers: Mapping[str, Any]) -> Headers:
    """Encode headers."""
    return [(name.encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]
