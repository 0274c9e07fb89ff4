"""Shifts the system clock of a process, for tests of servers whose clock is wrong."""

import time
from datetime import datetime, timedelta, tzinfo

from godoty_service import clock

SKEW = "GODOTY_TEST_CLOCK_SKEW"  # seconds by which a process's clock is ahead


def skew(seconds: float) -> None:
    """Shift this process's system clock, but not the monotonic one."""
    ahead = timedelta(seconds=seconds)
    real_time, real_time_ns = time.time, time.time_ns

    class Skewed(datetime):
        """A datetime whose `now` is shifted."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a plain one, as it is stored
            return datetime.now(tz) + ahead

    clock.datetime = Skewed  # type: ignore[attr-defined]
    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_time_ns() + int(seconds * 1_000_000_000)
