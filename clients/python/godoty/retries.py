"""Decides whether a call whose connection broke is made again, and when."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from godoty.errors import GodotyError

_FIRST, _LONGEST = 0.1, 2.0  # seconds

Clock = Callable[[], float]

UNAVAILABLE = {"STORAGE_UNAVAILABLE", "SHUTTING_DOWN", "TOO_MANY_WRONG_KEYS", "RATE_LIMITED"}
"""Reasons of servers that cannot take a call at the moment."""


class Retries:
    """The retries of one call, which end when nothing has arrived for a time.

    Args:
        clock: The seconds of a monotonic clock.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._since: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether nothing has arrived since a failure."""
        return self._since is not None

    def reset(self) -> None:
        """Record that something has arrived."""
        if self._since is not None:
            self._count, self._since = 0, None

    def delay(self, error: GodotyError, *, within: float, deadline: float | None = None) -> float | None:
        """Return the seconds to wait before the next attempt; None: there is none.

        Args:
            error: The error; a `retry_delay` of the server counts.
            within: Seconds after the first failure in which attempts are made.
            deadline: The time of the clock at which attempts end as well.
        """
        now = self._clock()
        if self._since is None:
            self._since = now
        if error.retry_delay is not None:
            wait = error.retry_delay.total_seconds()
        else:
            wait = min(_FIRST * 2**self._count, _LONGEST) * random.uniform(0.5, 1)  # noqa: S311 - it spreads load
        self._count += 1
        end = self._since + within if deadline is None else min(self._since + within, deadline)
        return wait if now + wait <= end else None
