"""Reads which turns hold a tenant's sessions, without the sessions' contents."""

from collections.abc import Collection as CollectionOf
from dataclasses import dataclass
from datetime import datetime

from godoty_service.ids import first_id
from godoty_service.mongo.collection import Collection, Document, Index

FIRST_TURN = "turn_"  # a deletion's id begins with another word
HELD_BY_TENANT = Index(keys=[("tenant_id", 1), ("lease.turn_id", 1)], where={"lease.turn_id": {"$gt": FIRST_TURN}})


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHolder:
    """A session's lease.

    Attributes:
        user: The name of the end user, if a build of schema 1 stored it.
        user_reference: The end user that the session belongs to; None: no turn has named one.
        turn_id: The turn or the deletion that holds the session, or has held it when its server died; None: none.
    """

    user: str | None
    user_reference: str | None
    turn_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingTurns:
    """The turns that hold a session.

    Attributes:
        tenant_id: The tenant.
        replica_id: The server that runs the newest one, or has run it until it died; empty: none does.
        turn_ids: The newest one, and the dead ones before it.
    """

    tenant_id: str
    replica_id: str
    turn_ids: tuple[str, ...]


class SessionHolders:
    """The holders of sessions, by tenant."""

    def __init__(self, collection: Collection) -> None:
        """Initialize the reads.

        Args:
            collection: `sessions`, which `SessionStore` owns.
        """
        self._sessions = collection

    async def of_sessions(self, tenant_id: str, session_ids: CollectionOf[str]) -> dict[str, SessionHolder]:
        """Return the holders of those of these sessions that exist."""
        query = {"tenant_id": tenant_id, "session_id": {"$in": list(session_ids)}}
        names = ("session_id", "user", "user_reference", "lease.turn_id", "lease.user", "lease.user_reference")
        fields = dict.fromkeys(names, 1)
        found: dict[str, SessionHolder] = {}
        for each in await self._sessions.find(query, fields=fields):
            lease = each.get("lease") or {}
            found[each["session_id"]] = SessionHolder(
                user=each["user"] or lease.get("user"),  # it becomes the session's when the turn ends
                user_reference=each.get("user_reference") or lease.get("user_reference"),
                turn_id=lease.get("turn_id"),
            )
        return found

    async def turn_ids(
        self, tenant_id: str, *, session_id: str | None = None, before: str | None = None, limit: int
    ) -> list[str]:
        """Return the newest turns that hold sessions of a tenant, those of dead servers included.

        Args:
            tenant_id: The tenant.
            session_id: Only this session's.
            before: Only turns that are older than this one.
            limit: The most turns to return.
        """
        older = {"$lt": before} if before is not None else {}
        query: Document = {"tenant_id": tenant_id, "lease.turn_id": {"$gt": FIRST_TURN, **older}}
        if session_id is not None:
            query["session_id"] = session_id
        found = await self._sessions.find(query, sort=[("lease.turn_id", -1)], limit=limit, fields={"lease.turn_id": 1})
        return [each["lease"]["turn_id"] for each in found]

    async def since(self, time: datetime) -> list[HoldingTurns]:
        """Return the turns that hold sessions of all tenants, by sessions whose newest one began after a time."""
        names = ("tenant_id", "lease.turn_id", "lease.replica_id", "lease.predecessors.turn_id")
        newest = {"lease.turn_id": {"$gt": first_id("turn", made=time)}}
        pipeline: list[Document] = [{"$match": newest}, {"$project": dict.fromkeys(names, 1)}]
        return [
            HoldingTurns(
                tenant_id=each["tenant_id"],
                replica_id=each["lease"]["replica_id"],
                turn_ids=tuple(one["turn_id"] for one in (each["lease"], *each["lease"].get("predecessors", ()))),
            )
            for each in await self._sessions.aggregate(pipeline, hint=HELD_BY_TENANT.keys)
        ]
