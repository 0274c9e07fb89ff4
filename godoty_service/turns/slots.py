"""Who is next in a session, on this server: first come, first served, without asking the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from godoty_service.errors import SessionBusy

_RETRY_AFTER = 1.0  # seconds


class SessionSlots:
    """One slot a session."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._users: dict[tuple[str, str], int] = {}

    @asynccontextmanager
    async def slot(self, tenant_id: str, session_id: str, *, wait: bool) -> AsyncIterator[None]:
        """Hold a session's slot; `wait` queues for it.

        Raises:
            SessionBusy: It is taken, and the caller does not wait.
        """
        key = (tenant_id, session_id)
        lock = self._locks.setdefault(key, asyncio.Lock())
        if lock.locked() and not wait:
            raise SessionBusy("Another turn of the session is running.", retry_after=_RETRY_AFTER)
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with lock:  # asyncio's lock is fair
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
