"""An httpx transport on aiohttp, whose C parser reads a stream at a third of the cost, and bounded body decoding.

The openai client brings one, too. That one reports a connection that broke during a request as one that was never
established, and cannot report when a request is sent. Whether a call can have cost anything depends on both.
"""

import asyncio
import ssl
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any, Protocol

import aiohttp
import httpx2 as httpx

from godoty_service.openrouter.read_pacer import ReadPacer

ENCODINGS = "gzip, deflate"  # what `decoded` decodes: a request's `Accept-Encoding`

_BODY = "godoty_body"  # among a response's extensions
_KEEP_ALIVE = 60.0  # seconds that an idle connection stays open
_PIECE = 256 * 1024  # decoded bytes
_UNLIMITED = 64 * 1024  # bytes of a request that a connection takes at once, also if the server reads none
_ANY_ZLIB = 47  # window bits: zlib or gzip, by the header

# The first match decides: errors before the first byte was sent precede the classes that they belong to.
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


class UnreadableBody(ValueError):
    """The body is larger than allowed, or its encoding is unknown or broken."""


class SizedBody(Protocol):
    """A body that is read while it is sent."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield its pieces."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """An unbounded connection pool; it binds to the event loop at the first request.

    Args:
        read_pacer: Paces the reads of all response bodies.
    """

    def __init__(self, read_pacer: ReadPacer) -> None:
        self._read_pacer = read_pacer
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of an httpx client; return the response when its headers have arrived.

        Raises:
            httpx.TransportError: The request failed.
        """
        response = await self.send(
            request.method,
            str(request.url),
            headers=request.headers,
            content=request.content,
            limits=client_timeout(request.extensions.get("timeout", {})),
        )
        response.request = request
        return response

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: "bytes | SizedBody",
        limits: aiohttp.ClientTimeout,
        on_sending: Callable[[], None] | None = None,
    ) -> httpx.Response:
        """Send a request without an httpx client, which saves a fifth of a call's cost.

        The response has no `request`.

        Args:
            method: The HTTP method.
            url: The absolute URL.
            headers: All headers but those of the connection.
            content: The body; may be empty, or read while it is sent.
            limits: Times for connecting, and for the silence of the response.
            on_sending: Called before the first byte is sent; if it raises, nothing is sent.

        Raises:
            httpx.TransportError: The request failed.
        """
        data: bytes | AsyncIterator[bytes] | None = None
        async with _sending_limit(len(content) if isinstance(content, bytes) else content.size, limits) as limit:
            if isinstance(content, bytes):
                data = content or None
            else:  # without its length, it would be sent in chunks
                headers, data = {**headers, "content-length": str(content.size)}, _limited(content, limit, limits)
            response = await self._open().request(
                method,
                url,
                headers=headers,
                data=data,
                allow_redirects=False,
                timeout=limits,
                trace_request_ctx=on_sending,
            )
        body = Body(response, self._read_pacer, limits.sock_read)
        return httpx.Response(response.status, headers=response.raw_headers, stream=body, extensions={_BODY: body})

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_headers_sent.append(_call_on_sending)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, ssl=_ssl_context()),
                auto_decompress=False,  # `decoded` does it within bounds
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[tracing],
                trust_env=bool(urllib.request.getproxies()),  # per request, it would cost more than the request
            )
        return self._session


async def _call_on_sending(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """Call the request's `on_sending`; aiohttp has the headers ready and has written none of them."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx()


@cache
def _ssl_context() -> ssl.SSLContext:
    """Return the certificates that httpx trusts, read once: 25 ms of CPU."""
    return httpx.create_ssl_context()


def client_timeout(timeout: Mapping[str, float | None]) -> aiohttp.ClientTimeout:
    """Convert httpx's timeouts: to connect, and for the silence of a response."""
    connect = timeout.get("connect")
    return aiohttp.ClientTimeout(sock_connect=connect, connect=connect, sock_read=timeout.get("read"))


def body_of(response: httpx.Response) -> "Body | None":
    """Return a response's undecoded body; None: it is not a response of this transport."""
    return response.extensions.get(_BODY)


class Body(httpx.AsyncByteStream):
    """A response's body, read in pieces of all that has arrived.

    Args:
        response: Its headers have arrived.
        read_pacer: Paces the reads.
        timeout: Seconds of silence after which the body has failed.
    """

    def __init__(self, response: aiohttp.ClientResponse, read_pacer: ReadPacer, timeout: float | None) -> None:
        self._response = response
        self._content = response.content
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._read_pacer = read_pacer
        self._timeout = timeout
        self._seen = 0  # bytes
        self._seen_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        if response.connection is not None and response.connection.protocol is not None:
            response.connection.protocol.read_timeout = None  # it would set a new timer for each read; ours is lazy

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._guarded():
            while data := await self._read():
                yield data

    async def read_into(self, sink: Callable[[bytes], None]) -> None:
        """Read the body to its end into a sink, without the cost of a generator for each token.

        Raises:
            httpx.TransportError: The body broke off.
        """
        with self._guarded():
            while data := await self._read():
                sink(data)

    async def aclose(self) -> None:
        """Release the connection to the pool if the body was read to its end, else close it at once."""
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()

    async def _read(self) -> bytes:
        """Wait for the next bytes: for the first ones without pacing. Return no bytes at the end."""
        content = self._content
        if self._seen:
            await self._read_pacer.wait(self._has_more)
        data = await content.readany()
        self._seen, self._seen_at = content.total_bytes, self._now()
        return data

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Translate errors, and fail a silent body."""
        self._seen_at = self._now()
        self._schedule_check(self._timeout)
        self._read_pacer.streams += 1
        try:
            with _translate_errors():
                yield
        finally:
            self._read_pacer.streams -= 1
            if self._timer is not None:
                self._timer.cancel()

    def _has_more(self) -> bool:
        content = self._content
        return content.total_bytes > self._seen or content.is_eof() or content.exception() is not None

    def _schedule_check(self, seconds: float | None) -> None:
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._check_silence)

    def _check_silence(self) -> None:
        """Fail a body that has been silent for too long."""
        timeout = self._timeout or 0.0
        remaining = timeout if self._has_more() else self._seen_at + timeout - self._now()
        if remaining > 0:
            self._schedule_check(remaining)
        else:
            self._content.set_exception(aiohttp.SocketTimeoutError("The response has been silent for too long."))


@asynccontextmanager
async def _sending_limit(size: int, limits: aiohttp.ClientTimeout) -> AsyncIterator[asyncio.Timeout]:
    """Fail a request whose body the server does not take: aiohttp waits for that without a limit.

    Args:
        size: The bytes of the body.
        limits: As long as a response may be silent, a server may take nothing; then it may be silent.
    """
    seconds = None
    if size > _UNLIMITED and limits.sock_read is not None:
        seconds = (limits.sock_connect or 0.0) + 2 * limits.sock_read
    with _translate_errors():
        async with asyncio.timeout(seconds) as limit:
            yield limit


async def _limited(body: SizedBody, limit: asyncio.Timeout, limits: aiohttp.ClientTimeout) -> AsyncIterator[bytes]:
    """Yield the pieces of a body; each that the server has taken gives the next one its time."""
    loop, seconds = asyncio.get_running_loop(), limits.sock_read
    async for piece in body:
        if seconds is not None and limit.when() is not None:
            limit.reschedule(loop.time() + 2 * seconds)
        yield piece


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError) as failure:
        kind = next(kind for foreign, kind in _ERRORS if isinstance(failure, foreign))
        raise kind(str(failure) or type(failure).__name__) from failure


async def read_bounded(response: httpx.Response, *, max_size: int) -> bytes:
    """Read a body and close the response.

    Args:
        response: Its headers have arrived; nothing of its body was read.
        max_size: Bytes, after decoding.

    Raises:
        UnreadableBody: The body is larger, or cannot be decoded.
        httpx.TransportError: The connection broke.
    """
    body = bytearray()
    try:
        async for data in decoded(response, piece=min(_PIECE, max_size + 1)):
            body += data
            if len(body) > max_size:
                raise UnreadableBody(f"more than {max_size} bytes")
    finally:
        await response.aclose()
    return bytes(body)


async def decoded(response: httpx.Response, *, piece: int = _PIECE) -> AsyncIterator[bytes]:
    """Decode a body as it arrives, in bounded pieces: a compressed one may expand a thousandfold.

    Args:
        response: Its headers have arrived; nothing of its body was read.
        piece: Bytes, after decoding.

    Raises:
        UnreadableBody: The body cannot be decoded.
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
        while rest and not decoder.eof:  # after its end the tail does not change
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
    """Return the decoder of an encoding; some servers send `deflate` without the zlib header."""
    is_raw = encoding == "deflate" and first[0] & 0x0F != zlib.DEFLATED
    return zlib.decompressobj(-zlib.MAX_WBITS if is_raw else _ANY_ZLIB)
