"""What the server knows of its calls, and what tests control."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mcp.server.subscriptions import InMemorySubscriptionBus


@dataclass
class McpState:
    """The state of a server.

    Attributes:
        calls: The number of calls by tool.
        cancelled: The number of calls that the client cancelled, by tool.
        requests: The newest requests: path, method and headers.
        learned: The names of tools that were added while it runs.
        records: The number of tools `record_000`, `record_001` …, with schemas as large as those of real servers.
        holds: Events by name, for which tools wait.
        changes: Notifies clients that the list of tools has changed.
        sessions: The sessions of clients of older versions of the protocol, to notify them as well.
    """

    calls: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    learned: list[str] = field(default_factory=list)
    records: int = 0
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    changes: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    sessions: set[Any] = field(default_factory=set)

    def hold(self, name: str) -> asyncio.Event:
        """Return the event that a hold waits for."""
        return self.holds.setdefault(name, asyncio.Event())

    def release(self, name: str) -> None:
        """Let the tools go on that wait for a hold, now and later."""
        self.hold(name).set()
