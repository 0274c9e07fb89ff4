"""Deletes sessions, each in a task of its own, which runs to its end. The session's ledger entries stay.

A session is claimed first, so that no turn runs in it meanwhile. A server that dies in between leaves the claim, and
whoever wants the session next, to delete it or to use its id, finishes the deletion.
"""

import asyncio
from dataclasses import dataclass

import structlog

from godoty_service.errors import GodotyError, SessionLost, SessionNotFound, ShuttingDown, StorageError
from godoty_service.ids import new_id
from godoty_service.sessions.leases import Leases
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import Sessions
from godoty_service.turns.chunks import LogChunks
from godoty_service.turns.records import TurnRecords

log = structlog.get_logger(__name__)

_RECENT = 200  # messages; the turns that have not kept their logs yet are among those that wrote them
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0  # seconds between two attempts while the database fails


@dataclass(slots=True)
class _Deletion:
    """A deletion that runs: its task, and the outcome of its current or next attempt."""

    attempt: "asyncio.Future[None]"
    task: "asyncio.Task[None] | None" = None


class Deletions:
    """The deletions that run in this server."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        leases: Leases,
        messages: MessageStore,
        records: TurnRecords,
        chunks: LogChunks,
    ) -> None:
        self._sessions = sessions
        self._leases = leases
        self._messages = messages
        self._records = records
        self._chunks = chunks
        self._running: dict[str, _Deletion] = {}

    async def delete(self, tenant_id: str, session_id: str) -> None:
        """Delete a session, its messages and the logs of its turns.

        Raises:
            SessionNotFound: The tenant has none of this id.
            SessionBusy: A turn is running in it.
            StorageError: The database failed; where the deletion has begun, it goes on.
        """
        await self.finish(await self._sessions.get(tenant_id, session_id))

    async def finish(self, session: Session) -> None:
        """Delete a session that was just read, together with whoever deletes it in this server already.

        Raises:
            SessionBusy: A turn is running in it.
            StorageError: The database failed; the deletion goes on.
        """
        deletion = self._running.get(session.uid)
        if deletion is None:
            deletion = self._running[session.uid] = _Deletion(_outcome())
            deletion.task = asyncio.create_task(self._run(session, deletion))
        await asyncio.shield(deletion.attempt)

    async def stop(self, grace: float) -> None:
        """Give what runs so many seconds, then cancel it: other servers finish it."""
        tasks = [each.task for each in self._running.values() if each.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, session: Session, deletion: _Deletion) -> None:
        """Attempt a deletion until it is done or refused. Each attempt has an outcome, for those who wait."""
        deletion_id, wait = new_id("del"), _FIRST_WAIT
        try:
            with self._leases.holder(deletion_id):
                while (error := await self._attempt(session, deletion_id)) is not None:
                    attempt, deletion.attempt = deletion.attempt, _outcome()
                    attempt.set_exception(error)
                    if not isinstance(error, StorageError):
                        return
                    await asyncio.sleep(wait)
                    wait = min(_LONGEST_WAIT, wait * 2)
            deletion.attempt.set_result(None)
        finally:
            self._running.pop(session.uid, None)
            if not deletion.attempt.done():  # an attempt that is not made any more
                deletion.attempt.set_exception(ShuttingDown("The server is stopping.", retry_after=1.0))

    async def _attempt(self, session: Session, deletion_id: str) -> GodotyError | None:
        """Claim and erase a session; return what failed, and None also where it is gone already."""
        try:
            found = await self._sessions.get(session.tenant_id, session.session_id)
            if found.uid == session.uid:  # else its id is used again
                await self._erase(await self._sessions.claim_existing(found, deletion_id=deletion_id))
        except SessionNotFound:
            return None
        except GodotyError as error:
            log.warning("session_not_deleted", session_id=session.session_id, error=str(error))
            return error
        except Exception:
            log.exception("deletion_fault", session_id=session.session_id)
            return GodotyError("The server failed.")
        return None

    async def _erase(self, claimed: Session) -> None:
        """Delete a claimed session and all that was said in it.

        Turns that wait for the session have not begun: they keep their records, and so their request ids. One that
        has just ended may not have kept all of its log: that is sealed. The turns of dead servers may have written
        nothing: their records go, too.

        Raises:
            SessionLost: Another server deletes it; the id may name another session by now.
        """
        tenant_id = claimed.tenant_id
        known = await self._records.of_session(tenant_id, claimed.session_id)
        if not await self._sessions.holds(claimed):
            raise SessionLost("Another server deletes the session.", retry_after=1.0)
        ended = await self._chunks.begun(tenant_id, known)
        after = max(0, claimed.message_count - _RECENT)
        recent = await self._messages.turn_ids(tenant_id, claimed.uid, after=after, limit=2 * _RECENT)
        dead = claimed.lease.before if claimed.lease is not None else ()
        spoke = recent | {each.turn_id for each in dead}
        turns = [each for each in known if each in ended or each in spoke]
        for turn_id in turns:
            if not ended.get(turn_id):
                await self._chunks.seal(tenant_id, turn_id, expire_time=self._records.log_expiry())
        await self._chunks.delete(tenant_id, turns)
        await self._records.delete(tenant_id, turns)
        await self._messages.delete(tenant_id, claimed.uid)
        await self._sessions.delete(claimed)


def _outcome() -> "asyncio.Future[None]":
    """Make a future whose exception need not be retrieved."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
    return outcome
