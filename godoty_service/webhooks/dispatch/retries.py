"""When failed deliveries are attempted again: exponential backoff with jitter, up to a time after which they fail."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

_FACTOR = 4
_LONGEST = timedelta(hours=4)  # between two attempts
_JITTER = 0.2  # of a pause, to either side
_MANY = 20  # attempts after which the pause is the longest one in any case
_LONGEST_PAUSE = timedelta(seconds=60)  # of an endpoint between two attempts of all its deliveries together


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """The schedule.

    Attributes:
        first: The pause after the first attempt; each further one is four times as long, at most four hours.
        window: How long after its creation a delivery is attempted for the last time.
    """

    first: timedelta
    window: timedelta

    def next_time(self, *, attempts: int, now: datetime, deadline: datetime) -> datetime | None:
        """Return when a delivery is attempted again; None: it has failed.

        The last attempt is at the deadline.

        Args:
            attempts: How many have failed.
            now: The current time.
            deadline: When it is attempted for the last time.
        """
        if now >= deadline:
            return None
        return min(now + self.pause(attempts), deadline)

    def pause(self, attempts: int) -> timedelta:
        """Return the pause after a number of failed attempts."""
        factor: int = _FACTOR ** min(attempts - 1, _MANY)
        pause = min(self.first * factor, _LONGEST)
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - it spreads load and protects no secret

    def endpoint_pause(self, failures: int) -> timedelta:
        """Return how long nothing is sent to an endpoint after a number of attempts that failed in a row."""
        factor: int = 2 ** min(failures - 1, _MANY) if failures else 0
        return min(self.first * factor, _LONGEST_PAUSE)
