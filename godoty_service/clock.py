"""Time in UTC, in milliseconds as MongoDB stores it, so that a stored time reads back equal."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the system clock's time. Stored times come from the `SynchronizedClock` instead."""
    return to_millisecond(datetime.now(UTC))


def to_millisecond(time: datetime) -> datetime:
    """Truncate a time to the stored precision."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
