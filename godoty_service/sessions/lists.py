"""Lists a tenant's sessions."""

from datetime import datetime

from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.sessions.codec import session_from_document
from godoty_service.sessions.holders import FIRST_TURN
from godoty_service.sessions.session import Session

_ORDER = (("update_time", -1), ("_id", -1))
_BEFORE = "lease.predecessors"
BY_USER = (
    Index(keys=[("tenant_id", 1), ("user_reference", 1), *_ORDER], where={"user_reference": {"$gt": ""}}),
    Index(keys=[(f"{_BEFORE}.user_reference", 1)], where={f"{_BEFORE}.user_reference": {"$gt": ""}}),
)


class SessionLists:
    """Lists of sessions, by tenant."""

    def __init__(self, collection: Collection) -> None:
        """Create it.

        Args:
            collection: `sessions`, which `SessionStore` owns.
        """
        self._sessions = collection

    async def page(
        self,
        tenant_id: str,
        *,
        user: str | None,
        user_reference: str | None = None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Session]:
        """Return sessions by time of last use, the newest first.

        Args:
            tenant_id: The tenant.
            user: Only sessions of the end user with this name; None: all.
            user_reference: The reference of that end user; None: the name has none.
            after: The time of last use, and the uid, of the session that they follow; None: start with the newest.
            limit: Maximum number of sessions.
        """
        query: Document = {"tenant_id": tenant_id}
        if user is not None:
            owned = _owned(user, user_reference) if user_reference is not None else [{"user": user}]
            query = {"$or": [{"tenant_id": tenant_id, **each} for each in owned]}
        if after is not None:
            time, uid = after
            older = {"$or": [{"update_time": {"$lt": time}}, {"update_time": time, "_id": {"$lt": uid}}]}
            query = {"$and": [query, older]}
        found = await self._sessions.find(query, sort=_ORDER, limit=limit)
        return [session_from_document(each) for each in found]

    async def of_user(self, tenant_id: str, *, user: str, user_reference: str, limit: int) -> list[Session]:
        """Return some sessions that belong to an end user, or will once the turn that holds them ends.

        Args:
            tenant_id: The tenant.
            user: The name, which sessions of schema 1 have.
            user_reference: The reference.
            limit: Maximum number of sessions for each way in which they have the user.
        """
        ways: list[Document] = [
            *_owned(user, user_reference),
            {"lease.turn_id": {"$gt": FIRST_TURN}, "$or": [*_owned(user, user_reference, path="lease.")]},
            # Also of a deletion, whose own lease has no user:
            {f"{_BEFORE}.user_reference": user_reference},
            {f"{_BEFORE}.user": user, _BEFORE: {"$elemMatch": {"user": user, "user_reference": None}}},
        ]
        found: dict[str, Session] = {}
        for which in ways:
            for each in await self._sessions.find({"tenant_id": tenant_id, **which}, limit=limit):
                session = session_from_document(each)
                if _references(session) <= {user_reference}:
                    found[session.uid] = session
        return list(found.values())


def _references(session: Session) -> set[str]:
    """Return the end users that a session and its leases have."""
    leases = (*session.lease.predecessors, session.lease) if session.lease is not None else ()
    references = (session.user_reference, *(each.user_reference for each in leases))
    return {each for each in references if each is not None}


def _owned(user: str, user_reference: str, *, path: str = "") -> list[Document]:
    """Return the conditions on sessions, or on what they have at a path, of an end user, in both forms."""
    return [{f"{path}user_reference": user_reference}, {f"{path}user": user, f"{path}user_reference": None}]
