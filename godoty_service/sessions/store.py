"""Stores sessions and their leases. Owns the collection `sessions`.

A turn acquires its session in one atomic operation, and each of its writes is filtered by the fence of that lease. A
lease of a dead server is taken over; later writes of the dead server meet a higher fence and change nothing.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Collection as CollectionOf
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from godoty_service.clock import Clock, utc_now
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import DuplicateKey, SessionBusy, SessionNotFound
from godoty_service.mongo.collection import Collection, Document, Index, Snapshot
from godoty_service.sessions.batched_reads import SessionReader, Version
from godoty_service.sessions.codec import (
    fenced,
    lease_fields,
    new_session_document,
    predecessor_documents,
    session_from_document,
    summary_to_document,
    unowned_lease_document,
    with_lease,
)
from godoty_service.sessions.holders import HELD_BY_TENANT, SessionHolders
from godoty_service.sessions.lists import BY_USER, INCOMPLETE, NAMED, SessionLists
from godoty_service.sessions.session import Claim, HistorySummary, Lease, OtherEndUser, Session, SessionAgent
from godoty_service.users.references import EndUser

_BUSY_RETRY = 1.0  # seconds
_MAX_LEASED = 100  # sessions of one read of leases
_FIRST_AGENT = SessionAgent()


class HeldBySameRequest(SessionBusy):
    """A turn of the same request holds the session; it releases it as soon as it sees that it was not the first."""


class DeletionUnfinished(SessionBusy):
    """The session is being deleted by a dead server: the caller must finish the deletion first."""

    def __init__(self, session: Session) -> None:
        super().__init__("The session is being deleted.", retry_after=_BUSY_RETRY)
        self.session = session


class SessionStore:
    """Sessions by tenant.

    Attributes:
        holders: The turns that hold the sessions.
        lists: Lists of sessions.
    """

    COLLECTION = "sessions"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("session_id", 1)], unique=True),
        Index(keys=[("tenant_id", 1), ("update_time", -1), ("_id", -1)]),
        Index(keys=[("tenant_id", 1), ("user", 1), ("update_time", -1), ("_id", -1)]),
        Index(keys=[("lease.replica_id", 1), ("lease.turn_id", 1)], where={"lease.replica_id": {"$gt": ""}}),
        *(HELD_BY_TENANT, *BY_USER, *NAMED, INCOMPLETE),
    )

    def __init__(
        self,
        collection: Collection,
        *,
        replicas: ReplicaHeartbeats,
        clock: Clock = utc_now,
        with_names: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create the store.

        Args:
            collection: `sessions`.
            replicas: The servers that are alive.
            clock: Returns the time.
            with_names: Returns whether sessions must have their end users' names for servers of schema 1.
        """
        self._sessions = collection
        self._reader = SessionReader(collection)
        self.holders = SessionHolders(collection)
        self.lists = SessionLists(collection)
        self._replicas = replicas
        self._clock = clock
        self._with_names = with_names

    def at(self, snapshot: Snapshot) -> "SessionStore":
        """Return the store at a snapshot, for reads."""
        return SessionStore(self._sessions.read_at(snapshot), replicas=self._replicas, clock=self._clock)

    async def acquire(
        self,
        tenant_id: str,
        session_id: str,
        *,
        turn_id: str,
        text: str,
        model: str | None,
        default_model: str,
        user: EndUser | None,
        agent: SessionAgent = _FIRST_AGENT,
        request_id: str | None = None,
        attachments: Sequence[Document] = (),
        answers: bool = False,
        new: bool = False,
    ) -> Claim:
        """Acquire a session's lease for a turn, and create the session, with an agent, if it does not exist.

        A session that is known to be `new` is inserted in a batch with others.

        Raises:
            HeldBySameRequest: A turn of the same request holds it.
            DeletionUnfinished: It must be deleted first.
            SessionBusy: Another turn holds it.
            OtherEndUser: It belongs to another end user.
        """
        lease = {
            "turn_id": turn_id,
            "replica_id": self._replicas.replica_id,
            "text": text,
            "request_id": request_id,
            "model": model,
            "user": user.name if user is not None and self._with_names() else None,
            "user_reference": user.reference if user is not None else None,
            **lease_fields(attachments, answers=answers),
        }
        ids: Document = {"tenant_id": tenant_id, "session_id": session_id}
        initial = new_session_document(
            model=model or default_model,
            agent=agent,
            user=lease["user"],
            user_reference=lease["user_reference"],
            time=self._clock(),
        )
        if new:
            created = {**initial, **ids, "lease": lease, "fence": 1}
            with suppress(DuplicateKey):
                await self._sessions.insert_one(created)
                session = session_from_document(created)
                return Claim(session=session, created=True, taken_from=None, names_user=user is not None)
        return await self._upsert(ids, lease=lease, initial=initial, user=user)

    async def _upsert(self, ids: Document, *, lease: Document, initial: Document, user: EndUser | None) -> Claim:
        """Acquire a session that may exist, or take it over."""
        query: Document = {**ids, "lease": None}
        if user is not None:
            query |= {"user_reference": {"$in": [user.reference, None]}, "user": {"$in": [user.name, None]}}
        update = {"$set": {"lease": lease}, "$inc": {"fence": 1}, "$setOnInsert": initial}
        while True:
            try:
                found = await self._sessions.find_one_and_update(query, update, upsert=True, before=True)
            except DuplicateKey:
                if (claim := await self._take_over(ids, lease=lease, user=user)) is not None:
                    return claim
                continue
            before = found or {**initial, **ids, "fence": 0}
            unreferenced = found is None or found.get("user_reference") is None
            return Claim(
                session=session_from_document({**before, "lease": lease, "fence": before["fence"] + 1}).as_requested(),
                created=found is None,
                taken_from=None,
                names_user=user is not None and unreferenced,
                had_name=found is not None and unreferenced and found["user"] is not None,
            )

    async def finish(
        self,
        session: Session,
        *,
        message_count: int,
        state: Mapping[str, Any],
        state_number: int | None = None,
        summary: HistorySummary | None,
        totals: Document,
        totals_revision: int,
        totals_stale: bool = False,
        waiting_step: str = "",
    ) -> bool:
        """Store a turn's end, and release the session, in one write.

        Args:
            session: The session, as it was acquired.
            message_count: The number of the last message.
            state: The agent's state.
            state_number: The number of the message that stores it (`agent_states.py`).
            summary: The replacement of the oldest messages.
            totals: The session's totals.
            totals_revision: The revision that these totals replace.
            totals_stale: The turn may have written a ledger entry that the totals do not include.
            waiting_step: The step whose actions it leaves open; empty: it leaves none.

        Returns:
            Whether it was written: not if the lease was lost, or if other totals were written meanwhile.
        """
        fields = {
            "message_count": message_count,
            "state": json.dumps(state),
            "state_number": state_number,
            "context": summary_to_document(summary),
            "totals": totals,
            "totals_stale": totals_stale,
            "waiting_step": waiting_step,
        }
        return await self._write_end(session, fields, totals_revision=totals_revision)

    async def _write_end(self, session: Session, fields: Document, *, totals_revision: int) -> bool:
        last_turn = session.lease.turn_id if session.lease is not None else ""
        end = {
            "lease": None,
            "update_time": self._clock(),
            "model": session.model,
            "user": session.user if self._with_names() else None,
            "last_turn_id": last_turn,
            "state_turn_id": last_turn,
        }
        if session.user_reference is not None:
            end["user_reference"] = session.user_reference
        return await self._sessions.update_once(
            {**fenced(session), "totals_revision": totals_revision},
            {"$set": {**end, **fields}, "$inc": {"totals_revision": 1}},
            applied_filter={"_id": session.uid, "tenant_id": session.tenant_id, "last_turn_id": last_turn},
        )

    async def release(self, session: Session, *, begun: bool, totals_stale: bool = False) -> None:
        """Release the lease that a session was read with; do nothing if its holder has lost it.

        Args:
            session: The session.
            begun: The holder may have written messages: the next turn takes the session over, as from a dead server.
                Otherwise the session is restored as it was before the lease, or deleted if it was created with it.
            totals_stale: The holder may have written a ledger entry that the session's totals do not include.
        """
        lease = session.lease
        if lease is None:
            return
        leased = with_lease(session, lease)
        if begun or lease.deletes:  # the lease becomes unowned; a deletion is never undone
            await self._sessions.update_one(leased, {"$set": {"lease": unowned_lease_document(lease)}})
        elif session.fence == 1 and not lease.predecessors:
            await self._sessions.delete_one(leased)
        else:
            await self._undo_acquire(leased, lease, totals_stale=totals_stale)

    async def _undo_acquire(self, leased: Document, lease: Lease, *, totals_stale: bool) -> None:
        """Restore the lease from which the session was taken over: the next turn completes its history."""
        last = replace(lease.predecessors[-1], predecessors=lease.predecessors[:-1]) if lease.predecessors else None
        changes: Document = {"$set": {"lease": unowned_lease_document(last) if last is not None else None}}
        if totals_stale:
            changes = {"$set": {**changes["$set"], "totals_stale": True}, "$inc": {"totals_revision": 1}}
        await self._sessions.update_one(leased, changes)

    async def leased(self, *, excluding: CollectionOf[str]) -> list[Session]:
        """Return some sessions that this server has leased, except to the given turns and deletions."""
        found = await self._sessions.find(
            {"lease.replica_id": self._replicas.replica_id, "lease.turn_id": {"$nin": list(excluding)}},
            limit=_MAX_LEASED,
        )
        return [session_from_document(each) for each in found]

    async def holds(self, session: Session) -> bool:
        """Return whether the session still has the lease that it was acquired with."""
        return await self._sessions.find_one(fenced(session), fields={"_id": 1}) is not None

    async def get(self, tenant_id: str, session_id: str) -> Session:
        """Return a session.

        Raises:
            SessionNotFound: The tenant has no session with this id.
        """
        found = await self._sessions.find_one({"tenant_id": tenant_id, "session_id": session_id})
        if found is None:
            raise missing_session(session_id)
        return session_from_document(found)

    async def get_summary(
        self, tenant_id: str, session_id: str, *, known: Version | None = None
    ) -> tuple[Session, bool]:
        """Return a session without the fields that only a turn needs: the agent's state and the history's summary.

        Args:
            tenant_id: The tenant.
            session_id: The caller's id of the session.
            known: A version of the session whose totals the caller has.

        Returns:
            The session, and whether the known totals are current and complete: if so, they are not read.

        Raises:
            SessionNotFound: The tenant has no session with this id.
        """
        found = await self._reader.read(tenant_id, session_id, known=known)
        if found is None:
            raise missing_session(session_id)
        return session_from_document(found), "totals" not in found

    async def delete(self, session: Session) -> None:
        """Delete a session that was acquired."""
        await self._sessions.delete_one(fenced(session))

    async def read_totals(self, tenant_id: str, session_uid: str) -> tuple[Document | None, int] | None:
        """Return a session's totals and their revision; None: the session is deleted."""
        found = await self._sessions.find_one(
            {"_id": session_uid, "tenant_id": tenant_id}, fields={"totals": 1, "totals_revision": 1}
        )
        return (found["totals"], found["totals_revision"]) if found else None

    async def read_shown_totals(self, tenant_id: str, session_uid: str) -> tuple[Document | None, bool] | None:
        """Return a session's totals, and whether they are current for readers; None: the session is deleted."""
        query = {"_id": session_uid, "tenant_id": tenant_id}
        found = await self._sessions.find_one(query, fields={"totals": 1, "lease": 1, "totals_stale": 1})
        return (found["totals"], found["lease"] is None and not found["totals_stale"]) if found else None

    async def sessions_with_totals(self, tenant_id: str | None) -> AsyncIterator[tuple[str, str, str]]:
        """Yield the tenant, the uid and the caller's id of each session whose totals include an entry."""
        which: Document = {"totals.last_number": {"$gt": 0}} | ({"tenant_id": tenant_id} if tenant_id else {})
        async for each in self._sessions.iterate(which, fields={"tenant_id": 1, "session_id": 1}):
            yield each["tenant_id"], each["_id"], each["session_id"]

    async def replace_totals(self, tenant_id: str, session_uid: str, *, totals: Document, revision: int) -> bool:
        """Replace the totals of the given revision; return False if there is another revision."""
        return await self._sessions.update_one(
            {"_id": session_uid, "tenant_id": tenant_id, "totals_revision": revision},
            {"$set": {"totals": totals, "totals_stale": False}, "$inc": {"totals_revision": 1}},
        )

    async def mark_totals_stale(self, tenant_id: str, session_uid: str) -> None:
        """Record that an entry is about to be inserted outside a turn, so that readers read the ledger."""
        await self._sessions.update_one(
            {"_id": session_uid, "tenant_id": tenant_id},
            {"$set": {"totals_stale": True}, "$inc": {"totals_revision": 1}},
        )

    async def acquire_for_deletion(self, session: Session, *, deletion_id: str) -> Session:
        """Acquire a session that was just read, to delete it; a lease that the deletion has already counts.

        Raises:
            SessionBusy: A turn or another deletion holds it, or acquired it meanwhile.
        """
        lease, replica_id = session.lease, self._replicas.replica_id
        if lease is not None and (lease.turn_id, lease.replica_id) == (deletion_id, replica_id):
            return session
        seconds = await self._replicas.lease_left(lease.replica_id) if lease is not None else 0.0
        if lease is None or not seconds:
            predecessors = predecessor_documents(lease)
            own = {"turn_id": deletion_id, "replica_id": replica_id, "text": "", "predecessors": predecessors}
            acquired = await self._sessions.find_one_and_update(
                fenced(session), {"$set": {"lease": own}, "$inc": {"fence": 1}}
            )
            if acquired is None:  # a turn has changed it, or an earlier try of this deletion, whose answer was lost
                held = {"_id": session.uid, "lease.turn_id": deletion_id, "lease.replica_id": replica_id}
                acquired = await self._sessions.find_one(held)
            if acquired is not None:
                return session_from_document(acquired)
        raise self._busy(lease.replica_id if lease is not None else "", seconds)

    def _busy(self, holder: str, seconds: float, *, kind: type[SessionBusy] = SessionBusy) -> SessionBusy:
        """Return the error for a session that another turn holds.

        Another server may be dead: its lease expires after the given seconds.
        """
        remote = holder != self._replicas.replica_id and seconds
        return kind("Another turn of the session is running.", retry_after=seconds if remote else _BUSY_RETRY)

    async def _take_over(self, ids: Document, *, lease: Document, user: EndUser | None) -> Claim | None:
        """Take a session over from a turn whose server is dead; None: its lease has changed, so try again."""
        found = await self._sessions.find_one(ids)
        if found is None:
            return None
        session = session_from_document(found)
        old = session.lease
        seconds = await self._replicas.lease_left(old.replica_id) if old is not None else 0.0
        if old is not None and old.deletes and not seconds:
            raise DeletionUnfinished(session)
        owned = session if seconds else session.as_requested()
        if user is not None and not owned.belongs_to(user):
            raise OtherEndUser(owned.user_reference)
        if old is None:
            return None
        if seconds:
            same_request = old.request_id is not None and old.request_id == lease["request_id"]
            raise self._busy(old.replica_id, seconds, kind=HeldBySameRequest if same_request else SessionBusy)
        # If that turn's end is written only now, the lease is gone and there is nothing to take over.
        changes = {"$set": {"lease": {**lease, "predecessors": predecessor_documents(old)}}, "$inc": {"fence": 1}}
        if (acquired := await self._sessions.find_one_and_update(with_lease(session, old), changes)) is None:
            return None
        return Claim(
            session=session_from_document(acquired).as_requested(),
            created=False,
            taken_from=old,
            names_user=user is not None and session.user_reference is None,
            had_name=owned.user is not None and owned.user_reference is None,
        )


def missing_session(session_id: str) -> SessionNotFound:
    """Return the error for the id of a session that the tenant does not have."""
    return SessionNotFound("There is no such session.", metadata={"session_id": session_id})
