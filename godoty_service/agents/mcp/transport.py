"""The HTTP transport of one MCP client: adds the server's credentials, follows redirects, and bounds answers.

The `mcp` package closes a client, with all its calls, on an error of its transport. So a failure becomes an answer with
status 502, and a body that breaks or is too large ends early; what was wrong is noted for the call that requested it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Final

import httpcore2
import httpx2

from godoty_service.agents.mcp.errors import McpFailure, McpUnavailable
from godoty_service.agents.mcp.links import ServerLink
from godoty_service.agents.mcp.values import ValueCount
from godoty_service.agents.outbound.pool import (
    FAILURES,
    RequestFailed,
    failure_text,
    header,
    pieces,
    read_bounded,
)
from godoty_service.agents.outbound.urls import REDIRECTS, host_header, origin, redirect_target
from godoty_service.aio.backoff import Backoff

MAX_REDIRECTS = 3
_MAX_RESUMPTIONS = 2  # of answers that broke off, by one client
_MAX_ERROR_BYTES = 64 * 1024
_MAX_VALUES = 50_000  # of JSON in one answer: they are decoded without a pause, in some 25 ms
_MAX_LINES = 10_000  # of one event stream: each message takes two or more
_FEW_LINES = 32  # of a piece that is decoded at once; a larger number is decoded in smaller pieces
_PIECE = 16 * 1024  # bytes of those
_LARGE = 256 * 1024  # bytes from which an answer is one of the large ones, which are read a few at a time
_TINY = 1024  # bytes of a piece that costs more than its bytes show
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before a client listens again
_LASTED = 10.0  # seconds after which the end of a stream is no fault of its server
_SHORT = 5.0  # seconds for a request that has no answer, such as a notification
_NOT_ALLOWED, _BAD_GATEWAY, _UNAUTHORIZED, _ERROR = 405, 502, 401, 400
_WITH_BODY: Final = frozenset({307, 308})
_SESSION = "mcp-session-id"
_RESUME = "last-event-id"
_EVENT_STREAM = b"text/event-stream"
_OF_THE_SERVER: Final = frozenset({_SESSION.encode(), b"cookie"})  # headers that another host does not get


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
        self._pauses = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        self._listened_at: float | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; a failure is an answer with status 502."""
        exchange = EXCHANGE.get() or Exchange()
        if request.method == "GET":
            if not self._may_get(request, exchange):
                return httpx2.Response(_NOT_ALLOWED)
            await self._pause()
        try:
            answer = await self._send(request)
            return await self._response(request, answer, exchange)
        except (McpFailure, RequestFailed) as failure:
            exchange.problem = str(failure)
            return httpx2.Response(_BAD_GATEWAY)

    def _may_get(self, request: httpx2.Request, exchange: Exchange) -> bool:
        """Return whether a GET is sent: to listen, or to resume an answer that broke off."""
        if self._listens or _RESUME not in request.headers:
            return self._listens
        self._resumptions += 1
        return self._resumptions <= _MAX_RESUMPTIONS and not exchange.hopeless.done()

    async def _pause(self) -> None:
        """Wait before a further GET of a client that listens: its server may end each one at once, without end."""
        now = time.monotonic()
        if self._listened_at is not None:
            await asyncio.sleep(self._pauses.next(changed=now - self._listened_at > _LASTED))
        if self._listens:
            self._listened_at = time.monotonic()

    async def _send(self, request: httpx2.Request) -> httpcore2.Response:
        """Send a request, and follow its redirects.

        Raises:
            McpUnavailable: No answer came, or it redirects too often or to where the request cannot go.
        """
        method, url = request.method, str(request.url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._send_once(request, url)
            location = header(answer, "location")
            if answer.status not in REDIRECTS or not location:
                return answer
            await answer.aclose()
            if method != "GET" and answer.status not in _WITH_BODY:
                raise McpUnavailable(f"The server redirects with HTTP {answer.status}; only 307 and 308 keep a body.")
            url = redirect_target(url, location)
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
        dropped = {b"host", b"accept-encoding", b"user-agent", *(() if own else _OF_THE_SERVER)}
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
        # Without parameters: all is UTF-8, and httpx2 would take any codec of Python that the server names.
        kind = header(answer, "content-type").partition(";")[0].strip().lower().encode("latin-1")
        if answer.status < _ERROR:
            lines = _MAX_LINES if kind == _EVENT_STREAM else None
            slots = None if self._listens else self._link.large_answers
            body = _BoundedBody(answer, self._max_bytes, exchange, lines=lines, slots=slots)
            others = [each for each in answer.headers if each[0].lower() != b"content-type"]
            return httpx2.Response(answer.status, headers=[*others, (b"content-type", kind)], stream=body)
        content = await read_bounded(answer, max_bytes=_MAX_ERROR_BYTES)
        exchange.problem = f"The server answered HTTP {answer.status}."
        if _SESSION in request.headers and _is_session_lost(answer.status, content):
            exchange.session_lost = True
        return httpx2.Response(answer.status, headers=[(b"content-type", kind)], content=content)


class _BoundedBody(httpx2.AsyncByteStream):
    """A body that ends early if it is too large, or its connection breaks."""

    def __init__(
        self,
        answer: httpcore2.Response,
        max_bytes: int,
        exchange: Exchange,
        *,
        lines: int | None,
        slots: asyncio.Semaphore | None,
    ) -> None:
        """Create it.

        Args:
            answer: The answer.
            max_bytes: The most bytes.
            exchange: Gets what is wrong.
            lines: The most lines; None: any number.
            slots: Bounds the large answers that are read at once; None: it takes part in no such bound.
        """
        self._answer = answer
        self._max_bytes = max_bytes
        self._exchange = exchange
        self._max_lines = lines
        self._slots = slots
        self._holds_slot = False
        self._bytes = self._lines = 0
        self._values = ValueCount()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        work = 0  # lines and tiny pieces since the last pause; a large text is read without one, to be done with it
        try:
            async for piece in pieces(self._answer):
                if problem := self._excess(piece):
                    self._exchange.fail(problem)
                    return
                if self._bytes > _LARGE and self._slots is not None and not self._holds_slot:
                    await self._slots.acquire()
                    self._holds_slot = True
                many = piece.count(b"\n") > _FEW_LINES
                size = _PIECE if many else len(piece)
                for start in range(0, len(piece), size):
                    part = piece[start : start + size]
                    yield part
                    work += _FEW_LINES if many else len(part) <= _TINY
                    if work >= _FEW_LINES:
                        work = 0
                        await asyncio.sleep(0)  # what was decoded is handled without a pause of its own
        except FAILURES as error:
            self._exchange.problem = failure_text(error)
        finally:
            self._release()

    def _release(self) -> None:
        if self._slots is not None and self._holds_slot:
            self._holds_slot = False
            self._slots.release()

    def _excess(self, piece: bytes) -> str:
        """Count a further piece; return what the body has too much of; empty: nothing."""
        self._bytes += len(piece)
        self._values.add(piece)
        self._lines += 0 if self._max_lines is None else piece.count(b"\n") + piece.count(b"\r")
        if self._bytes > self._max_bytes:
            return f"The server's answer is larger than {self._max_bytes:,} bytes."
        if self._values.values > _MAX_VALUES:
            return f"The server's answer has more than {_MAX_VALUES:,} JSON values."
        if self._max_lines is not None and self._lines > self._max_lines:
            return f"The server's answer has more than {self._max_lines:,} lines."
        return ""

    async def aclose(self) -> None:
        self._release()
        await self._answer.aclose()


def _is_session_lost(status: int, body: bytes) -> bool:
    """Return whether an error means that the session is unknown: 404 by the specification, 400 from some servers."""
    return status == 404 or (status == _ERROR and b"session" in body.lower())  # noqa: PLR2004 - HTTP's number
