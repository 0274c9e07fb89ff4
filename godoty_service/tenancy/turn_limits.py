"""Limits how many turns a tenant may start in a minute and run at the same time.

A policy's limits hold across all servers, counted in MongoDB (owns `turn_limits`). If a policy sets none, the default
limits hold on each server, counted in memory, so that such a turn costs the database nothing.
"""

import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.errors import QuotaExceeded, RateLimited, StorageError, TooManyTurns
from godoty_service.mongo.collection import Collection as MongoCollection
from godoty_service.mongo.collection import Document
from godoty_service.tenancy.auth import KeyLimits
from godoty_service.tenancy.policies import Policy

log = structlog.get_logger(__name__)

_RATE, _CONCURRENT, _KEY_RATE = "turns/minute", "turns/concurrent", "key_turns/minute"  # quotas in errors
_MINUTE = 60_000  # milliseconds
_CACHED_TENANTS = 10_000  # token buckets, and refusals, that are cached
_CONCURRENCY_RETRY = 1.0  # seconds
_CLOCK_STEP = 0.002  # seconds: the database's clock and retry delays count milliseconds

FindLiving = Callable[[Collection[str]], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultLimits:
    """Limits on each server for a tenant whose policy does not set them.

    Attributes:
        turns_per_minute: Maximum number of turns that start in a minute.
        concurrent_turns: Maximum number of turns that run at the same time.
    """

    turns_per_minute: int
    concurrent_turns: int


class LocalTurnLimiter:
    """Counts one server's turns in memory: per tenant a token bucket and the set of running turns."""

    def __init__(self, limits: DefaultLimits, *, tick: Callable[[], float] = time.monotonic) -> None:
        """Create the limiter.

        Args:
            limits: The limits if a policy sets none.
            tick: Returns the seconds of a monotonic clock.
        """
        self._limits = limits
        self._tick = tick
        self._buckets: dict[str, tuple[float, float]] = {}  # by tenant: tokens, and the time of that count
        self._running: dict[str, set[str]] = {}

    def check(self, tenant_id: str, policy: Policy) -> None:
        """Refuse a turn that may not start yet.

        Raises:
            RateLimited: The tenant's token bucket is empty.
        """
        if policy.turns_per_minute is None and (missing := 1 - self._tokens(tenant_id)) > 0:
            per_minute = self._limits.turns_per_minute
            raise _rate_limited(per_minute, missing * 60 / per_minute)

    def acquire(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Admit a turn.

        Raises:
            RateLimited: The tenant's token bucket is empty.
            TooManyTurns: Too many of its turns are running.
        """
        running = self._running.get(tenant_id, ())
        if policy.concurrent_turns is None and len(running) >= self._limits.concurrent_turns:
            raise _too_many_turns(self._limits.concurrent_turns)
        self.check(tenant_id, policy)
        if policy.turns_per_minute is None:
            self._set_tokens(tenant_id, self._tokens(tenant_id) - 1)
        if policy.concurrent_turns is None:
            self._running.setdefault(tenant_id, set()).add(turn_id)

    def release(self, tenant_id: str, turn_id: str) -> None:
        """Release a turn; no-op if it is not running."""
        running = self._running.get(tenant_id, set())
        running.discard(turn_id)
        if not running:
            self._running.pop(tenant_id, None)

    def _tokens(self, tenant_id: str) -> float:
        capacity, now = self._limits.turns_per_minute, self._tick()
        tokens, counted_at = self._buckets.get(tenant_id, (capacity, now))
        return min(capacity, tokens + (now - counted_at) * capacity / 60)

    def _set_tokens(self, tenant_id: str, tokens: float) -> None:
        if len(self._buckets) >= _CACHED_TENANTS:
            self._buckets.clear()
        self._buckets[tenant_id] = (tokens, self._tick())


class TurnLimiter:
    """Applies a policy's limits across all servers, and the default limits through a `LocalTurnLimiter`.

    The rate is a token bucket that holds a minute's turns and refills steadily. One atomic update admits a turn. A
    refused tenant is refused from memory until its next token, so that a flood does not reach the database.
    """

    COLLECTION = "turn_limits"

    def __init__(
        self, collection: MongoCollection, *, replica_id: str, living: FindLiving, defaults: DefaultLimits
    ) -> None:
        """Create the limiter.

        Args:
            collection: `turn_limits`.
            replica_id: This server.
            living: Returns which of some servers are alive.
            defaults: The limits on this server if a policy sets none.
        """
        self._collection = collection
        self._replica_id = replica_id
        self._find_living = living
        self._local = LocalTurnLimiter(defaults)
        self._blocked_until: dict[str, tuple[int, float]] = {}  # by bucket: the rate that refused, and until when
        self._running: set[str] = set()  # this server's turns, from before they are admitted
        self._unreleased: dict[str, str] = {}  # ended turns whose release failed, and their tenants

    def check(self, tenant_id: str, policy: Policy) -> None:
        """Refuse, from memory, a tenant that may not start a turn yet.

        Raises:
            RateLimited: Its token bucket is empty, or its policy allows no turns.
            TooManyTurns: Its policy allows no turns.
        """
        _refuse_closed(policy)
        self._local.check(tenant_id, policy)
        rate, until = self._blocked_until.get(tenant_id, (0, 0.0))
        if rate == policy.turns_per_minute and (wait := until - time.monotonic()) > 0:
            raise _rate_limited(rate, wait)

    async def acquire(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Admit a turn. If the database fails, it may be admitted all the same: call `release` in any case.

        Raises:
            RateLimited: The tenant's token bucket is empty.
            TooManyTurns: Too many of its turns are running.
        """
        _refuse_closed(policy)
        self._local.acquire(tenant_id, turn_id, policy)
        if policy.turns_per_minute is None and policy.concurrent_turns is None:
            return
        self._running.add(turn_id)
        if await self._try_acquire(tenant_id, turn_id, policy):
            return
        if await self._release_stale(tenant_id) and await self._try_acquire(tenant_id, turn_id, policy):
            return
        self._local.release(tenant_id, turn_id)
        self._running.discard(turn_id)
        raise await self._refusal(tenant_id, policy)

    def check_key(self, key_id: str | None, limits: KeyLimits) -> None:
        """Refuse, from memory, an API key that may not start a turn yet.

        Raises:
            RateLimited: Its token bucket is empty, or it may start no turns.
        """
        rate = limits.turns_per_minute
        if rate == 0:
            raise RateLimited("The API key may start no turns: its limit of turns a minute is 0.", quota=_KEY_RATE)
        blocked_rate, until = self._blocked_until.get(_bucket_of_key(key_id), (0, 0.0))
        if rate is not None and rate == blocked_rate and (wait := until - time.monotonic()) > 0:
            raise _rate_limited(rate, wait, quota=_KEY_RATE)

    async def acquire_key(self, key_id: str | None, limits: KeyLimits) -> None:
        """Admit a turn under the limit of the API key that starts it.

        Raises:
            RateLimited: The key's token bucket is empty, or it may start no turns.
        """
        rate = limits.turns_per_minute
        if rate is None:
            return
        self.check_key(key_id, limits)
        bucket = _bucket_of_key(key_id)
        if not await self._try_acquire(bucket, "", Policy(turns_per_minute=rate)):
            raise _rate_limited(rate, await self._block(bucket, rate), quota=_KEY_RATE)

    async def release(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Release a turn; if the database fails, `run` retries."""
        self._local.release(tenant_id, turn_id)
        self._running.discard(turn_id)
        if policy.concurrent_turns is not None:
            await self._try_release(tenant_id, turn_id)

    async def erase(self, tenant_id: str, key_ids: Collection[str]) -> None:
        """Delete the counts of a tenant and of some of its API keys."""
        await self._collection.delete_many({"_id": {"$in": [tenant_id, *map(_bucket_of_key, key_ids)]}})

    async def run(self, interval: float) -> None:
        """Retry failed releases every `interval` seconds, until cancelled."""
        await run_every(interval, self._retry_releases, failure="turn_limit_not_released")

    async def _retry_releases(self) -> None:
        for turn_id, tenant_id in self._unreleased.copy().items():
            await self._try_release(tenant_id, turn_id)

    async def _try_release(self, tenant_id: str, turn_id: str) -> None:
        try:
            await self._collection.update_one({"_id": tenant_id}, {"$unset": {f"running.{turn_id}": ""}})
        except StorageError as error:
            log.warning("turn_limit_not_released", turn_id=turn_id, error=str(error))
            self._unreleased[turn_id] = tenant_id
        else:
            self._unreleased.pop(turn_id, None)

    async def _try_acquire(self, tenant_id: str, turn_id: str, policy: Policy) -> bool:
        conditions: list[Document] = []
        changes: Document = {}
        if policy.turns_per_minute is not None:
            conditions.append({"$gte": [_tokens(policy.turns_per_minute), 1]})
            changes |= {"tokens": {"$subtract": [_tokens(policy.turns_per_minute), 1]}, "time": "$$NOW"}
        if policy.concurrent_turns is not None:
            conditions.append({"$lt": [_running_count(), policy.concurrent_turns]})
            changes[f"running.{turn_id}"] = {"$literal": self._replica_id}
        await self._collection.update_one({"_id": tenant_id}, {"$setOnInsert": {"running": {}}}, upsert=True)
        return await self._collection.update_one({"_id": tenant_id, "$expr": {"$and": conditions}}, [{"$set": changes}])

    async def _release_stale(self, tenant_id: str) -> bool:
        """Release the turns of dead servers, and this server's ended ones; return whether there were any.

        An ended turn is still counted if its late write admitted it after its release.
        """
        found = await self._collection.find_one({"_id": tenant_id}, fields={"running": 1}) or {}
        running: dict[str, str] = found.get("running", {})
        living = await self._find_living(set(running.values()))
        stale = [
            turn_id
            for turn_id, replica_id in running.items()
            if replica_id not in living or (replica_id == self._replica_id and turn_id not in self._running)
        ]
        if stale:
            unset = {f"running.{turn_id}": "" for turn_id in stale}
            await self._collection.update_one({"_id": tenant_id}, {"$unset": unset})
        return bool(stale)

    async def _refusal(self, tenant_id: str, policy: Policy) -> QuotaExceeded:
        rate, concurrent = policy.turns_per_minute, policy.concurrent_turns
        if concurrent is not None:
            found = await self._collection.find_one({"_id": tenant_id}, fields={"running": 1}) or {}
            if rate is None or len(found.get("running", {})) >= concurrent:
                return _too_many_turns(concurrent)
        return _rate_limited(rate or 0, await self._block(tenant_id, rate or 0))

    async def _block(self, bucket: str, rate: int) -> float:
        """Refuse a bucket from memory until its next token; return the seconds until then."""
        found = await self._collection.find_one({"_id": bucket}, fields={"available": _tokens(rate)}) or {}
        wait: float = max(0.0, 1 - found.get("available", 1)) * 60 / (rate or 1)
        if len(self._blocked_until) >= _CACHED_TENANTS:
            self._blocked_until.clear()
        self._blocked_until[bucket] = (rate, time.monotonic() + wait)
        return wait


def _refuse_closed(policy: Policy) -> None:
    """Refuse a turn under a policy that allows none; no retry helps.

    Raises:
        RateLimited: It allows no turns a minute.
        TooManyTurns: It allows no concurrent turns.
    """
    if policy.turns_per_minute == 0:
        raise RateLimited("The tenant's policy allows no turns: its limit of turns a minute is 0.", quota=_RATE)
    if policy.concurrent_turns == 0:
        raise TooManyTurns(
            "The tenant's policy allows no turns: its limit of concurrent turns is 0.", quota=_CONCURRENT
        )


def _bucket_of_key(key_id: str | None) -> str:
    """Return the id of a key's document; no id of a tenant has a colon."""
    return f"key:{key_id}"


def _rate_limited(per_minute: int, wait: float, *, quota: str = _RATE) -> RateLimited:
    retry_after = wait + _CLOCK_STEP
    return RateLimited(
        f"Rate limit reached: {per_minute:,} turns a minute; retry in {retry_after:.1f} s.",
        quota=quota,
        retry_after=retry_after,
    )


def _too_many_turns(limit: int) -> TooManyTurns:
    return TooManyTurns(
        f"Concurrency limit reached: {limit:,} turns of the tenant are running; retry when one has ended.",
        quota=_CONCURRENT,
        retry_after=_CONCURRENCY_RETRY,
    )


def _tokens(per_minute: int) -> Any:
    """Return an expression for the tokens that are in the bucket now."""
    elapsed = {"$subtract": ["$$NOW", {"$ifNull": ["$time", "$$NOW"]}]}
    refilled = {
        "$add": [{"$ifNull": ["$tokens", per_minute]}, {"$divide": [{"$multiply": [elapsed, per_minute]}, _MINUTE]}]
    }
    return {"$min": [per_minute, refilled]}


def _running_count() -> Any:
    return {"$size": {"$objectToArray": {"$ifNull": ["$running", {}]}}}
