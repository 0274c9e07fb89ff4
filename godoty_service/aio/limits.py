"""Limits the concurrent calls of each tenant on a server: those that last as long as turns, and all others."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from godoty_service.errors import QuotaExceeded

_RETRY_AFTER = 1.0  # seconds


class TooManyCalls(QuotaExceeded):
    """The tenant has reached its limit of open calls on this server."""

    reason = "RATE_LIMITED"


class ConcurrencyLimiter:
    """Counts the open calls of each tenant, in memory."""

    def __init__(self, *, turn_methods: Collection[str], streams: int, others: int) -> None:
        """Create a limiter without open calls.

        Args:
            turn_methods: The full names of the methods that stream turns or wait for them: long calls that cost little.
            streams: The most open calls of these methods, per tenant.
            others: The most open calls of all other methods, per tenant.
        """
        self._turn_methods = frozenset(turn_methods)
        self._limits = {"streams/concurrent": streams, "calls/concurrent": others}
        self._open: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def acquire(self, tenant_id: str, method: str) -> Iterator[None]:
        """Count a call as open while the block runs.

        Raises:
            TooManyCalls: The tenant has reached its limit.
        """
        quota = "streams/concurrent" if method in self._turn_methods else "calls/concurrent"
        limit, key = self._limits[quota], (tenant_id, quota)
        if self._open[key] >= limit:
            raise TooManyCalls(
                f"Too many open calls of the tenant on this server: {limit} are allowed; retry when one has ended.",
                quota=quota,
                retry_after=_RETRY_AFTER,
            )
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
