"""How many turns a tenant may start in a minute and run at the same time, across all servers. Owns `gates`."""

import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import QuotaExceeded, RateLimited, TooManyTurns
from godoty_service.mongo import Collection as MongoCollection
from godoty_service.mongo import Document
from godoty_service.tenancy.policy import Policy

_BUSY_RETRY = 1.0  # seconds
_MINUTE = 60_000  # milliseconds

Living = Callable[[Collection[str]], Awaitable[set[str]]]


class Gates:
    """A gate for each tenant that has such limits; the others pass without being counted.

    The rate is a bucket that fills steadily: as many turns at once as fit into a minute, and then one each time that
    a minute's share of one has passed. One atomic operation lets a turn in; a tenant that was refused is refused
    from memory until then, so that a flood does not reach the database.
    """

    def __init__(self, collection: MongoCollection, *, replica_id: str, living: Living, clock: Clock = utc_now) -> None:
        """Build it.

        Args:
            collection: Where gates are kept.
            replica_id: This server.
            living: Tells which of some servers live.
            clock: Tells the time.
        """
        self._gates = collection
        self._replica_id = replica_id
        self._living = living
        self._clock = clock
        self._shut: dict[str, float] = {}

    def check(self, tenant_id: str) -> None:
        """Refuse, from memory, a tenant that was refused a moment ago.

        Raises:
            RateLimited: Its next turn may not start yet.
        """
        if (left := self._shut.get(tenant_id, 0.0) - time.monotonic()) > 0:
            raise _rate_limited(left)

    async def enter(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Let a turn in.

        Raises:
            RateLimited: Too many turns have started.
            TooManyTurns: Too many turns are running.
        """
        if policy.turns_per_minute is None and policy.concurrent_turns is None:
            return
        if await self._try(tenant_id, turn_id, policy):
            return
        if await self._forget_dead(tenant_id) and await self._try(tenant_id, turn_id, policy):
            return
        raise await self._refusal(tenant_id, policy)

    async def leave(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Let a turn out."""
        if policy.concurrent_turns is not None:
            await self._gates.update_one({"_id": tenant_id}, {"$unset": {f"running.{turn_id}": ""}})

    async def _try(self, tenant_id: str, turn_id: str, policy: Policy) -> bool:
        conditions: list[Document] = []
        changes: Document = {"time": "$$NOW"}
        if policy.turns_per_minute is not None:
            conditions.append({"$gte": [_filled(policy.turns_per_minute), 1]})
            changes["tokens"] = {"$subtract": [_filled(policy.turns_per_minute), 1]}
        if policy.concurrent_turns is not None:
            conditions.append({"$lt": [_running(), policy.concurrent_turns]})
            changes[f"running.{turn_id}"] = {"$literal": self._replica_id}
        await self._gates.update_one({"_id": tenant_id}, {"$setOnInsert": {"running": {}}}, upsert=True)
        return await self._gates.update_one({"_id": tenant_id, "$expr": {"$and": conditions}}, [{"$set": changes}])

    async def _forget_dead(self, tenant_id: str) -> bool:
        """Let out the turns of dead servers; tells whether there were any."""
        found = await self._gates.find_one({"_id": tenant_id}, fields={"running": 1}) or {}
        running: dict[str, str] = found.get("running", {})
        living = await self._living(set(running.values()))
        dead = [turn_id for turn_id, replica_id in running.items() if replica_id not in living]
        if dead:
            await self._gates.update_one({"_id": tenant_id}, {"$unset": {f"running.{turn_id}": "" for turn_id in dead}})
        return bool(dead)

    async def _refusal(self, tenant_id: str, policy: Policy) -> QuotaExceeded:
        found = await self._gates.find_one({"_id": tenant_id}) or {}
        running = len(found.get("running", {}))
        if policy.concurrent_turns is not None and running >= policy.concurrent_turns:
            return TooManyTurns(
                f"{running} turns of the tenant are running, as many as may.",
                quota="turns/concurrent",
                retry_after=_BUSY_RETRY,
            )
        wait = 60.0 / (policy.turns_per_minute or 1)
        self._shut[tenant_id] = time.monotonic() + wait
        return _rate_limited(wait)


def _rate_limited(wait: float) -> RateLimited:
    return RateLimited(
        "The tenant has started as many turns as it may in a minute.", quota="turns/minute", retry_after=wait
    )


def _filled(per_minute: int) -> Any:
    """Express how full the bucket is now."""
    passed = {"$subtract": ["$$NOW", {"$ifNull": ["$time", "$$NOW"]}]}
    grown = {
        "$add": [{"$ifNull": ["$tokens", per_minute]}, {"$divide": [{"$multiply": [passed, per_minute]}, _MINUTE]}]
    }
    return {"$min": [per_minute, grown]}


def _running() -> Any:
    return {"$size": {"$objectToArray": {"$ifNull": ["$running", {}]}}}
