"""Makes sessions from messages of elsewhere, so that a session is complete or not there.

What a dead server left is deleted once its lease has expired (`sessions/incomplete.py`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.attachments.attachments import to_its_end
from godoty_service.attachments.store import AttachmentStore
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import DuplicateKey, GodotyError, SessionLost
from godoty_service.ids import new_id
from godoty_service.session_copies.errors import SessionExists
from godoty_service.sessions.incomplete import Contents, IncompleteSessions, NewSession
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.lists import SessionLists
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session
from godoty_service.turns.session_deletion import SessionDeletions

log = structlog.get_logger(__name__)

MAX_MESSAGES: Final = 100_000  # of a fork or an import


class SessionCopies:
    """Makes sessions, and deletes those that are not completed."""

    def __init__(
        self,
        *,
        incomplete: IncompleteSessions,
        leases: LeaseHolders,
        deletions: SessionDeletions,
        replicas: ReplicaHeartbeats,
        lists: SessionLists,
        messages: MessageStore,
        attachments: AttachmentStore,
    ) -> None:
        """Create it.

        Args:
            incomplete: The sessions that are being made.
            leases: This server's leases.
            deletions: Deletes sessions with their messages.
            replicas: The servers that are alive.
            lists: Knows which sessions exist.
            messages: The sessions' messages.
            attachments: What messages name.
        """
        self._incomplete = incomplete
        self._leases = leases
        self._deletions = deletions
        self._replicas = replicas
        self._lists = lists
        self._messages = messages
        self._attachments = attachments

    @asynccontextmanager
    async def making(self, tenant_id: str, new: NewSession) -> AsyncIterator[Session]:
        """Insert a session that no reader sees, for the block to fill and complete; else it is deleted."""
        copy_id = new_id("copy")
        with self._leases.holder(copy_id):
            session = await to_its_end(self._incomplete.insert(tenant_id, copy_id, new))
            try:
                yield session
            except BaseException:
                await self._discard(session)
                raise

    async def complete(self, session: Session, session_id: str, contents: Contents) -> Session:
        """Make a session that was filled an ordinary one.

        Args:
            session: The session.
            session_id: The id by which callers name it.
            contents: What it has besides its messages.

        Raises:
            SessionExists: The tenant has a session with this id.
            SessionLost: It was deleted meanwhile.
        """
        try:
            made = await to_its_end(self._incomplete.complete(session, session_id, contents))
        except DuplicateKey:
            raise SessionExists.of(session_id) from None
        if made is None:
            raise SessionLost("The session was deleted while it was made.", retry_after=1.0)
        return made

    async def run(self, interval: float) -> None:
        """Delete what servers that died have left, every `interval` seconds until cancelled."""
        await run_every(interval, self.sweep, failure="copies_not_swept")

    async def sweep(self) -> None:
        """Delete the sessions that no living server makes."""
        found = await self._incomplete.find()
        servers = {each.lease.replica_id for each in found if each.lease is not None}
        living = await self._replicas.alive(servers) if servers else set()
        for each in found:
            if each.lease is None or each.lease.replica_id not in living:
                await self._delete(each)

    async def _discard(self, session: Session) -> None:
        """Delete a session that was not completed; one that was is another session by now. Never raises."""
        await self._leases.release(session)
        await self._delete(session)
        try:
            if not await self._lists.existing(session.tenant_id, [session.uid]):
                # Perhaps another server has deleted it while this one was paused, and wrote to it afterwards.
                await self._messages.delete(session.tenant_id, session.uid)
                await self._attachments.release_session(session.tenant_id, session.uid)
        except GodotyError as error:
            log.warning("copied_messages_not_deleted", session_uid=session.uid, error=str(error))

    async def _delete(self, session: Session) -> None:
        try:
            await self._deletions.finish(session)
        except GodotyError as error:  # `sweep` repeats it
            log.warning("copy_not_deleted", tenant_id=session.tenant_id, session_uid=session.uid, error=str(error))
