"""Maps the hours, days and months of a time zone to ranges of UTC. Pure.

A day has 23 or 25 hours if the clocks change. An hour that the clocks repeat counts as two hours, which differ in their
offsets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

_STEP = timedelta(hours=6)  # no zone changes its offset twice within this time
_HOUR, _DAY, _LONGEST_MONTH = timedelta(hours=1), timedelta(days=1), timedelta(days=31)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeGroup(StrEnum):
    """The periods by which usage can be grouped."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetInterval:
    """A time range within which a zone's offset is constant.

    Attributes:
        start: The start: of the range that is examined, or a change of the clocks.
        end: The end, exclusive.
        offset: The zone's offset from UTC.
        change: When the clocks changed to this offset, if that is `start` or shortens its hour.
    """

    start: datetime
    end: datetime
    offset: timedelta
    change: datetime | None = None

    @property
    def offset_text(self) -> str:
        """The offset in the form "+05:45"."""
        minutes = self.offset // timedelta(minutes=1)
        return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def offset_intervals(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[OffsetInterval]:
    """Split a time range where the zone's clocks change."""
    change = _change_before(zone, start)
    while start < end:
        next_change = _change_after(zone, start, end)
        until = end if next_change is None else next_change
        yield OffsetInterval(start=start, end=until, offset=_offset(zone, start), change=change)
        start = change = until


def period_start(group: TimeGroup, zone: ZoneInfo, time: datetime, interval: OffsetInterval) -> datetime:
    """Return the start, in UTC, of the hour, day or month that contains a time."""
    if group is TimeGroup.HOUR:
        start = time - (time + interval.offset - _EPOCH) % _HOUR
        return start if interval.change is None else max(start, interval.change)
    midnight = (time + interval.offset).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    first = midnight.replace(day=1) if group is TimeGroup.MONTH else midnight
    return first.replace(tzinfo=zone).astimezone(UTC)  # a midnight that the clocks skip maps to the change


def split_periods(
    group: TimeGroup, start: datetime, end: datetime, interval: OffsetInterval
) -> Iterator[tuple[datetime, datetime]]:
    """Split a part of an interval where its days or months begin; hours are not split."""
    while start < end:
        until = (
            end
            if group is TimeGroup.HOUR
            else min(_next_midnight(group, start + interval.offset) - interval.offset, end)
        )
        yield start, until
        start = until


def _next_midnight(group: TimeGroup, local: datetime) -> datetime:
    """Return when the next day or month begins after a local time, in local time."""
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return day + _DAY if group is TimeGroup.DAY else (day.replace(day=1) + _LONGEST_MONTH).replace(day=1)


def _change_before(zone: ZoneInfo, time: datetime) -> datetime | None:
    """Return the change of the clocks up to two hours before a time, or at it: only such a change shortens its hour."""
    return _change_after(zone, time - timedelta(hours=2), time + timedelta(microseconds=1))


def _change_after(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """Return the first time after `start` and before `end` at which the offset differs."""
    offset = _offset(zone, start)
    low = start
    while low < end:
        high = min(low + _STEP, end)
        if _offset(zone, high) != offset:
            found = _bisect(zone, low, high, offset)
            return found if found < end else None
        low = high
    return None


def _bisect(zone: ZoneInfo, low: datetime, high: datetime, offset: timedelta) -> datetime:
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle <= low:
            middle = low + timedelta(seconds=1)
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def _offset(zone: ZoneInfo, time: datetime) -> timedelta:
    return time.astimezone(zone).utcoffset() or timedelta()
