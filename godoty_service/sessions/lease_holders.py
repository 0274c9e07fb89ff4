"""The holders of this server's leases on sessions: turns and deletions.

The lease protocol (acquisition, fence, takeover) is in `sessions/store.py`. Here a lease of this server whose holder
does not run is released until the database acknowledges it, for any cause: the answer to an acquisition or a release
was lost, the holder failed, or the database was unreachable.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.errors import GodotyError, StorageError
from godoty_service.sessions.session import Claim, Session
from godoty_service.sessions.store import SessionStore

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Holder:
    """A turn or a deletion.

    Attributes:
        running: It has not ended.
        begun: It may have written messages.
        unsure: It may have a lease although the answer to the acquisition or release was lost.
        totals_stale: It has written no message, but a ledger entry that the session's totals do not include.
    """

    running: bool = True
    begun: bool = False
    unsure: bool = False
    totals_stale: bool = False


class LeaseHolders:
    """Registers this server's turns and deletions, and acquires and releases their leases."""

    def __init__(self, sessions: SessionStore) -> None:
        self._sessions = sessions
        self._holders: dict[str, _Holder] = {}
        self._reap_requested = asyncio.Event()

    @contextmanager
    def holder(self, holder_id: str) -> Iterator[None]:
        """Register a turn or a deletion while it runs. `run` releases a lease that it has afterwards."""
        holder = self._holders[holder_id] = _Holder()
        try:
            yield
        finally:
            holder.running = False
            if holder_id in self._holders and (holder.begun or holder.unsure):
                self._reap_requested.set()
            if not holder.begun and not holder.totals_stale:
                self._holders.pop(holder_id, None)

    async def acquire(self, tenant_id: str, session_id: str, *, turn_id: str, **wanted: Any) -> Claim:
        """Acquire a session for a registered turn, as `SessionStore.acquire` does.

        Raises:
            StorageError: The turn may have the lease nevertheless; it is released when the turn ends.
        """
        try:
            return await self._sessions.acquire(tenant_id, session_id, turn_id=turn_id, **wanted)
        except StorageError:
            self._holders[turn_id].unsure = True
            raise

    def begin(self, turn_id: str) -> None:
        """Record that a turn may write messages from now on: if it dies, the next turn completes the history."""
        self._holders[turn_id].begun = True

    def undo_begin(self, turn_id: str, *, totals_stale: bool) -> None:
        """Record that a turn has written no message: the release restores the session as it was before.

        Args:
            turn_id: The turn.
            totals_stale: It may have written a ledger entry, which readers read once the lease is released.
        """
        self._holders[turn_id].begun = False
        self._holders[turn_id].totals_stale = totals_stale

    def released(self, turn_id: str) -> None:
        """Record that the database has acknowledged the end of a turn's lease."""
        self._holders.pop(turn_id, None)

    async def release(self, session: Session) -> None:
        """Release the lease that a session was acquired with; `run` retries it if the database fails."""
        turn_id = session.lease.turn_id if session.lease is not None else ""
        holder = self._holders.get(turn_id)
        try:
            await self._release(session, holder)
        except GodotyError as error:
            log.warning("lease_not_released", turn_id=turn_id, error=str(error))
            if holder is not None:
                holder.unsure = True
        else:
            self.released(turn_id)

    async def undo(self, session: Session) -> None:
        """Release the lease of a turn that continues without it.

        Raises:
            StorageError: The turn may have the lease nevertheless; it is released when the turn ends.
        """
        try:
            await self._sessions.release(session, begun=False)
        except StorageError:
            if session.lease is not None and (holder := self._holders.get(session.lease.turn_id)) is not None:
                holder.unsure = True
            raise

    async def run(self, interval: float) -> None:
        """Release leases without a running holder: when a holder ends with a lease, and every `interval` seconds."""
        await run_every(interval, self.reap, failure="leases_not_reaped", wake=self._reap_requested)

    async def reap(self) -> int:
        """Release this server's leases whose holders do not run; return their number.

        Raises:
            StorageError: Some remain, and are retried at the next call.
        """
        ended = {each for each, holder in self._holders.items() if not holder.running}
        running = [each for each in self._holders if each not in ended]
        released = 0
        for session in await self._sessions.leased(excluding=running):
            turn_id = session.lease.turn_id if session.lease is not None else ""
            ended.discard(turn_id)
            holder = self._holders.get(turn_id)
            if holder is not None and holder.running:  # it was registered after the query was sent
                continue
            await self._release(session, holder)
            log.warning("lease_reaped", tenant_id=session.tenant_id, session_id=session.session_id, turn_id=turn_id)
            self._holders.pop(turn_id, None)
            released += 1
        for turn_id in ended:  # their sessions have no lease, or another holder's
            self._holders.pop(turn_id, None)
        return released

    async def _release(self, session: Session, holder: _Holder | None) -> None:
        holder = holder or _Holder()
        await self._sessions.release(session, begun=holder.begun, totals_stale=holder.totals_stale)
