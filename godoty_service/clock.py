"""Time in UTC, in milliseconds as MongoDB stores it, so that a stored time reads back equal."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def utc_now() -> datetime:
    """Return the system clock's time. Stored times come from the `SynchronizedClock` instead."""
    return to_millisecond(datetime.now(UTC))


def to_millisecond(time: datetime) -> datetime:
    """Truncate a time to the stored precision."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def milliseconds_of(time: datetime) -> int:
    """Return the milliseconds of a time since 1970."""
    return (time - _EPOCH) // _MILLISECOND


def from_milliseconds(milliseconds: int) -> datetime:
    """Return the time at a number of milliseconds since 1970."""
    return _EPOCH + milliseconds * _MILLISECOND
