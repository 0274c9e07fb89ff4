"""Hours, days and months of a time zone, as stretches of UTC. Pure.

A day is as long as the zone says: 23 or 25 hours where clocks change. The hour that clocks repeat is two hours, told
apart by their offset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

_STEP = timedelta(hours=6)  # no zone changes its offset twice within
_HOUR, _DAY, _LONGEST_MONTH = timedelta(hours=1), timedelta(days=1), timedelta(days=31)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeGroup(StrEnum):
    """What time is cut into."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time in which a zone keeps one offset.

    Attributes:
        start: Where it begins, or is begun to be looked at.
        end: Where it ends, just after its last moment.
        offset: What the zone adds to UTC.
        change: When the clocks were changed to that offset, if that is `start`.
    """

    start: datetime
    end: datetime
    offset: timedelta
    change: datetime | None = None

    @property
    def offset_text(self) -> str:
        """The offset as "+05:45"."""
        minutes = self.offset // timedelta(minutes=1)
        return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def spans(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[Span]:
    """Cut a stretch of time where the zone's clocks change."""
    change = _change_before(zone, start)
    while start < end:
        next_change = _change_after(zone, start, end)
        until = end if next_change is None else next_change
        yield Span(start=start, end=until, offset=_offset(zone, start), change=change)
        start = change = until


def cell_start(group: TimeGroup, zone: ZoneInfo, moment: datetime, span: Span) -> datetime:
    """Tell when the hour, day or month of a moment begins, in UTC."""
    if group is TimeGroup.HOUR:
        begin = moment - (moment + span.offset - _EPOCH) % _HOUR
        return begin if span.change is None else max(begin, span.change)
    midnight = (moment + span.offset).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    first = midnight.replace(day=1) if group is TimeGroup.MONTH else midnight
    return first.replace(tzinfo=zone).astimezone(UTC)  # a midnight that clocks skip is the moment of the change


def cells(group: TimeGroup, start: datetime, end: datetime, span: Span) -> Iterator[tuple[datetime, datetime]]:
    """Cut a stretch of a span where its days or months begin; hours are left in one."""
    while start < end:
        until = end if group is TimeGroup.HOUR else min(_next_midnight(group, start + span.offset) - span.offset, end)
        yield start, until
        start = until


def _next_midnight(group: TimeGroup, local: datetime) -> datetime:
    """Tell when the next day or month begins after a time of a clock, by that clock."""
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return day + _DAY if group is TimeGroup.DAY else (day.replace(day=1) + _LONGEST_MONTH).replace(day=1)


def _change_before(zone: ZoneInfo, moment: datetime) -> datetime | None:
    """Tell when clocks were changed within the hour before a moment, or at it: only then does it shorten that hour."""
    return _change_after(zone, moment - timedelta(hours=2), moment + timedelta(microseconds=1))


def _change_after(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """Tell the first time after `start` and before `end` at which the offset is another."""
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


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
