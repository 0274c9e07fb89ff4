"""Which servers live: one heartbeat a server, not one a session. Owns `replicas`."""

import asyncio
import time
from collections.abc import Collection as Some
from datetime import timedelta

import structlog

from godoty_service.errors import GodotyError
from godoty_service.mongo import Collection, Index

log = structlog.get_logger(__name__)

# A server that has been silent for a day holds nothing any more.
INDEXES = (Index(keys=[("beat", 1)], expire_after=86_400),)


class Replicas:
    """This server's heartbeat, and those of the others, by the database's clock.

    Attributes:
        replica_id: This server.
        lease: How long after its last heartbeat a server counts as dead.
        epoch: How often its heartbeat has lapsed; a lease is good only in the epoch in which it was claimed.
    """

    def __init__(self, collection: Collection, *, replica_id: str, lease: timedelta) -> None:
        """Build it.

        Args:
            collection: Where heartbeats are kept.
            replica_id: This server, new at each start.
            lease: How long after its last heartbeat a server counts as dead.
        """
        self._replicas = collection
        self.lease = lease
        self._last_beat = time.monotonic()
        self.epoch = 0
        self.replica_id = replica_id

    async def beat(self) -> None:
        """Say that this server lives."""
        begun = time.monotonic()
        await self._replicas.update_one({"_id": self.replica_id}, [{"$set": {"beat": "$$NOW"}}], upsert=True)
        if begun - self._last_beat > self.lease.total_seconds():
            self.epoch += 1  # somebody may have taken over what was claimed before
            log.warning("heartbeat_lapsed", seconds=round(begun - self._last_beat, 1))
        self._last_beat = begun

    async def run(self, interval: float) -> None:
        """Beat for ever, every so many seconds."""
        while True:
            try:
                await self.beat()
            except GodotyError as error:
                log.warning("heartbeat_failed", error=str(error))
            await asyncio.sleep(interval)

    def holds(self, epoch: int) -> bool:
        """Tell whether leases that were claimed in an epoch are good still: nobody can have taken them over."""
        return epoch == self.epoch and time.monotonic() - self._last_beat < self.lease.total_seconds()

    async def stop(self) -> None:
        """Say that this server is gone, so that nobody waits for it."""
        await self._replicas.delete_one({"_id": self.replica_id})

    async def lease_left(self, replica_id: str) -> float:
        """Return for how many seconds a server counts as alive without another heartbeat; 0: it counts as dead."""
        left = {"$subtract": [{"$add": ["$beat", self.lease // timedelta(milliseconds=1)]}, "$$NOW"]}
        found = await self._replicas.find({"_id": replica_id}, fields={"left": left})
        return max(0.0, found[0]["left"] / 1000) if found else 0.0

    async def living(self, among: Some[str]) -> set[str]:
        """Tell which of these servers live."""
        milliseconds = self.lease // timedelta(milliseconds=1)
        found = await self._replicas.find(
            {
                "_id": {"$in": list(among)},
                "$expr": {"$gt": ["$beat", {"$subtract": ["$$NOW", milliseconds]}]},
            },
            fields={"_id": 1},
        )
        return {each["_id"] for each in found}
