"""How many calls of one tenant a server serves at the same time: streams of turns, and all others, each to a bound."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from godoty_service.errors import QuotaExceeded

_RETRY_AFTER = 1.0  # seconds


class TooManyCalls(QuotaExceeded):
    """As many calls of the tenant are open on this server as may be."""

    reason = "RATE_LIMITED"


class TenantCalls:
    """Counts the open calls of each tenant, in memory."""

    def __init__(self, *, turn_methods: Collection[str], streams: int, others: int) -> None:
        """Build it.

        Args:
            turn_methods: The full names of the methods whose calls are streams of turns: they are long and cost little.
            streams: How many of these a tenant may have open.
            others: How many of all other calls.
        """
        self._turn_methods = frozenset(turn_methods)
        self._most = {"streams/concurrent": streams, "calls/concurrent": others}
        self._open: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def open(self, tenant_id: str, method: str) -> Iterator[None]:
        """Count a call for as long as the block runs.

        Raises:
            TooManyCalls: It is one too many.
        """
        quota = "streams/concurrent" if method in self._turn_methods else "calls/concurrent"
        most, key = self._most[quota], (tenant_id, quota)
        if self._open[key] >= most:
            raise TooManyCalls(
                f"As many calls of the tenant are open on this server as may be: {most}.",
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
