"""Deletes sessions, each in its own task, which runs until the deletion is complete. Ledger entries are retained.

A deletion acquires the session first, so that no turn runs in it meanwhile. If its server dies, the lease remains, and
the next caller that deletes the session or uses its id finishes the deletion.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from godoty_service.actions.stores import ActionStores
from godoty_service.aio.tasks import retrieve_exception
from godoty_service.attachments.store import AttachmentStore
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import (
    GodotyError,
    SessionLost,
    SessionNotFound,
    ShuttingDown,
    StorageError,
    TurnNotFound,
    internal_error,
)
from godoty_service.ids import new_id
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import SessionStore
from godoty_service.turns.event_log.outbox import EndedTurn, Wants
from godoty_service.turns.event_log.store import EventLogStore
from godoty_service.turns.turn_store import TurnStore

log = structlog.get_logger(__name__)

_RECENT = 200  # messages; turns whose logs are not stored yet have written some of them
_MIN_BACKOFF, _MAX_BACKOFF = 0.2, 5.0  # seconds between two attempts while the database fails


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedSession:
    """What a deletion has deleted.

    Attributes:
        sessions: 1; 0: it was deleted already, and another session may use its id.
        messages: The number of its messages.
        turns: The number of its turns whose records or event logs were stored.
    """

    sessions: int = 0
    messages: int = 0
    turns: int = 0


class SessionIds(Protocol):
    """A session that was read, with or without its contents."""

    @property
    def uid(self) -> str:
        """The generated id."""

    @property
    def tenant_id(self) -> str:
        """The tenant."""

    @property
    def session_id(self) -> str:
        """The caller's id, which another session may have by now."""


@dataclass(slots=True)
class _Deletion:
    """A running deletion: its task, the outcome of its current or next attempt, and what it has deleted."""

    attempt: "asyncio.Future[None]"
    task: "asyncio.Task[None] | None" = None
    deleted: "DeletedSession" = field(default_factory=DeletedSession)


class SessionDeletions:
    """The running deletions of this server."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        leases: LeaseHolders,
        messages: MessageStore,
        turn_store: TurnStore,
        event_logs: EventLogStore,
        attachments: AttachmentStore,
        wants: Wants = lambda _: False,
        clock: Clock = utc_now,
        actions: ActionStores,
    ) -> None:
        self._sessions = sessions
        self._leases = leases
        self._messages = messages
        self._turn_store = turn_store
        self._event_logs = event_logs
        self._attachments = attachments
        self._wants = wants
        self._clock = clock
        self._actions = actions
        self._running: dict[str, _Deletion] = {}

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """Delete a session, its messages and the logs of its turns.

        Raises:
            SessionNotFound: The tenant has no session with this id.
            SessionBusy: A turn is running in it.
            StorageError: The database failed; a deletion that has begun continues.
        """
        await self.finish(await self._sessions.get(tenant_id, session_id))

    async def finish(self, session: SessionIds) -> DeletedSession:
        """Delete a session that was just read; concurrent callers in this server share one deletion.

        Raises:
            SessionBusy: A turn is running in it.
            StorageError: The database failed; the deletion continues.
        """
        deletion = self._running.get(session.uid)
        if deletion is None:
            deletion = self._running[session.uid] = _Deletion(_outcome())
            deletion.task = asyncio.create_task(self._run(session, deletion))
        await asyncio.shield(deletion.attempt)
        return deletion.deleted

    async def stop(self, grace: float) -> None:
        """Wait up to `grace` seconds for the running deletions, then cancel them: other servers finish them."""
        tasks = [each.task for each in self._running.values() if each.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, session: SessionIds, deletion: _Deletion) -> None:
        """Attempt a deletion until it is complete or refused; each attempt has an outcome, which its callers await."""
        deletion_id, backoff = new_id("del"), _MIN_BACKOFF
        try:
            with self._leases.holder(deletion_id):
                while (error := await self._attempt(session, deletion_id, deletion)) is not None:
                    attempt, deletion.attempt = deletion.attempt, _outcome()
                    attempt.set_exception(error)
                    if not isinstance(error, StorageError):
                        return
                    await asyncio.sleep(backoff)
                    backoff = min(_MAX_BACKOFF, backoff * 2)
            deletion.attempt.set_result(None)
        finally:
            self._running.pop(session.uid, None)
            if not deletion.attempt.done():  # the next attempt, which is not made
                deletion.attempt.set_exception(ShuttingDown("The server is stopping.", retry_after=1.0))

    async def _attempt(self, session: SessionIds, deletion_id: str, deletion: _Deletion) -> GodotyError | None:
        """Acquire a session and delete its contents; return the error, or None if it is deleted."""
        try:
            found = await self._sessions.get(session.tenant_id, session.session_id)
            if found.uid == session.uid:  # else another session uses its id by now
                acquired = await self._sessions.acquire_for_deletion(found, deletion_id=deletion_id)
                deletion.deleted = await self._delete_contents(acquired)
        except SessionNotFound:
            return None
        except GodotyError as error:
            log.warning("session_not_deleted", session_id=session.session_id, error=str(error))
            return error
        except Exception:
            log.exception("deletion_fault", session_id=session.session_id)
            # The task has the log context of the call that began the deletion.
            return internal_error(structlog.contextvars.get_contextvars().get("request_id", ""))
        return None

    async def _delete_contents(self, session: Session) -> DeletedSession:
        """Delete a session that was acquired, with its messages, the logs of its turns, and what it alone has attached.

        Turns that wait for the session have not begun: they retain their records, and so their request ids. The log of
        a turn that has just ended may not be stored completely: a tombstone closes it. Turns of dead servers may have
        written nothing: their records are deleted as well.

        Raises:
            SessionLost: Another server deletes it; its id may belong to another session by now.
        """
        tenant_id = session.tenant_id
        known = await self._turn_store.of_session(tenant_id, session.session_id)
        if not await self._sessions.holds(session):
            raise SessionLost("Another server deletes the session.", retry_after=1.0)
        ended = await self._event_logs.begun(tenant_id, known)
        after = max(0, session.message_count - _RECENT)
        recent = await self._messages.turn_ids(tenant_id, session.uid, after=after, limit=2 * _RECENT)
        dead = session.lease.predecessors if session.lease is not None else ()
        wrote = recent | {each.turn_id for each in dead}
        turns = [each for each in known if each in ended or each in wrote]
        for turn_id in turns:
            if not ended.get(turn_id):
                await self._event_logs.insert_tombstone(
                    tenant_id,
                    turn_id,
                    expire_time=self._turn_store.log_expiry(),
                    outbox=self._end(session, turn_id),
                )
        await self._event_logs.delete(tenant_id, [*{*turns, *wrote}])  # a log outlives its record by a while
        await self._turn_store.delete(tenant_id, turns)
        messages = await self._messages.delete(tenant_id, session.uid)
        await self._attachments.release_session(tenant_id, session.uid)
        await self._actions.steps.delete_session(tenant_id, session.uid)
        await self._actions.calls.delete_session(tenant_id, session.uid)
        await self._sessions.delete(session)
        return DeletedSession(sessions=1, messages=messages, turns=len(turns))

    def _end(self, session: Session, turn_id: str) -> EndedTurn | None:
        """Return the end of a turn whose log was not stored to its end; None: no webhook is notified of it."""
        if not self._wants(session.tenant_id):
            return None
        return EndedTurn(
            turn_id=turn_id,
            tenant_id=session.tenant_id,
            session_id=session.session_id,
            user_reference=session.user_reference,
            time=self._clock(),
            error_reason=TurnNotFound.reason,
        )


def _outcome() -> "asyncio.Future[None]":
    """Return a future whose exception need not be retrieved."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    outcome.add_done_callback(retrieve_exception)
    return outcome
