"""httpx's transport on aiohttp: its C parser reads a stream at a third of the cost.

The openai client brings one, too. That one takes a connection that broke under a request for one that never stood,
and does not say when a request leaves. Whether a call can have cost anything hangs on both, so this is our own.
"""

import asyncio
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import aiohttp
import httpx2 as httpx

from godoty_service.openrouter.pace import Pace

# Called when the first byte of the request that is being made leaves; what it raises keeps the byte from leaving.
SENDING: ContextVar[Callable[[], None] | None] = ContextVar("sending", default=None)

_BODY = "godoty_body"  # among a response's extensions
_KEEP_ALIVE = 60.0  # seconds that an idle connection stays open

# The first that fits tells: those that never carried a byte come before the classes that they belong to.
_ERRORS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
    (TimeoutError, httpx.ReadTimeout),
    (OSError, httpx.ReadError),
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """One pool of connections, as many as it takes; none is bound to a loop before the first request.

    Args:
        pace: Tells bodies when to rest.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; returns as soon as the response's headers are here.

        Raises:
            httpx.TransportError: It failed on the way.
        """
        response = await self.ask(
            request.method,
            str(request.url),
            headers=request.headers,
            content=request.content,
            limits=limits_of(request.extensions.get("timeout", {})),
        )
        response.request = request
        return response

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes,
        limits: aiohttp.ClientTimeout,
    ) -> httpx.Response:
        """Send a request past httpx's client: a fifth of what a call costs. The response knows of no request.

        Raises:
            httpx.TransportError: It failed on the way.
        """
        with _translated():
            response = await self._open().request(
                method, url, headers=headers, data=content or None, allow_redirects=False, timeout=limits
            )
        body = Body(response, self._pace, limits.sock_read)
        return httpx.Response(response.status, headers=response.raw_headers, stream=body, extensions={_BODY: body})

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_headers_sent.append(_on_sending)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, ssl=_ssl_context()),
                auto_decompress=False,  # httpx does
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[tracing],
                trust_env=bool(urllib.request.getproxies()),  # asked each time, it costs more than the request
            )
        return self._session


@cache
def _ssl_context() -> ssl.SSLContext:
    """The certificates that httpx trusts, read once: 25 ms of CPU."""
    return httpx.create_ssl_context()


def limits_of(timeout: Mapping[str, float | None]) -> aiohttp.ClientTimeout:
    """Tell how long it may take to connect, and how long a response may be silent, from what httpx says of both."""
    connect = timeout.get("connect")
    return aiohttp.ClientTimeout(sock_connect=connect, connect=connect, sock_read=timeout.get("read"))


def body_of(response: httpx.Response) -> "Body | None":
    """Tell a response's body as it is on the wire; None: the response is not one of ours."""
    return response.extensions.get(_BODY)


class Body(httpx.AsyncByteStream):
    """A response's body: at each step all that has arrived.

    Args:
        response: Its headers are here.
        pace: When to rest.
        timeout: Seconds without a byte after which it has failed.
    """

    def __init__(self, response: aiohttp.ClientResponse, pace: Pace, timeout: float | None) -> None:
        self._response = response
        self._content = response.content
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._pace = pace
        self._timeout = timeout
        self._seen = 0  # bytes
        self._seen_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        if response.connection is not None and response.connection.protocol is not None:
            response.connection.protocol.read_timeout = None  # it sets a timer anew for each read: `_look` need not

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._watched():
            while data := await self._arrived():
                yield data

    async def pour(self, take: Callable[[bytes], None]) -> None:
        """Hand over the body to its end: the same without a generator's turns for each token.

        Raises:
            httpx.TransportError: It broke off.
        """
        with self._watched():
            while data := await self._arrived():
                take(data)

    async def aclose(self) -> None:
        """Give the connection back where the body was read to its end, else close it at once."""
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()

    async def _arrived(self) -> bytes:
        """Wait for what comes next: the first token at once, whatever the pace. Nothing: it has come to its end."""
        content = self._content
        if self._seen:
            await self._pace.rest(self._more)
        data = await content.readany()
        self._seen, self._seen_at = content.total_bytes, self._now()
        return data

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._seen_at = self._now()
        self._watch(self._timeout)
        try:
            with _translated():
                yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _more(self) -> bool:
        content = self._content
        return content.total_bytes > self._seen or content.is_eof() or content.exception() is not None

    def _watch(self, seconds: float | None) -> None:
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Fail a body that has been silent for too long."""
        timeout = self._timeout or 0.0
        left = timeout if self._more() else self._seen_at + timeout - self._now()
        if left > 0:
            self._watch(left)
        else:
            self._content.set_exception(aiohttp.SocketTimeoutError("The response has been silent for too long."))


async def _on_sending(*_: Any) -> None:
    if (told := SENDING.get()) is not None:
        told()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError) as failure:
        kind = next(kind for foreign, kind in _ERRORS if isinstance(failure, foreign))
        raise kind(str(failure) or type(failure).__name__) from failure
