"""A lease that is short enough to wait for, and long enough for a busy machine; and the end of a dead server's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymongo.database import Database

LEASE = 5.0  # seconds; a server that gets no CPU time or disk for three seconds does not lose it
HEARTBEAT = 0.3
SHORT_LEASE: dict[str, Any] = {"lease": LEASE, "heartbeat": HEARTBEAT}  # for a server in this process
SHORT_LEASE_ENVIRONMENT = {"GODOTY_LEASE": str(LEASE), "GODOTY_HEARTBEAT": str(HEARTBEAT)}  # for a server process
_PAST = datetime.fromtimestamp(0, UTC)
LONG_LEASE = 600.0  # seconds: no busy machine loses it
SURVIVOR: dict[str, Any] = {"lease": LONG_LEASE, "heartbeat": HEARTBEAT}  # for a server that outlives another
# For a server process that is killed: no heartbeat of it is under way then, which would be applied afterwards.
LONG_LEASE_ENVIRONMENT = {"GODOTY_LEASE": str(LONG_LEASE), "GODOTY_HEARTBEAT": "200"}


def end_leases(database: Database[dict[str, Any]], replica_id: str) -> None:
    """Let the leases of a server that was killed end at once: its sessions', and those of its webhooks."""
    database["replicas"].delete_one({"_id": replica_id})
    database["webhooks"].update_many({"lease_owner": replica_id}, {"$set": {"lease_until": _PAST}})
