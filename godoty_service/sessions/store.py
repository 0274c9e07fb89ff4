"""Sessions in MongoDB. Owns `sessions`.

A turn claims its session in one atomic operation, and every write of it carries the fence of that claim. A claim
whose server is dead is taken over; what the dead one writes later meets a higher fence and changes nothing.
"""

import json
from collections.abc import AsyncIterator, Mapping
from collections.abc import Collection as Some
from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey, InvalidRequest, SessionBusy, SessionNotFound
from godoty_service.ids import new_id
from godoty_service.mongo import Collection, Document, Index, Snapshot
from godoty_service.sessions.looks import Looks, Version
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.session import Claim, Context, Lease, Session

INDEXES = (
    Index(keys=[("tenant_id", 1), ("session_id", 1)], unique=True),
    Index(keys=[("tenant_id", 1), ("update_time", -1), ("_id", -1)]),
    Index(keys=[("tenant_id", 1), ("user", 1), ("update_time", -1), ("_id", -1)]),
    Index(keys=[("lease.replica_id", 1), ("lease.turn_id", 1)], where={"lease.replica_id": {"$gt": ""}}),
)
_LEASE_FIELDS = tuple(field.name for field in fields(Lease))
_BUSY_RETRY = 1.0  # seconds
_MOST_HELD = 100  # sessions that are read at once to be released


class HeldByTwin(SessionBusy):
    """A turn of the same request holds the session; it gives it back as soon as it sees that it was not the first."""


class DeletionUnfinished(SessionBusy):
    """The session is being deleted, and the server that did it is gone: whoever wants its id finishes that first."""

    def __init__(self, session: Session) -> None:
        super().__init__("The session is being deleted.", retry_after=_BUSY_RETRY)
        self.session = session


class Sessions:
    """Sessions by tenant."""

    def __init__(self, collection: Collection, *, replicas: Replicas, clock: Clock = utc_now) -> None:
        self._sessions = collection
        self._looks = Looks(collection)
        self._replicas = replicas
        self._clock = clock

    def at(self, snapshot: Snapshot) -> "Sessions":
        """The same at a moment, to read."""
        return Sessions(self._sessions.at(snapshot), replicas=self._replicas, clock=self._clock)

    async def claim(
        self,
        tenant_id: str,
        session_id: str,
        *,
        turn_id: str,
        text: str,
        model: str | None,
        default_model: str,
        user: str | None,
        request_id: str | None = None,
        new: bool = False,
    ) -> Claim:
        """Claim a session for a turn, and make it where there is none.

        One that is known to be `new` is made together with those that others make meanwhile.

        Raises:
            HeldByTwin: A turn of the same request holds it.
            DeletionUnfinished: It is to be deleted first.
            SessionBusy: Another turn holds it.
            InvalidRequest: It belongs to another end user.
        """
        now = self._clock()
        replica_id = self._replicas.replica_id
        lease = {
            "turn_id": turn_id,
            "replica_id": replica_id,
            "text": text,
            "request_id": request_id,
            "model": model,
            "user": user,
        }
        query: Document = {"tenant_id": tenant_id, "session_id": session_id, "lease": None}
        fresh: Document = {
            "_id": new_id("ses"),
            "message_count": 0,
            "state": "{}",
            "context": None,
            "fold": None,
            "fold_revision": 0,
            "unfolded": False,
            "create_time": now,
            "update_time": now,
            "model": model or default_model,
            "user": user,
        }
        if user:
            query["user"] = {"$in": [user, None]}
        changes: Document = {"$set": {"lease": lease}, "$inc": {"fence": 1}}
        update = {**changes, "$setOnInsert": fresh}
        if new:
            made = {**fresh, "tenant_id": tenant_id, "session_id": session_id, "lease": lease, "fence": 1}
            with suppress(DuplicateKey):
                await self._sessions.insert_one(made)
                return Claim(session=_read(made), created=True, taken_from=None)
        while True:
            try:
                found = await self._sessions.find_one_and_update(query, update, upsert=True, before=True)
            except DuplicateKey:
                claim = await self._take_over(tenant_id, session_id, lease=lease)
                if claim is not None:
                    return claim
                continue
            before = found or {**fresh, "tenant_id": tenant_id, "session_id": session_id, "fence": 0}
            claimed = _read({**before, "lease": lease, "fence": before["fence"] + 1})
            return Claim(session=_wanted(claimed), created=found is None, taken_from=None)

    async def finish(
        self,
        session: Session,
        *,
        message_count: int,
        state: Mapping[str, Any],
        context: Context | None,
        fold: Document,
        fold_revision: int,
        unfolded: bool = False,
    ) -> bool:
        """End a turn: keep its state and fold, and give the session free.

        `unfolded` says that the turn may have left an entry that its fold does not know.

        Tells whether it was written: it is not where the claim was lost, or where the fold was written meanwhile.
        """
        last_turn = session.lease.turn_id if session.lease is not None else ""
        return await self._sessions.update_once(
            {**_own(session), "fold_revision": fold_revision},
            {
                "$set": {
                    "lease": None,
                    "update_time": self._clock(),
                    "model": session.model,
                    "user": session.user,
                    "message_count": message_count,
                    "state": json.dumps(state),
                    "context": {"head": json.dumps(context.head), "after": context.after} if context else None,
                    "fold": fold,
                    "unfolded": unfolded,
                    "last_turn_id": last_turn,
                },
                "$inc": {"fold_revision": 1},
            },
            done={"_id": session.uid, "tenant_id": session.tenant_id, "last_turn_id": last_turn},
        )

    async def release(self, session: Session, *, begun: bool, unfolded: bool = False) -> None:
        """Release the lease that a session was read with; where its holder does not have it any more, do nothing.

        Args:
            session: The session.
            begun: The holder may have written messages: the next claim takes the session over, as from a dead server.
                Else the session is left as it was before the lease, and one that was created with it is deleted.
            unfolded: The holder may have left an entry that the session's fold does not know.
        """
        lease = session.lease
        if lease is None:
            return
        held = {**_own(session), "lease.turn_id": lease.turn_id, "lease.replica_id": lease.replica_id}
        if begun or lease.deletes:  # a deletion is never undone
            await self._sessions.update_one(held, {"$set": {"lease": _left(lease)}})
        elif session.fence == 1 and not lease.before:
            await self._sessions.delete_one(held)
        else:  # where a dead turn's history is still to be closed, the next claim does it
            last = replace(lease.before[-1], before=lease.before[:-1]) if lease.before else None
            changes: Document = {"$set": {"lease": _left(last) if last is not None else None}}
            if unfolded:
                changes = {"$set": {**changes["$set"], "unfolded": True}, "$inc": {"fold_revision": 1}}
            await self._sessions.update_one(held, changes)

    async def held(self, *, but: Some[str]) -> list[Session]:
        """Read some sessions whose lease this server has, those of the given turns and deletions left out."""
        found = await self._sessions.find(
            {"lease.replica_id": self._replicas.replica_id, "lease.turn_id": {"$nin": list(but)}}, limit=_MOST_HELD
        )
        return [_read(each) for each in found]

    async def holds(self, session: Session) -> bool:
        """Tell whether the claim still stands."""
        return await self._sessions.find_one(_own(session), fields={"_id": 1}) is not None

    async def get(self, tenant_id: str, session_id: str) -> Session:
        """Read a session.

        Raises:
            SessionNotFound: The tenant has none of this id.
        """
        found = await self._sessions.find_one({"tenant_id": tenant_id, "session_id": session_id})
        if found is None:
            raise _missing(session_id)
        return _read(found)

    async def look(self, tenant_id: str, session_id: str, *, known: Version | None = None) -> tuple[Session, bool]:
        """Read a session without what only a turn needs of it: the agent's state and the history's summary.

        Args:
            tenant_id: Whose it is.
            session_id: The caller's id of it.
            known: A version whose fold the caller has.

        Returns:
            The session, and whether the known fold still tells all that it has cost: then it is not read.

        Raises:
            SessionNotFound: The tenant has none of this id.
        """
        found = await self._looks.look(tenant_id, session_id, known=known)
        if found is None:
            raise _missing(session_id)
        return _read(found), "fold" not in found

    async def page(
        self, tenant_id: str, *, user: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Session]:
        """Read sessions, the last used first, that come after the given time of use and uid."""
        query: Document = {"tenant_id": tenant_id}
        if user:
            query["user"] = user
        if after is not None:
            time, uid = after
            query["$or"] = [{"update_time": {"$lt": time}}, {"update_time": time, "_id": {"$lt": uid}}]
        found = await self._sessions.find(query, sort=[("update_time", -1), ("_id", -1)], limit=limit)
        return [_read(each) for each in found]

    async def delete(self, session: Session) -> None:
        """Delete a claimed session."""
        await self._sessions.delete_one(_own(session))

    async def read_fold(self, tenant_id: str, session_uid: str) -> tuple[Document | None, int] | None:
        """Read a session's fold and its revision; None: the session is deleted."""
        found = await self._sessions.find_one(
            {"_id": session_uid, "tenant_id": tenant_id}, fields={"fold": 1, "fold_revision": 1}
        )
        return (found["fold"], found["fold_revision"]) if found else None

    async def shown_fold(self, tenant_id: str, session_uid: str) -> tuple[Document | None, bool] | None:
        """Read a session's fold, and whether readers take it as it stands; None: the session is deleted."""
        found = await self._sessions.find_one(
            {"_id": session_uid, "tenant_id": tenant_id}, fields={"fold": 1, "lease": 1, "unfolded": 1}
        )
        return (found["fold"], found["lease"] is None and not found["unfolded"]) if found else None

    async def folded(self, tenant_id: str | None) -> AsyncIterator[tuple[str, str, str]]:
        """Tell the tenant, our id and the caller's id of each session that has folded something."""
        which: Document = {"fold.through": {"$gt": 0}} | ({"tenant_id": tenant_id} if tenant_id else {})
        async for each in self._sessions.iterate(which, fields={"tenant_id": 1, "session_id": 1}):
            yield each["tenant_id"], each["_id"], each["session_id"]

    async def replace_fold(self, tenant_id: str, session_uid: str, *, fold: Document, revision: int) -> bool:
        """Write a fold in place of the given revision; tells whether it was still that one."""
        return await self._sessions.update_one(
            {"_id": session_uid, "tenant_id": tenant_id, "fold_revision": revision},
            {"$set": {"fold": fold, "unfolded": False}, "$inc": {"fold_revision": 1}},
        )

    async def mark_unfolded(self, tenant_id: str, session_uid: str) -> None:
        """Say that an entry is about to be written outside a turn, so that readers look for it."""
        await self._sessions.update_one(
            {"_id": session_uid, "tenant_id": tenant_id}, {"$set": {"unfolded": True}, "$inc": {"fold_revision": 1}}
        )

    async def claim_existing(self, session: Session, *, deletion_id: str) -> Session:
        """Claim a session that was just read, to delete it. A claim whose answer was lost counts.

        Raises:
            SessionBusy: A turn or another deletion holds it, or it changed hands meanwhile.
        """
        lease, replica_id = session.lease, self._replicas.replica_id
        if lease is not None and (lease.turn_id, lease.replica_id) == (deletion_id, replica_id):
            return session
        left = await self._replicas.lease_left(lease.replica_id) if lease is not None else 0.0
        if lease is None or not left:
            before = _before(lease) if lease is not None else []
            kept = {"turn_id": deletion_id, "replica_id": replica_id, "text": "", "before": before}
            claimed = await self._sessions.find_one_and_update(
                _own(session), {"$set": {"lease": kept}, "$inc": {"fence": 1}}
            )
            if claimed is not None:
                return _read(claimed)
        raise self._busy(lease.replica_id if lease is not None else "", left)

    def _busy(self, holder: str, left: float, *, kind: type[SessionBusy] = SessionBusy) -> SessionBusy:
        """Return the error of a session that another turn holds.

        A turn of this server ends as it does. Another server may be dead: its lease holds for the time that is left.
        """
        away = holder != self._replicas.replica_id and left
        return kind("Another turn of the session is running.", retry_after=left if away else _BUSY_RETRY)

    async def _take_over(self, tenant_id: str, session_id: str, *, lease: Document) -> Claim | None:
        """Claim a session that another turn holds, if its server is dead; None: it is worth another try."""
        found = await self._sessions.find_one({"tenant_id": tenant_id, "session_id": session_id})
        if found is None:
            return None
        held, user = _read(found), lease["user"]
        old = held.lease
        left = await self._replicas.lease_left(old.replica_id) if old is not None else 0.0
        living = left > 0
        if old is not None and old.deletes and not living:
            raise DeletionUnfinished(held)
        if user and (held if living else _wanted(held)).user not in (user, None):
            raise InvalidRequest.of("user", "the session belongs to another end user")
        if old is None:
            return None
        if living:
            twin = old.request_id is not None and old.request_id == lease["request_id"]
            raise self._busy(old.replica_id, left, kind=HeldByTwin if twin else SessionBusy)
        # An end of that turn that lands only now leaves nothing to take over.
        query = {**_own(held), "lease.turn_id": old.turn_id, "lease.replica_id": old.replica_id}
        changes = {"$set": {"lease": {**lease, "before": _before(old)}}, "$inc": {"fence": 1}}
        claimed = await self._sessions.find_one_and_update(query, changes)
        if claimed is None:
            return None
        return Claim(session=_wanted(_read(claimed)), created=False, taken_from=old)


def _wanted(session: Session) -> Session:
    """Return a session with the model and the end user that its turns asked for: those of its leases, the newest first.

    The document gets them when a turn ends: a claim that is given back has changed nothing.
    """
    for lease in (*session.lease.before, session.lease) if session.lease is not None else ():
        session = replace(session, model=lease.model or session.model, user=lease.user or session.user)
    return session


def _missing(session_id: str) -> SessionNotFound:
    return SessionNotFound("There is no such session.", metadata={"session_id": session_id})


def _own(session: Session) -> Document:
    return {"_id": session.uid, "tenant_id": session.tenant_id, "fence": session.fence}


def _left(lease: Lease) -> Document:
    """Write a lease that nobody holds any more."""
    before = [_left(each) for each in lease.before]
    return {
        "turn_id": lease.turn_id,
        "replica_id": "",
        "text": lease.text,
        "model": lease.model,
        "user": lease.user,
        "before": before,
    }


def _before(lease: Lease) -> list[Document]:
    """Tell what stands before a claim that is taken over from a lease; a deletion itself needs no end."""
    own = () if lease.deletes else (replace(lease, before=()),)
    return [_left(each) for each in (*lease.before, *own)]


def _read_lease(document: Document) -> Lease:
    known = {name: document[name] for name in _LEASE_FIELDS if name in document}
    return Lease(**{**known, "before": tuple(map(_read_lease, document.get("before", ())))})


def _read(document: Document) -> Session:
    lease, context = document["lease"], document.get("context")
    return Session(
        uid=document["_id"],
        tenant_id=document["tenant_id"],
        session_id=document["session_id"],
        user=document["user"],
        model=document["model"],
        message_count=document["message_count"],
        state=json.loads(document.get("state", "{}")),
        context=Context(head=json.loads(context["head"]), after=context["after"]) if context else None,
        fold=document.get("fold"),
        fold_revision=document["fold_revision"],
        fence=document["fence"],
        lease=_read_lease(lease) if lease else None,
        unfolded=document["unfolded"],
        create_time=document["create_time"],
        update_time=document["update_time"],
    )
