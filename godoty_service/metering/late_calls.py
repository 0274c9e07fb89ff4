"""Resolves calls that another server closed as unresolved, by the data that only their own server has.

A server that could not reach the database has the provider's id or the usage of a call in memory only. If another
server closed the call meanwhile, its entry is final: a cost found by the id or the usage becomes a resolution.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.entries import ModelCall

log = structlog.get_logger(__name__)

_BATCH = 16


@dataclass(slots=True)
class _LateCall:
    """A call that is unresolved in the ledger.

    Attributes:
        call: The call as its own server knows it.
        since: When it was found to be unresolved, by the database's time.
        due: The time of the next try.
        tries: The number of tries so far.
    """

    call: ModelCall
    since: datetime
    due: datetime
    tries: int = 0


class LateCalls:
    """The late calls of this server, in memory only: the entry of a final call never changes."""

    def __init__(
        self,
        *,
        find: Callable[[ModelCall, timedelta], Awaitable[ModelCall | None]],
        resolve: Callable[[ModelCall], Awaitable[None]],
        wait: Callable[[int], timedelta],
        longest: timedelta,
    ) -> None:
        """Build it.

        Args:
            find: Returns a call in its final state after a wait; None: wait longer for its record.
            resolve: Resolves a call.
            wait: Returns how long to wait after a number of tries.
            longest: How long to retry a call.
        """
        self._find = find
        self._resolve = resolve
        self._wait = wait
        self._longest = longest
        self._calls: dict[str, _LateCall] = {}

    @property
    def waiting(self) -> int:
        """The number of calls."""
        return len(self._calls)

    def add(self, call: ModelCall, *, now: datetime) -> None:
        """Add a call that is due at once."""
        self._calls.setdefault(call.call_id, _LateCall(call=call, since=now, due=now))

    async def resolve_due(self, now: datetime) -> None:
        """Try the calls that are due.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        due = [each for each in self._calls.values() if each.due <= now]
        for start in range(0, len(due), _BATCH):
            await asyncio.gather(*(self._try(late, now) for late in due[start : start + _BATCH]))

    def give_up(self) -> None:
        """Log and remove the remaining calls, for an operator to resolve."""
        for late in list(self._calls.values()):
            self._remove(late)

    async def _try(self, late: _LateCall, now: datetime) -> None:
        waited = now - late.since
        late.tries += 1
        late.due = now + self._wait(late.tries)
        found: ModelCall | None = None
        try:
            found = await self._find(late.call, waited)
            if found is not None and not found.counts.unresolved:
                await self._resolve(found)
                del self._calls[late.call.call_id]
                return
        except StorageUnavailable:
            raise
        except Exception:
            log.exception("late_call_fault", call_id=late.call.call_id)
            found = None
        if found is not None or waited > self._longest:
            self._remove(late)

    def _remove(self, late: _LateCall) -> None:
        """Remove a call whose cost cannot be found, and log its id at the provider."""
        del self._calls[late.call.call_id]
        log.error("call_not_resolved", call_id=late.call.call_id, generation_id=late.call.generation_id)
