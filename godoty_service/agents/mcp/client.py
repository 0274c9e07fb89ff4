"""A client of an MCP server by the `mcp` package, which this module alone imports: `connection.py` says why.

The `mcp` package cancels the task in which a client was opened when its connection fails. So each client has a task of
its own, and each call has one, too: the caller is neither cancelled by the client nor held up by it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar

import httpx2
import structlog
from mcp import MCPError
from mcp.client import Client, ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp_types import (
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    PaginatedRequestParams,
    ServerNotification,
    Tool,
    ToolListChangedNotification,
)
from pydantic import TypeAdapter, ValidationError

from godoty_service.agents.mcp.errors import McpFailure, McpUnavailable, cut
from godoty_service.agents.mcp.links import CLOSE_SECONDS, Progress, Protocol, ServerLink
from godoty_service.agents.mcp.transport import EXCHANGE, Exchange, McpTransport

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

OPEN_SECONDS = 15.0  # in which a connection must be opened: the package waits 10 for an answer of the newest protocol
MAX_PAGES = 20  # of a list of tools
_READ_SECONDS = 610.0  # longer than any call may take: the silence of an answer is the caller's to bound
_CLIENT: Final = Implementation(name="godoty", version="1")
_CALL_RESULT: Final[TypeAdapter[CallToolResult | InputRequiredResult]] = TypeAdapter(
    CallToolResult | InputRequiredResult
)
_NOT_UNDERSTOOD: Final = frozenset({400, 404, 405})
# What the `mcp` package says of a failure that the transport knows better.
_STAND_INS: Final = frozenset(
    {
        "Server returned an error response",
        "Session terminated",
        "Not Found",
        "Connection closed",
        "SSE stream ended without a response",
        "SSE stream ended and reconnection attempts were exhausted",
    }
)


class OpenClient:
    """A client, and the task that opens and closes it."""

    def __init__(self, link: ServerLink, *, max_bytes: int, on_list_changed: Callable[[], None] | None) -> None:
        self._link = link
        self._max_bytes = max_bytes
        self._on_list_changed = on_list_changed
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._opening = Exchange()
        self.running: set[asyncio.Task[Any]] = set()
        self.ready: asyncio.Future[ClientSession] = self._loop.create_future()
        self.ready.add_done_callback(_retrieve)
        context = Context()
        context.run(EXCHANGE.set, self._opening)
        self._task = self._loop.create_task(self._run(), context=context)
        self._deadline = self._loop.call_later(OPEN_SECONDS, self._give_up)
        link.tasks.add(self._task)
        self._task.add_done_callback(link.tasks.discard)
        self._task.add_done_callback(_retrieve)
        link.enter()

    @property
    def ended(self) -> bool:
        """Whether the client is closed, or about to be."""
        return self._stop.is_set() or self._task.done()

    def close(self) -> None:
        """Close the client soon, without waiting for it."""
        if not self._stop.is_set():
            self._stop.set()
            self._deadline.cancel()
            self._deadline = self._loop.call_later(CLOSE_SECONDS, self._task.cancel)

    def _give_up(self) -> None:
        self._opening.problem = self._opening.problem or f"The server did not answer within {OPEN_SECONDS:g} s."
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001 - the package raises groups of many kinds
            if not self.ready.done():
                text = cut(self._link.mask(_opening_text(self._opening, error)))
                self.ready.set_exception(McpUnavailable(text, answered=bool(self._opening.status)))
        finally:
            self._stop.set()
            self._deadline.cancel()
            if not self.ready.done():
                self.ready.set_exception(McpUnavailable(self._opening.problem or "The connection was closed."))
            self._link.leave()

    async def _serve(self) -> None:
        """Open the client, and keep it open until it is to be closed and its calls have ended."""
        listens = self._on_list_changed is not None
        transport = McpTransport(self._link, listens=listens, max_bytes=self._max_bytes, read_timeout=_READ_SECONDS)
        protocol = self._link.protocol or Protocol(mode="auto")
        async with (
            httpx2.AsyncClient(transport=transport, trust_env=False) as http,
            Client(
                streamable_http_client(self._link.server.url, http_client=http),
                mode=protocol.mode,
                prior_discover=protocol.discovered,
                message_handler=self._on_message if listens else None,
                client_info=_CLIENT,
                cache=None,
            ) as client,
        ):
            self._learn(client)
            if self._link.lists_first:
                await list_tools(client.session)
            self._deadline.cancel()
            self.ready.set_result(client.session)
            await self._keep_open(client)
            while self.running:  # they notify the server that they were cancelled
                await asyncio.wait(self.running)

    def _learn(self, client: Client) -> None:
        discovered = client.session.discover_result
        mode = "legacy" if discovered is None else client.protocol_version
        self._link.protocol = Protocol(mode=mode, discovered=discovered)

    async def _keep_open(self, client: Client) -> None:
        """Wait until the client is to be closed; meanwhile listen for changes of the list, if that is wanted."""
        tools = client.server_capabilities.tools
        if self._on_list_changed is not None and client.session.discover_result and tools and tools.list_changed:
            try:
                await self._listen(client, self._on_list_changed)
            except (MCPError, SubscriptionLost) as error:  # the list is read again when it has expired
                log.debug("mcp_subscription_lost", error_type=type(error).__name__)
        await self._stop.wait()

    async def _listen(self, client: Client, on_list_changed: Callable[[], None]) -> None:
        """Report changes of the list until the client is to be closed, or the server ends the subscription."""
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            async with client.listen(tools_list_changed=True) as changes:
                while True:
                    change = asyncio.ensure_future(anext(changes, None))
                    await asyncio.wait({stopped, change}, return_when=asyncio.FIRST_COMPLETED)
                    if not change.done():
                        change.cancel()
                    if stopped.done() or change.result() is None:
                        return
                    on_list_changed()
        finally:
            stopped.cancel()

    async def _on_message(self, message: Exception | ServerNotification) -> None:
        if isinstance(message, ToolListChangedNotification) and self._on_list_changed is not None:
            self._on_list_changed()

    def start(self, call: Coroutine[Any, Any, Result], exchange: Exchange) -> "asyncio.Task[Result]":
        """Start a request in a task of its own, which knows nothing of the caller's span and its baggage."""
        context = Context()
        context.run(EXCHANGE.set, exchange)
        task = self._loop.create_task(call, context=context)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        task.add_done_callback(_retrieve)
        return task


async def outcome(task: "asyncio.Task[Result]", exchange: Exchange) -> Result:
    """Wait for a request; cancel it if the wait is cancelled or the request cannot succeed.

    Raises:
        McpFailure: It failed.
    """
    try:
        outcomes: set[asyncio.Future[Any]] = {task, exchange.hopeless}
        await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise McpFailure(exchange.problem)
    finally:
        task.cancel()  # without effect on one that is done
    if task.cancelled():
        raise McpFailure(exchange.problem or "The connection to the server was closed.")
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, McpFailure):
        raise error
    if isinstance(error, MCPError) and _is_other_version(exchange, error):
        exchange.session_lost = True
    raise McpFailure(_failure_text(exchange, error)) from error


def _is_other_version(exchange: Exchange, error: MCPError) -> bool:
    """Return whether an error means that the server speaks another version of the protocol, so that nothing ran."""
    if error.error.code == UNSUPPORTED_PROTOCOL_VERSION:
        return True
    return exchange.status in _NOT_UNDERSTOOD and error.error.message in _STAND_INS


async def call_tool(
    session: ClientSession, tool: str, arguments: dict[str, Any], progress: Progress
) -> CallToolResult | InputRequiredResult:
    """Call a tool. Not by `session.call_tool`: that lists the tools first, and validates with remote schemas.

    Args:
        session: The session.
        tool: The server's name of the tool.
        arguments: The input.
        progress: Called with progress, total and message, as the server reports them.
    """
    request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
    return await session.send_request(request, _CALL_RESULT, progress_callback=progress)


async def list_tools(session: ClientSession) -> list[Tool]:
    """Return the tools of all pages.

    Raises:
        McpFailure: There are too many pages.
    """
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        tools += page.tools
        cursor = page.next_cursor
        if not cursor:
            return tools
    raise McpFailure(f"The server's list of tools has more than {MAX_PAGES} pages.")


def _failure_text(exchange: Exchange, error: BaseException) -> str:
    """Return why a request failed: what the transport noted, and what the server said, as long as that is."""
    if isinstance(error, ValidationError):
        return exchange.problem or "The server's answer is not what the protocol prescribes."
    if not isinstance(error, MCPError):
        log.warning("mcp_request_failed", error_type=type(error).__name__)
        return exchange.problem or "The request failed."
    said = error.error.message
    if said.startswith(("Failed to parse", "Unexpected content type")):
        return exchange.problem or "The server's answer is not what the protocol prescribes."
    if said in _STAND_INS or not said:
        return exchange.problem or "The connection to the server broke before it answered."
    return f"{exchange.problem} {said}".strip()


def _opening_text(exchange: Exchange, error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, McpFailure):
        return str(error)
    if isinstance(error, (MCPError, ValidationError)):
        return _failure_text(exchange, error)
    return exchange.problem or "The server does not speak the protocol."


def _retrieve(future: "asyncio.Future[Any]") -> None:
    """Retrieve an exception that has no reader any more: asyncio would log it."""
    if not future.cancelled():
        future.exception()
