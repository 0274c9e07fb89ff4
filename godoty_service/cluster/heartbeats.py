"""Heartbeats of the servers that share a database: one document per server, not per session. Owns `replicas`."""

import time
from collections.abc import Collection as Some
from datetime import timedelta
from typing import ClassVar

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.mongo.collection import Collection, Document, Index

log = structlog.get_logger(__name__)


class ReplicaHeartbeats:
    """This server's heartbeat, and whether other servers are alive, by the database's clock.

    Attributes:
        replica_id: This server.
        lease: How long after its last heartbeat this server counts as dead.
        epoch: How often this server's heartbeat has lapsed; a lease is valid only in the epoch it was acquired in.
    """

    COLLECTION = "replicas"
    # A server that has been silent for a day has no leases any more.
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("heartbeat_time", 1)], expire_after=86_400),)

    def __init__(self, collection: Collection, *, replica_id: str, lease: timedelta, schema: int = 1) -> None:
        """Create the heartbeat of a server; it is not written yet.

        Args:
            collection: `replicas`.
            replica_id: This server, new at each start.
            lease: How long after its last heartbeat this server counts as dead. It is stored with the heartbeat:
                servers may have different leases, as while a changed setting is rolled out.
            schema: The schema version of this build.
        """
        self._replicas = collection
        self._schema = schema
        self.lease = lease
        self._last_heartbeat = time.monotonic()
        self.epoch = 0
        self.replica_id = replica_id

    async def heartbeat(self) -> None:
        """Record that this server is alive."""
        begun = time.monotonic()
        alive = {"heartbeat_time": "$$NOW", "lease_ms": _milliseconds(self.lease), "schema": self._schema}
        await self._replicas.update_one({"_id": self.replica_id}, [{"$set": alive}], upsert=True)
        if begun - self._last_heartbeat > self.lease.total_seconds():
            self.epoch += 1  # another server may have taken over leases that were acquired before
            log.warning("heartbeat_lapsed", seconds=round(begun - self._last_heartbeat, 1))
        self._last_heartbeat = begun

    async def run(self, interval: float) -> None:
        """Send a heartbeat every `interval` seconds until cancelled."""
        await run_every(interval, self.heartbeat, failure="heartbeat_failed", at_once=True)

    def lease_valid(self, epoch: int) -> bool:
        """Return whether leases acquired in an epoch are still valid: no other server can have taken them over."""
        return epoch == self.epoch and time.monotonic() - self._last_heartbeat < self.lease.total_seconds()

    async def stop(self) -> None:
        """Delete this server's heartbeat, so that other servers need not wait for its lease to expire."""
        await self._replicas.delete_one({"_id": self.replica_id})

    async def lease_left(self, replica_id: str) -> float:
        """Return for how many seconds a server counts as alive without another heartbeat; 0: it counts as dead."""
        left = {"$subtract": [lease_end(self.lease), "$$NOW"]}
        found = await self._replicas.find({"_id": replica_id}, fields={"left": left})
        return max(0.0, found[0]["left"] / 1000) if found else 0.0

    async def alive(self, among: Some[str]) -> set[str]:
        """Return those of some servers that are alive."""
        if not among:
            return set()
        alive = {"$gt": [lease_end(self.lease), "$$NOW"]}
        found = await self._replicas.find({"_id": {"$in": list(among)}, "$expr": alive}, fields={"_id": 1})
        return {each["_id"] for each in found}


def lease_end(default: timedelta, last: object = "$heartbeat_time") -> Document:
    """Return the expression of the time at which a server counts as dead.

    Args:
        default: The lease of servers that have not stored theirs, as earlier builds.
        last: The expression of the server's last heartbeat.
    """
    return {"$add": [last, {"$ifNull": ["$lease_ms", _milliseconds(default)]}]}


def _milliseconds(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)
