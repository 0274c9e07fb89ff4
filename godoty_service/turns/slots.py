"""Order of turns in a session on this server: first come, first served, without asking the database."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from godoty_service.errors import SessionBusy

_RETRY_AFTER = 1.0  # seconds


class SessionSlots:
    """One slot a session."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], deque[asyncio.Future[None]]] = {}

    @contextmanager
    def place(self, tenant_id: str, session_id: str, *, wait: bool) -> Iterator[Awaitable[None]]:
        """Enter the line for a session's slot; what is returned is done once the slot is held.

        Raises:
            SessionBusy: The slot is held or waited for, and the caller does not wait. Raised at once.
        """
        key = (tenant_id, session_id)
        line = self._lines.setdefault(key, deque())
        if line and not wait:
            raise SessionBusy("Another turn of the session is running.", retry_after=_RETRY_AFTER)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        _admit_first(line)
        try:
            yield place
        finally:
            line.remove(place)
            _admit_first(line)
            if not line:
                del self._lines[key]


def _admit_first(line: "deque[asyncio.Future[None]]") -> None:
    if line and not line[0].done():  # a cancelled one is on its way out
        line[0].set_result(None)
