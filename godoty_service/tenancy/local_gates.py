"""How many turns a tenant may start in a minute and run at the same time on one server, where its policy says nothing.

They are counted in memory: such a turn costs the database nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from godoty_service.errors import RateLimited, TooManyTurns
from godoty_service.tenancy.policy import Policy

_BUSY_RETRY = 1.0  # seconds
_SLACK = 0.002  # seconds: the database's clock counts milliseconds, and so does what a caller is told
_TENANTS = 10_000  # whose rate is remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultLimits:
    """What holds on each server for a tenant whose policy sets no such limit.

    Attributes:
        turns_per_minute: Turns that may start in a minute.
        concurrent_turns: Turns that may run at the same time.
    """

    turns_per_minute: int
    concurrent_turns: int


class LocalGates:
    """A gate for each tenant: a bucket that fills steadily, and the turns that are inside."""

    def __init__(self, limits: DefaultLimits, *, tick: Callable[[], float] = time.monotonic) -> None:
        """Build it.

        Args:
            limits: What holds where a policy says nothing.
            tick: Seconds of a clock that never turns back.
        """
        self._limits = limits
        self._tick = tick
        self._buckets: dict[str, tuple[float, float]] = {}  # by tenant: turns that may start, and as of when
        self._running: dict[str, set[str]] = {}

    def check(self, tenant_id: str, policy: Policy) -> None:
        """Refuse a turn that may not start yet.

        Raises:
            RateLimited: Too many turns have started.
        """
        if policy.turns_per_minute is None and (missing := 1 - self._filled(tenant_id)) > 0:
            raise rate_limited(missing * 60 / self._limits.turns_per_minute)

    def enter(self, tenant_id: str, turn_id: str, policy: Policy) -> None:
        """Let a turn in.

        Raises:
            RateLimited: Too many turns have started.
            TooManyTurns: Too many turns are running.
        """
        running = self._running.get(tenant_id, ())
        if policy.concurrent_turns is None and len(running) >= self._limits.concurrent_turns:
            raise too_many_turns(self._limits.concurrent_turns)
        self.check(tenant_id, policy)
        if policy.turns_per_minute is None:
            self._remember(tenant_id, self._filled(tenant_id) - 1)
        if policy.concurrent_turns is None:
            self._running.setdefault(tenant_id, set()).add(turn_id)

    def leave(self, tenant_id: str, turn_id: str) -> None:
        """Let a turn out, if it is inside."""
        running = self._running.get(tenant_id, set())
        running.discard(turn_id)
        if not running:
            self._running.pop(tenant_id, None)

    def _filled(self, tenant_id: str) -> float:
        most, now = self._limits.turns_per_minute, self._tick()
        left, then = self._buckets.get(tenant_id, (most, now))
        return min(most, left + (now - then) * most / 60)

    def _remember(self, tenant_id: str, left: float) -> None:
        if len(self._buckets) >= _TENANTS:
            self._buckets.clear()
        self._buckets[tenant_id] = (left, self._tick())


def rate_limited(wait: float) -> RateLimited:
    """Refuse a turn that may start in so many seconds."""
    return RateLimited(
        "The tenant has started as many turns as it may in a minute.", quota="turns/minute", retry_after=wait + _SLACK
    )


def too_many_turns(most: int) -> TooManyTurns:
    """Refuse a turn beside so many."""
    return TooManyTurns(
        f"As many turns of the tenant are running as may at the same time: {most}.",
        quota="turns/concurrent",
        retry_after=_BUSY_RETRY,
    )
