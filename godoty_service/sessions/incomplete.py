"""Sessions that are being made from messages of elsewhere: no reader sees one before it is complete.

The document of such a session is inserted first, under an id that no caller can have, and with a lease like that of a
deletion. So everything that finds sessions by their end user or tenant to delete them finds it; and once its server is
dead, any server may delete it with what was copied for it. One update of the document makes it an ordinary session: a
session is complete, or it is not there.
"""

from dataclasses import dataclass
from typing import Any, Final

from godoty_service.clock import Clock, utc_now
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.mongo.collection import Collection
from godoty_service.sessions.codec import (
    new_session_document,
    origin_to_document,
    session_from_document,
    summary_to_document,
    with_lease,
)
from godoty_service.sessions.session import HistorySummary, Session, SessionAgent, SessionOrigin

_MAX_READ: Final = 1_000  # sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """What a session begins with, besides its messages.

    Attributes:
        user: The name of its end user, if the session has it.
        user_reference: The reference of its end user; None: none.
    """

    model: str
    agent: SessionAgent
    user: str | None
    user_reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The contents of a session when it is complete.

    Attributes:
        message_count: The number of its last message.
        state: The agent's state, as JSON.
        state_number: The number of the message that stores it; 0: it is empty; None: no message does.
        summary: The replacement of the oldest messages; None: there is none.
        origin: What it was forked from; None: nothing.
    """

    message_count: int
    state: str = "{}"
    state_number: int | None = None
    summary: HistorySummary | None = None
    origin: SessionOrigin | None = None


class IncompleteSessions:
    """The sessions that are being made, by tenant."""

    def __init__(self, collection: Collection, *, replicas: ReplicaHeartbeats, clock: Clock = utc_now) -> None:
        """Create it.

        Args:
            collection: `sessions`, which `SessionStore` owns.
            replicas: This server.
            clock: Returns the time.
        """
        self._sessions = collection
        self._replicas = replicas
        self._clock = clock

    async def insert(self, tenant_id: str, copy_id: str, new: NewSession) -> Session:
        """Insert a session; while this server has its lease, it alone may complete it, and no server deletes it."""
        initial = new_session_document(
            model=new.model, agent=new.agent, user=new.user, user_reference=new.user_reference, time=self._clock()
        )
        lease = {"turn_id": copy_id, "replica_id": self._replicas.replica_id, "text": "", "predecessors": []}
        # No caller's id has a slash.
        ids = {"tenant_id": tenant_id, "session_id": f"incomplete/{initial['_id']}", "incomplete": True}
        document = {**initial, **ids, "lease": lease, "fence": 1}
        await self._sessions.insert_one(document)
        return session_from_document(document)

    async def complete(self, session: Session, session_id: str, contents: Contents) -> Session | None:
        """Make a session an ordinary one.

        Args:
            session: The session, as it was inserted.
            session_id: The id by which callers name it.
            contents: Its contents.

        Returns:
            The session; None: it is being deleted.

        Raises:
            DuplicateKey: The tenant has a session with this id.
        """
        fields: dict[str, Any] = {
            "session_id": session_id,
            "lease": None,
            "message_count": contents.message_count,
            "state": contents.state,
            "state_number": contents.state_number,
            "context": summary_to_document(contents.summary),
            "update_time": self._clock(),
        }
        if contents.origin is not None:
            fields["origin"] = origin_to_document(contents.origin)
        if session.lease is None:
            raise RuntimeError("a session is inserted with a lease")
        leased = with_lease(session, session.lease)
        found = await self._sessions.find_one_and_update(leased, {"$set": fields, "$unset": {"incomplete": ""}})
        return session_from_document(found) if found is not None else None

    async def find(self) -> list[Session]:
        """Return some sessions that are being made, or were when their servers died."""
        return [
            session_from_document(each) for each in await self._sessions.find({"incomplete": True}, limit=_MAX_READ)
        ]
