"""Lists a tenant's sessions."""

from collections.abc import Collection as CollectionOf
from collections.abc import Iterator
from dataclasses import dataclass
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
_NAME: Document = {"$gt": ""}
NAMED = (  # by names of schema 1
    Index(keys=[("user", 1), ("tenant_id", 1)], where={"user": _NAME}),
    Index(keys=[("lease.user", 1)], where={"lease.user": _NAME}),
    Index(keys=[("lease.predecessors.user", 1)], where={"lease.predecessors.user": _NAME}),
)
INCOMPLETE = Index(keys=[("incomplete", 1)], where={"incomplete": True})  # `incomplete.py`
# What `UserSession` is made of: no text, no agent's state.
_USER_SESSION_FIELDS = dict.fromkeys(
    (
        *("tenant_id", "session_id", "lease.turn_id"),
        *("user_reference", "lease.user_reference", f"{_BEFORE}.user_reference"),
    ),
    1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSession:
    """A session of an end user, without its contents.

    Attributes:
        uid: The generated id.
        tenant_id: The tenant.
        session_id: The caller's id.
        turn_id: The turn that holds it, or has held it when its server died; None: none, or a deletion.
    """

    uid: str
    tenant_id: str
    session_id: str
    turn_id: str | None


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
        incomplete: bool = False,
    ) -> list[Session]:
        """Return sessions by time of last use, the newest first.

        Args:
            tenant_id: The tenant.
            user: Only sessions of the end user with this name; None: all.
            user_reference: The reference of that end user; None: the name has none.
            after: The time of last use, and the uid, of the session that they follow; None: start with the newest.
            limit: Maximum number of sessions.
            incomplete: Return those as well that are being made.
        """
        query: Document = {"tenant_id": tenant_id}
        if user is not None:
            named = [{"user": user, "user_reference": None}]
            owned = _owned(user, user_reference) if user_reference is not None else named
            query = {"$or": [{"tenant_id": tenant_id, **each} for each in owned]}
        if after is not None:
            time, uid = after
            older = {"$or": [{"update_time": {"$lt": time}}, {"update_time": time, "_id": {"$lt": uid}}]}
            query = {"$and": [query, older]}
        if not incomplete:
            query["incomplete"] = None
        found = await self._sessions.find(query, sort=_ORDER, limit=limit)
        return [session_from_document(each) for each in found]

    async def existing(self, tenant_id: str, uids: CollectionOf[str]) -> set[str]:
        """Return which of some sessions, by their generated ids, exist."""
        query = {"_id": {"$in": list(uids)}, "tenant_id": tenant_id}
        return {each["_id"] for each in await self._sessions.find(query, fields={"_id": 1})}

    async def of_user(self, tenant_id: str, *, user: str, user_reference: str, limit: int) -> list[UserSession]:
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
        found: dict[str, UserSession] = {}
        for which in ways:
            query = {"tenant_id": tenant_id, **which}
            for each in await self._sessions.find(query, limit=limit, fields=_USER_SESSION_FIELDS):
                if set(_references(each)) <= {user_reference}:
                    found[each["_id"]] = _user_session(each)
        return list(found.values())


def _user_session(document: Document) -> UserSession:
    holder: str = (document.get("lease") or {}).get("turn_id", "")
    return UserSession(
        uid=document["_id"],
        tenant_id=document["tenant_id"],
        session_id=document["session_id"],
        turn_id=holder if holder.startswith(FIRST_TURN) else None,
    )


def _references(document: Document) -> Iterator[str]:
    """Yield the end users that a session and its leases have."""
    lease = document.get("lease") or {}
    for each in (document, lease, *lease.get("predecessors", ())):
        if reference := each.get("user_reference"):
            yield reference


def _owned(user: str, user_reference: str, *, path: str = "") -> list[Document]:
    """Return the conditions on sessions, or on what they have at a path, of an end user, in both forms."""
    return [{f"{path}user_reference": user_reference}, {f"{path}user": user, f"{path}user_reference": None}]
