"""Session stores of several servers, and turns that acquire and end sessions."""

from datetime import timedelta
from typing import Any

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.mongo.client import Database
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import SessionStore
from godoty_service.users.references import EndUser

LEASE = timedelta(minutes=10)  # no busy machine loses it


async def session_store(database: Database, name: str, *, alive: bool = True) -> SessionStore:
    """Return a server's store of the sessions; without `alive` the server has sent no heartbeat."""
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id=name, lease=LEASE)
    if alive:
        await replicas.heartbeat()
    return SessionStore(database.collection("sessions"), replicas=replicas)


async def lapse(replicas: ReplicaHeartbeats) -> None:
    """Let a server have been silent for longer than a lease, by the database's clock and by its own."""
    silent = LEASE + timedelta(seconds=1)
    earlier = {"heartbeat_time": {"$subtract": ["$heartbeat_time", silent // timedelta(milliseconds=1)]}}
    assert await replicas._replicas.update_one({"_id": replicas.replica_id}, [{"$set": earlier}])
    replicas._last_heartbeat -= silent.total_seconds()


async def acquire(sessions: SessionStore, turn_id: str = "turn", session_id: str = "talk", **others: Any) -> Claim:
    """Acquire a session for a turn."""
    wanted: dict[str, Any] = {
        "text": f"text of {turn_id}",
        "model": None,
        "default_model": "default",
        "user": None,
    } | others
    if wanted["user"] is not None:
        wanted["user"] = EndUser(reference=f"user_of_{wanted['user']}", name=wanted["user"])
    tenant_id = wanted.pop("tenant_id", "tenant")
    return await sessions.acquire(tenant_id, session_id, turn_id=turn_id, **wanted)


async def finish(sessions: SessionStore, acquired: Claim, **changes: Any) -> bool:
    """End a turn."""
    session = acquired.session
    wanted: dict[str, Any] = {
        "message_count": 2,
        "state": {"a": 1},
        "summary": None,
        "totals": {"last_number": 1},
        "totals_revision": session.totals_revision,
    }
    return await sessions.finish(session, **(wanted | changes))
