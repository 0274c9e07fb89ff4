"""The tool lists of servers: cached by tenant and server, kept current, and bounded in memory.

A list in use is read again when the server says that it has changed, and once a minute in any case. Turns do not wait
for that: they get the list that is there, unless there is none yet. A server that fails keeps its last list; its tools
then fail when they are called.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from godoty_service.agents.mcp.connection import McpConnection
from godoty_service.agents.mcp.errors import McpFailure, McpUnavailable
from godoty_service.agents.mcp.links import ServerLinks
from godoty_service.agents.mcp.server import McpServer
from godoty_service.agents.mcp.tool_list import ToolList, make_tool_list

log = structlog.get_logger(__name__)

FRESH_SECONDS = 60.0  # until a list is read again
_FAILED_SECONDS = 10.0  # until a list that could not be read is tried again
_LEAST_SECONDS = 1.0  # between two reads that a server asks for
_IDLE_SECONDS = 300.0  # without a turn, after which a list is forgotten
_LIST_SECONDS = 25.0  # in which a list must be read
_MAX_BYTES = 32 * 1024 * 1024  # of all lists
_MAX_LISTS = 500

Key = tuple[str, str, str]
Tick = Callable[[], float]


@dataclass(slots=True)
class _Entry:
    """A server's list.

    Attributes:
        server: The server.
        connection: By which the list is read; it stays open, to hear of changes.
        tools: The last list that was read; None: none yet.
        failure: Why the last read failed; None: it did not.
        read_at: When it was last read, or tried to.
        used_at: When a turn last asked for it.
        changed: The server has said that the list changed since the last read began.
        reading: The read in progress.
    """

    server: McpServer
    connection: McpConnection
    tools: ToolList | None = None
    failure: McpFailure | None = None
    read_at: float = float("-inf")
    used_at: float = 0.0
    changed: bool = False
    reading: "asyncio.Task[None] | None" = None

    @property
    def size(self) -> int:
        """Bytes that the list takes, approximately."""
        return self.tools.size if self.tools is not None else 0


class ToolLists:
    """The lists by version of a server. Use it from one event loop."""

    def __init__(self, links: ServerLinks, *, max_bytes: int, tick: Tick = time.monotonic) -> None:
        """Create it without a list.

        Args:
            links: The links to the servers.
            max_bytes: Bytes of one answer.
            tick: Returns the seconds of a monotonic clock.
        """
        self._links = links
        self._max_bytes = max_bytes
        self._tick = tick
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, server: McpServer) -> ToolList:
        """Return a server's list, read now if there is none.

        Raises:
            McpFailure: It cannot be read.
        """
        entry = self._entry(server)
        if entry.tools is None:
            if entry.reading is not None or self._is_due(entry):
                await asyncio.shield(self._read(entry))
            if entry.tools is None:
                failure = entry.failure or McpFailure("The read was cancelled.")
                raise McpUnavailable(failure.text, said=failure.said)
        elif self._is_due(entry):
            self._read(entry)
        return entry.tools

    def put(self, server: McpServer, tools: ToolList) -> None:
        """Cache a list that was read otherwise."""
        self._store(self._entry(server), tools)

    async def maintain(self) -> None:
        """Read the lists in use that are due, and forget those that are not in use."""
        now = self._tick()
        for key, entry in list(self._entries.items()):
            if now - entry.used_at > _IDLE_SECONDS:
                self._forget(key)
            elif self._is_due(entry):
                self._read(entry)

    def close(self) -> None:
        """Close the connections, and forget all lists."""
        for key in list(self._entries):
            self._forget(key)

    def _entry(self, server: McpServer) -> _Entry:
        entry = self._entries.get(server.key)
        if entry is None:
            self._forget_versions(server)
            connection = McpConnection(
                partial(self._links.get, server),
                max_bytes=self._max_bytes,
                on_list_changed=lambda: self._on_changed(server.key),
            )
            entry = self._entries[server.key] = _Entry(server=server, connection=connection)
        entry.used_at = self._tick()
        self._entries.move_to_end(server.key)
        return entry

    def _is_due(self, entry: _Entry) -> bool:
        if entry.reading is not None:
            return False
        return self._tick() - entry.read_at >= (_FAILED_SECONDS if entry.failure is not None else FRESH_SECONDS)

    def _on_changed(self, key: Key) -> None:
        entry = self._entries.get(key)
        if entry is not None and not entry.changed:
            entry.changed = True
            self._schedule(entry)

    def _schedule(self, entry: _Entry) -> None:
        """Read a changed list soon, but not more often than once a second."""
        if entry.reading is None:  # else it is scheduled afterwards
            wait = max(0.0, entry.read_at + _LEAST_SECONDS - self._tick())
            asyncio.get_running_loop().call_later(wait, self._read_changed, entry)

    def _read_changed(self, entry: _Entry) -> None:
        if entry.changed and self._entries.get(entry.server.key) is entry:
            self._read(entry)

    def _read(self, entry: _Entry) -> "asyncio.Task[None]":
        if entry.reading is None:
            entry.reading = asyncio.get_running_loop().create_task(self._read_entry(entry))
        return entry.reading

    async def _read_entry(self, entry: _Entry) -> None:
        entry.changed = False
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                tools = await make_tool_list(entry.server, await entry.connection.list_tools())
        except McpFailure as error:
            self._fail(entry, error)
        except TimeoutError:
            self._fail(entry, McpFailure(f"The server did not list its tools within {_LIST_SECONDS:g} s."))
        except Exception:
            log.exception("mcp_list_fault")
            self._fail(entry, McpFailure("The server's list of tools cannot be read."))
        else:
            self._store(entry, tools)
        finally:
            entry.reading = None
            if entry.changed:
                self._schedule(entry)

    def _fail(self, entry: _Entry, failure: McpFailure) -> None:
        entry.failure, entry.read_at = failure, self._tick()
        server = entry.server
        log.warning("mcp_tools_not_listed", tenant_id=server.tenant_id, mcp_server=server.name, problem=str(failure))

    def _store(self, entry: _Entry, tools: ToolList) -> None:
        entry.tools, entry.failure, entry.read_at = tools, None, self._tick()
        self._links.lists_first(entry.server, needed=tools.lists_first)
        total = sum(each.size for each in self._entries.values())
        while len(self._entries) > 1 and (len(self._entries) > _MAX_LISTS or total > _MAX_BYTES):
            key, oldest = next(iter(self._entries.items()))
            total -= oldest.size
            self._forget(key)

    def _forget_versions(self, server: McpServer) -> None:
        """Forget the lists of a server as it was before it was changed."""
        for key in [each for each in self._entries if each[:2] == server.key[:2]]:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        self._entries.pop(key).connection.close()
