"""The HTTP transport of one MCP client: adds the server's credentials, follows redirects, and bounds answers.

The `mcp` package closes a client, with all its calls, on an error of its transport. So a failure becomes an answer with
status 502, and a body that breaks or is too large ends early; what was wrong is noted for the call that requested it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Final
from urllib.parse import urljoin

import httpcore2
import httpx2

from godoty_service.agents.mcp.errors import McpFailure, McpUnavailable
from godoty_service.agents.mcp.http_pool import FAILURES, failure_text, header, pieces, read_bounded
from godoty_service.agents.mcp.links import ServerLink
from godoty_service.agents.mcp.oauth import host_header
from godoty_service.agents.mcp.server import origin

MAX_REDIRECTS = 3
_MAX_RESUMPTIONS = 2  # of answers that broke off, by one client
_MAX_ERROR_BYTES = 64 * 1024
_MAX_VALUES = 100_000  # objects and lists in one answer: each takes some 100 bytes once it is decoded
_SHORT = 5.0  # seconds for a request that has no answer, such as a notification
_NOT_ALLOWED, _BAD_GATEWAY, _UNAUTHORIZED, _ERROR = 405, 502, 401, 400
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_WITH_BODY: Final = frozenset({307, 308})
_SESSION = "mcp-session-id"
_RESUME = "last-event-id"


class Exchange:
    """What a call's requests met with.

    Attributes:
        problem: What was wrong, for the model; empty: nothing.
        status: The status of the server's last answer; 0: none came.
        session_lost: The server does not know the client's session.
        hopeless: Resolved when the call cannot succeed any more.
    """

    def __init__(self) -> None:
        self.problem = ""
        self.status = 0
        self.session_lost = False
        self.hopeless: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, problem: str) -> None:
        """Note that the call cannot succeed."""
        self.problem = problem
        if not self.hopeless.done():
            self.hopeless.set_result(None)


# The `mcp` package sends a request in the context of the task that makes the call.
EXCHANGE: ContextVar[Exchange | None] = ContextVar("mcp_exchange", default=None)


class McpTransport(httpx2.AsyncBaseTransport):
    """Sends a client's requests by the connections that all clients of its server share."""

    def __init__(self, link: ServerLink, *, listens: bool, max_bytes: int, read_timeout: float) -> None:
        """Create the transport.

        Args:
            link: The connections to the server.
            listens: Whether the client receives what the server sends on its own accord.
            max_bytes: Bytes of one answer.
            read_timeout: Seconds for which an answer may be silent.
        """
        self._link = link
        self._listens = listens
        self._max_bytes = max_bytes
        self._read_timeout = read_timeout
        self._resumptions = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; a failure is an answer with status 502."""
        exchange = EXCHANGE.get() or Exchange()
        if request.method == "GET" and not self._may_get(request, exchange):
            return httpx2.Response(_NOT_ALLOWED)
        try:
            answer = await self._send(request)
            return await self._response(request, answer, exchange)
        except McpFailure as failure:
            exchange.problem = str(failure)
            return httpx2.Response(_BAD_GATEWAY)

    def _may_get(self, request: httpx2.Request, exchange: Exchange) -> bool:
        """Return whether a GET is sent: to listen, or to resume an answer that broke off."""
        if _RESUME not in request.headers:
            return self._listens
        self._resumptions += 1
        return self._listens or (self._resumptions <= _MAX_RESUMPTIONS and not exchange.hopeless.done())

    async def _send(self, request: httpx2.Request) -> httpcore2.Response:
        """Send a request, and follow its redirects.

        Raises:
            McpUnavailable: No answer came, or it redirects too often or to where the request cannot go.
        """
        method, url = request.method, str(request.url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._send_once(request, url)
            location = header(answer, "location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            await answer.aclose()
            if method != "GET" and answer.status not in _WITH_BODY:
                raise McpUnavailable(f"The server redirects with HTTP {answer.status}; only 307 and 308 keep a body.")
            url = _target(url, location)
        raise McpUnavailable(f"The server redirects more than {MAX_REDIRECTS} times.")

    async def _send_once(self, request: httpx2.Request, url: str) -> httpcore2.Response:
        """Send a request to a URL, with the credentials if it is the server's; once again if its token is refused."""
        own = origin(url) == self._link.origin
        authorization = await self._link.authorization() if own else []
        answer = await self._send_as(request, url, authorization, own=own)
        if answer.status == _UNAUTHORIZED and own and self._link.refuse(authorization):
            await answer.aclose()
            answer = await self._send_as(request, url, await self._link.authorization(), own=own)
        return answer

    async def _send_as(
        self, request: httpx2.Request, url: str, authorization: list[tuple[bytes, bytes]], *, own: bool
    ) -> httpcore2.Response:
        target = httpcore2.URL(url)
        dropped = {b"host", b"accept-encoding", b"user-agent", *([] if own else [_SESSION.encode()])}
        headers = [
            (b"Host", host_header(target)),
            (b"Accept-Encoding", b"identity"),
            (b"User-Agent", b"godoty"),
            *((name, value) for name, value in request.headers.raw if name.lower() not in dropped),
            *authorization,
        ]
        content = request.content
        silent = request.method == "DELETE" or b'"method":"notifications/' in content[:256].replace(b" ", b"")
        timeout = _SHORT if silent else self._read_timeout
        return await self._link.pool.send(
            request.method, target, headers=headers, content=content, read_timeout=timeout
        )

    async def _response(
        self, request: httpx2.Request, answer: httpcore2.Response, exchange: Exchange
    ) -> httpx2.Response:
        """Convert an answer. The body of an error is read here; others are read as they arrive.

        Raises:
            McpUnavailable: The answer is compressed, which was not requested, or its connection broke.
        """
        exchange.status = answer.status
        if header(answer, "content-encoding") not in ("", "identity"):
            await answer.aclose()
            raise McpUnavailable("The server compresses its answers, although the request accepts none compressed.")
        if answer.status < _ERROR:
            body = _BoundedBody(answer, self._max_bytes, exchange)
            return httpx2.Response(answer.status, headers=answer.headers, stream=body)
        content = await read_bounded(answer, max_bytes=_MAX_ERROR_BYTES)
        exchange.problem = f"The server answered HTTP {answer.status}."
        if _SESSION in request.headers and _is_session_lost(answer.status, content):
            exchange.session_lost = True
        kind = header(answer, "content-type")
        return httpx2.Response(answer.status, headers={"content-type": kind}, content=content)


class _BoundedBody(httpx2.AsyncByteStream):
    """A body that ends early if it is too large, or its connection breaks."""

    def __init__(self, answer: httpcore2.Response, max_bytes: int, exchange: Exchange) -> None:
        self._answer = answer
        self._max_bytes = max_bytes
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = values = 0
        try:
            async for piece in pieces(self._answer):
                size += len(piece)
                values += piece.count(b"{") + piece.count(b"[")
                if size > self._max_bytes:
                    self._exchange.fail(f"The server's answer is larger than {self._max_bytes:,} bytes.")
                    return
                if values > _MAX_VALUES:
                    self._exchange.fail(f"The server's answer has more than {_MAX_VALUES:,} JSON values.")
                    return
                yield piece
        except FAILURES as error:
            self._exchange.problem = failure_text(error)

    async def aclose(self) -> None:
        await self._answer.aclose()


def _target(url: str, location: str) -> str:
    """Return where a redirect leads.

    Raises:
        McpUnavailable: Not to a URL of HTTP.
    """
    try:
        target = urljoin(url, location)
        scheme, host, _ = origin(target)
    except ValueError:
        scheme = host = ""
    if scheme not in ("http", "https") or not host or not target.isascii():
        raise McpUnavailable("The server redirects to what is no URL of HTTP.")
    return target.partition("#")[0]


def _is_session_lost(status: int, body: bytes) -> bool:
    """Return whether an error means that the session is unknown: 404 by the specification, 400 from some servers."""
    return status == 404 or (status == _ERROR and b"session" in body.lower())  # noqa: PLR2004 - HTTP's number
