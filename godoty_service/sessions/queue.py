"""The order of turns in each session on this server."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from godoty_service.errors import SessionBusy

_BUSY_RETRY = 1.0  # seconds


class SessionQueue:
    """The order of turns in each session on this server: first come, first served, without a database operation."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], deque[asyncio.Future[None]]] = {}

    @contextmanager
    def join(self, tenant_id: str, session_id: str, *, wait: bool) -> Iterator[Awaitable[None]]:
        """Enter a session's line; the awaitable is done once the turn is first.

        Raises:
            SessionBusy: The line is not empty, and the caller does not wait. Raised before anything is awaited.
        """
        key = (tenant_id, session_id)
        line = self._lines.setdefault(key, deque())
        if line and not wait:
            raise SessionBusy("Another turn of the session is running.", retry_after=_BUSY_RETRY)
        position: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(position)
        _admit_first(line)
        try:
            yield position
        finally:
            line.remove(position)
            _admit_first(line)
            if not line:
                del self._lines[key]


def _admit_first(line: "deque[asyncio.Future[None]]") -> None:
    if line and not line[0].done():  # a cancelled one is about to be removed
        line[0].set_result(None)
