"""Time: always UTC, in the milliseconds that MongoDB keeps, so that what was written reads back equal."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the system clock's time. What is stored is dated by the `SynchronizedClock` instead."""
    return to_millisecond(datetime.now(UTC))


def to_millisecond(time: datetime) -> datetime:
    """Cut a time to the precision that is kept."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
