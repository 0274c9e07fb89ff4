"""This server's leases on sessions, and the one way in which they are released: by holder, until acknowledged.

A holder is a turn or a deletion. A lease of this server whose holder does not run is released, whichever way it came
to be left: an acquisition or a release whose answer was lost, a holder that failed, a database out of reach.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from godoty_service.errors import GodotyError, StorageError
from godoty_service.sessions.session import Claim, Session
from godoty_service.sessions.store import Sessions

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Holder:
    """A turn or a deletion.

    Attributes:
        running: It has not ended.
        begun: It may have written messages.
        unsure: The database may have given it a lease, and the answer was lost.
        unfolded: It has written no message, but an entry that the session's fold does not know.
    """

    running: bool = True
    begun: bool = False
    unsure: bool = False
    unfolded: bool = False


class Leases:
    """The leases of this server's turns and deletions."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._holders: dict[str, _Holder] = {}
        self._wanted = asyncio.Event()

    @contextmanager
    def holder(self, holder_id: str) -> Iterator[None]:
        """Register a turn or a deletion while it runs. A lease that it has afterwards is released by `run`."""
        holder = self._holders[holder_id] = _Holder()
        try:
            yield
        finally:
            holder.running = False
            if holder_id in self._holders and (holder.begun or holder.unsure):
                self._wanted.set()
            if not holder.begun and not holder.unfolded:
                self._holders.pop(holder_id, None)

    async def acquire(self, tenant_id: str, session_id: str, *, turn_id: str, **wanted: Any) -> Claim:
        """Claim a session for a registered turn, as `Sessions.claim` does.

        Raises:
            StorageError: The turn may have the lease all the same; it is released when the turn ends.
        """
        try:
            return await self._sessions.claim(tenant_id, session_id, turn_id=turn_id, **wanted)
        except StorageError:
            self._holders[turn_id].unsure = True
            raise

    def begin(self, turn_id: str) -> None:
        """Record that a turn writes messages from now on: whoever has the session next closes its history."""
        self._holders[turn_id].begun = True

    def undo_begin(self, turn_id: str, *, unfolded: bool) -> None:
        """Record that a turn has written no message: its session is left as it was before.

        Args:
            turn_id: The turn.
            unfolded: It may have written an entry, which readers look for once the lease is released.
        """
        self._holders[turn_id].begun = False
        self._holders[turn_id].unfolded = unfolded

    def released(self, turn_id: str) -> None:
        """Record that the database has acknowledged the end of a turn's lease."""
        self._holders.pop(turn_id, None)

    async def release(self, session: Session) -> None:
        """Release the lease that a session was claimed with; where the database fails, `run` tries again."""
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

    async def run(self, interval: float) -> None:
        """Release what no running holder has, as soon as one ends in doubt and every `interval` seconds."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.reap()
            except GodotyError as error:
                log.warning("leases_not_reaped", error=str(error))

    async def reap(self) -> int:
        """Release this server's leases whose holders do not run; return how many there were.

        Raises:
            StorageError: Some are left for the next time.
        """
        ended = {each for each, holder in self._holders.items() if not holder.running}
        running = [each for each in self._holders if each not in ended]
        released = 0
        for session in await self._sessions.held(but=running):
            turn_id = session.lease.turn_id if session.lease is not None else ""
            ended.discard(turn_id)
            holder = self._holders.get(turn_id)
            if holder is not None and holder.running:  # it has begun since the query was sent
                continue
            await self._release(session, holder)
            log.warning("lease_reaped", tenant_id=session.tenant_id, session_id=session.session_id, turn_id=turn_id)
            self._holders.pop(turn_id, None)
            released += 1
        for turn_id in ended:  # their sessions are released, or somebody else's
            self._holders.pop(turn_id, None)
        return released

    async def _release(self, session: Session, holder: _Holder | None) -> None:
        holder = holder or _Holder()
        await self._sessions.release(session, begun=holder.begun, unfolded=holder.unfolded)
