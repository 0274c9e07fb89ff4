"""How many turns a tenant may start in a minute and run at the same time, across all servers. Owns `gates`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog

from godoty_service.errors import QuotaExceeded, StorageError
from godoty_service.mongo import Collection as MongoCollection
from godoty_service.mongo import Document
from godoty_service.tenancy.local_gates import DefaultLimits, LocalGates, rate_limited, too_many_turns
from godoty_service.tenancy.policy import Policy

log = structlog.get_logger(__name__)

_MINUTE = 60_000  # milliseconds
_TENANTS = 10_000  # whose refusals are remembered

Living = Callable[[Collection[str]], Awaitable[set[str]]]


class Gates:
    """A gate for each tenant whose policy sets such limits; the others pass this server's own (`local_gates.py`).

    The rate is a bucket that fills steadily: as many turns at once as fit into a minute, and then one each time that
    a minute's share of one has passed. One atomic operation lets a turn in; a tenant that was refused is refused
    from memory until then, so that a flood does not reach the database.
    """

    def __init__(
        self, collection: MongoCollection, *, replica_id: str, living: Living, defaults: DefaultLimits
    ) -> None:
        """Build it.

        Args:
            collection: Where gates are kept.
            replica_id: This server.
            living: Tells which of some servers live.
            defaults: What holds on this server where a policy sets no limit.
        """
        self._gates = collection
        self._replica_id = replica_id
        self._living = living
        self._local = LocalGates(defaults)
        self._shut: dict[str, tuple[int, float]] = {}  # by tenant: the rate that refused it, and until when
        self._inside: set[str] = set()  # this server's turns, from before they enter
        self._leaving: dict[str, str] = {}  # turns that have ended and could not be let out, and their tenants

    def check(self, tenant_id: str, policy: Policy) -> None:
        """Refuse, from memory, a tenant that may not start a turn yet.

        Raises:
            RateLimited: Its next turn may not start yet.
        """
        self._local.check(tenant_id, policy)
        rate, until = self._shut.get(tenant_id, (0, 0.0))
        if rate == policy.turns_per_minute and (left := until - time.monotonic()) > 0:
            raise rate_limited(left)

    async def enter(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Let a turn in. Where the database fails it may be in: `leave` lets it out.

        Raises:
            RateLimited: Too many turns have started.
            TooManyTurns: Too many turns are running.
        """
        self._local.enter(tenant_id, turn_id, policy)
        if policy.turns_per_minute is None and policy.concurrent_turns is None:
            return
        self._inside.add(turn_id)
        if await self._try(tenant_id, turn_id, policy):
            return
        if await self._forget_dead(tenant_id) and await self._try(tenant_id, turn_id, policy):
            return
        self._local.leave(tenant_id, turn_id)
        self._inside.discard(turn_id)
        raise await self._refusal(tenant_id, policy)

    async def leave(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Let a turn out; where the database fails, `run` goes on trying."""
        self._local.leave(tenant_id, turn_id)
        self._inside.discard(turn_id)
        if policy.concurrent_turns is not None:
            await self._let_out(tenant_id, turn_id)

    async def run(self, interval: float) -> None:
        """Let out for ever, every so many seconds, turns that could not be let out when they ended."""
        while True:
            await asyncio.sleep(interval)
            for turn_id, tenant_id in self._leaving.copy().items():
                await self._let_out(tenant_id, turn_id)

    async def _let_out(self, tenant_id: str, turn_id: str) -> None:
        try:
            await self._gates.update_one({"_id": tenant_id}, {"$unset": {f"running.{turn_id}": ""}})
        except StorageError as error:
            log.warning("gate_not_left", turn_id=turn_id, error=str(error))
            self._leaving[turn_id] = tenant_id
        else:
            self._leaving.pop(turn_id, None)

    async def _try(self, tenant_id: str, turn_id: str, policy: Policy) -> bool:
        conditions: list[Document] = []
        changes: Document = {}
        if policy.turns_per_minute is not None:
            conditions.append({"$gte": [_filled(policy.turns_per_minute), 1]})
            changes |= {"tokens": {"$subtract": [_filled(policy.turns_per_minute), 1]}, "time": "$$NOW"}
        if policy.concurrent_turns is not None:
            conditions.append({"$lt": [_running(), policy.concurrent_turns]})
            changes[f"running.{turn_id}"] = {"$literal": self._replica_id}
        await self._gates.update_one({"_id": tenant_id}, {"$setOnInsert": {"running": {}}}, upsert=True)
        return await self._gates.update_one({"_id": tenant_id, "$expr": {"$and": conditions}}, [{"$set": changes}])

    async def _forget_dead(self, tenant_id: str) -> bool:
        """Let out the turns of dead servers, and those of this one that are over; return whether there were any.

        One that is over is still counted where its entry landed late, after it was let out.
        """
        found = await self._gates.find_one({"_id": tenant_id}, fields={"running": 1}) or {}
        running: dict[str, str] = found.get("running", {})
        living = await self._living(set(running.values()))
        dead = [
            turn_id
            for turn_id, replica_id in running.items()
            if replica_id not in living or (replica_id == self._replica_id and turn_id not in self._inside)
        ]
        if dead:
            await self._gates.update_one({"_id": tenant_id}, {"$unset": {f"running.{turn_id}": "" for turn_id in dead}})
        return bool(dead)

    async def _refusal(self, tenant_id: str, policy: Policy) -> QuotaExceeded:
        rate, most = policy.turns_per_minute, policy.concurrent_turns
        filled = {"filled": _filled(rate)} if rate is not None else {}
        found = await self._gates.find_one({"_id": tenant_id}, fields={"running": 1, **filled}) or {}
        if most is not None and (rate is None or len(found.get("running", {})) >= most):
            return too_many_turns(most)
        wait = max(0.0, 1 - found.get("filled", 1)) * 60 / (rate or 1)
        if len(self._shut) >= _TENANTS:
            self._shut.clear()
        self._shut[tenant_id] = (rate or 0, time.monotonic() + wait)
        return rate_limited(wait)


def _filled(per_minute: int) -> Any:
    """Express how full the bucket is now."""
    passed = {"$subtract": ["$$NOW", {"$ifNull": ["$time", "$$NOW"]}]}
    grown = {
        "$add": [{"$ifNull": ["$tokens", per_minute]}, {"$divide": [{"$multiply": [passed, per_minute]}, _MINUTE]}]
    }
    return {"$min": [per_minute, grown]}


def _running() -> Any:
    return {"$size": {"$objectToArray": {"$ifNull": ["$running", {}]}}}
