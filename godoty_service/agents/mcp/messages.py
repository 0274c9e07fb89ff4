"""Reduces the messages of servers to what is used of them, before the `mcp` package validates them.

It validates each result twice, which takes some 15 µs for each content block, tool or icon, and has a task for each
request and each notification. A server could block the event loop with them for half a second. Only `client.py`
imports this module.
"""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from types import TracebackType
from typing import Any, Final, Self

from mcp.client._transport import ReadStream, TransportStreams  # exported nowhere else
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

MAX_PARTS = 500  # content blocks of a result, and tools of one page of a list
MAX_REQUESTS = 200  # of a server, such as pings, by one connection; later ones are not answered
_ALL_PROGRESS = 100  # reports of progress of one connection that all pass; later ones at most ten times a second
_BETWEEN_PROGRESS = 0.1  # seconds
_PROGRESS: Final = "notifications/progress"
_USED_NOTIFICATIONS: Final = frozenset(
    {
        _PROGRESS,
        "notifications/cancelled",
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    }
)
_USED: Final = {
    "content": ("type", "text", "data", "mimeType", "uri", "name", "resource"),
    "tools": ("name", "title", "description", "inputSchema"),
}
_USED_OF_SERVER: Final = ("name", "title", "version")
_INPUT_NEEDED: Final = "inputRequests"

Item = SessionMessage | Exception


@asynccontextmanager
async def reduced(transport: AbstractAsyncContextManager[TransportStreams]) -> AsyncIterator[TransportStreams]:
    """Yield the streams of a transport, of which the one that is read has reduced messages."""
    async with transport as (read, write):
        yield _Reduced(read), write


class _Reduced:
    """A stream of messages."""

    def __init__(self, stream: ReadStream[Item]) -> None:
        self._stream = stream
        self._requests = self._progress = 0
        self._progress_at = 0.0

    @property
    def last_context(self) -> Context | None:
        """The context in which the last message was received, which its handler inherits."""
        context: Context | None = getattr(self._stream, "last_context", None)
        return context

    async def receive(self) -> Item:
        """Return the next message that is used."""
        while not self._is_used(item := await self._stream.receive()):
            pass
        return item

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._is_used(item := await anext(self._stream)):
            pass
        return item

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, traceback)

    def _is_used(self, item: Item) -> bool:
        """Return whether a message is used; one that is used is reduced."""
        match item.message if isinstance(item, SessionMessage) else item:
            case JSONRPCResponse(result=result):
                reduce_result(result)
            case JSONRPCRequest():
                self._requests += 1
                return self._requests <= MAX_REQUESTS
            case JSONRPCNotification(method=method):
                return method in _USED_NOTIFICATIONS and (method != _PROGRESS or self._is_due())
        return True

    def _is_due(self) -> bool:
        """Count a report of progress; return whether it passes."""
        now = time.monotonic()
        if self._progress >= _ALL_PROGRESS and now - self._progress_at < _BETWEEN_PROGRESS:
            return False
        self._progress, self._progress_at = self._progress + 1, now
        return True


def reduce_result(result: dict[str, Any]) -> None:
    """Reduce a result in place: to a number of parts, each of which has only the members that are used."""
    for name, used in _USED.items():
        parts = result.get(name)
        if isinstance(parts, list):
            result[name] = [_members(each, used) for each in parts[:MAX_PARTS]]
            if len(parts) > MAX_PARTS and name == "content":
                note = f"[{len(parts) - MAX_PARTS:,} more parts of the result are left out.]"
                result[name].append({"type": "text", "text": note})
    if "serverInfo" in result:
        result["serverInfo"] = _members(result["serverInfo"], _USED_OF_SERVER)
    if isinstance(result.get(_INPUT_NEEDED), dict):  # it is refused
        result[_INPUT_NEEDED] = {}


def _members(part: Any, used: tuple[str, ...]) -> Any:
    return {name: part[name] for name in used if name in part} if isinstance(part, dict) else part
