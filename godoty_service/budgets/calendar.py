"""The days and months of a tenant's budgets, in its time zones: which window contains a time. Pure.

A tenant's time zone can change, from the start of one of its months on. The windows follow each other without a gap:
the last day and month of the old zone end where they would have ended, and the first ones of the new zone begin there.
So the first day of a new zone is shorter or longer than others, and no time belongs to two days.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog

from godoty_service.budgets.budget import BudgetWindow

log = structlog.get_logger(__name__)

UTC_ZONE = "UTC"
_DAY, _QUARTER = timedelta(days=1), timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZonePeriod:
    """The time in which a time zone is in force, up to the start of the next period.

    Attributes:
        zone: The name of the time zone.
        start: When it comes into force; None: it is the tenant's first.
        first_day: The day that begins at the start; empty: it is the tenant's first.
    """

    zone: str
    start: datetime | None = None
    first_day: str = ""

    def day(self, time: datetime) -> str:
        """Return the day that contains a time of the period, such as "2026-08-22"."""
        if self.zone == UTC_ZONE and not self.first_day:
            return f"{time:%Y-%m-%d}"
        return max(f"{time.astimezone(_zone(self.zone)):%Y-%m-%d}", self.first_day)

    def start_of(self, first: str, *, begins: bool) -> datetime:
        """Return the start of a day or month of the period.

        Args:
            first: Its first day.
            begins: The period begins with it.
        """
        if begins and self.start is not None:
            return self.start
        midnight = _midnight(self.zone, date.fromisoformat(first))
        return midnight if self.start is None else max(self.start, midnight)


@dataclass(frozen=True, slots=True)
class BudgetCalendar:
    """A tenant's time zones, the first one first."""

    periods: tuple[ZonePeriod, ...] = (ZonePeriod(zone=UTC_ZONE),)

    @classmethod
    def of(cls, zone: str) -> "BudgetCalendar":
        """Return the calendar of a tenant that has had one time zone."""
        return cls((ZonePeriod(zone=zone),))

    @property
    def last(self) -> ZonePeriod:
        """The newest period, which may begin in the future."""
        return self.periods[-1]

    @property
    def unit(self) -> timedelta:
        """A duration in multiples of which, counted in UTC, all days begin: no zone's offset has other minutes."""
        return _DAY if all(each.zone == UTC_ZONE for each in self.periods) else _QUARTER

    def day(self, time: datetime) -> str:
        """Return the day that contains a time, such as "2026-08-22"; a later time has no earlier day."""
        return self._period(time).day(time)

    def keys(self, time: datetime) -> dict[BudgetWindow, str]:
        """Return the key of each window that contains a time."""
        day = self.day(time)
        return {window: window.key(day) for window in BudgetWindow}

    def window_start(self, window: BudgetWindow, time: datetime) -> datetime | None:
        """Return the start of the window that contains a time; None: it has no start."""
        if window is BudgetWindow.TOTAL:
            return None
        period = self._period(time)
        key = window.key(period.day(time))
        first = key if window is BudgetWindow.DAY else f"{key}-01"
        return period.start_of(first, begins=bool(period.first_day) and key == window.key(period.first_day))

    def changed(self, zone: str, at: datetime) -> "BudgetCalendar":
        """Return the calendar with a new time zone from the start of the month after a time on.

        A change that is not in force at that time is replaced.
        """
        periods = tuple(each for each in self.periods if each.start is None or each.start <= at)
        last = periods[-1]
        if last.zone == zone:
            return BudgetCalendar(periods)
        month = date.fromisoformat(f"{last.day(at)[:7]}-01")
        first = (month + timedelta(days=31)).replace(day=1)
        start = last.start_of(first.isoformat(), begins=False)
        return BudgetCalendar((*periods, ZonePeriod(zone=zone, start=start, first_day=first.isoformat())))

    def _period(self, time: datetime) -> ZonePeriod:
        """Return the period that contains a time."""
        periods: Sequence[ZonePeriod] = self.periods
        for each in reversed(periods):
            if each.start is None or each.start <= time:
                return each
        return periods[0]


UTC_CALENDAR = BudgetCalendar()
CalendarOf = Callable[[str], Awaitable[BudgetCalendar]]


async def utc_calendar(_: str) -> BudgetCalendar:
    """Return the calendar of a tenant that has never had a time zone but UTC."""
    return UTC_CALENDAR


def _midnight(zone: str, day: date) -> datetime:
    """Return the start of a day, in UTC: the first of its times, if the clocks skip or repeat midnight."""
    return datetime(day.year, day.month, day.day, tzinfo=_zone(zone)).astimezone(UTC)


@cache
def _zone(name: str) -> ZoneInfo:
    """Return a time zone; a name that only another build knows is UTC."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        log.error("unknown_time_zone", time_zone=name)  # noqa: TRY400 - it needs no traceback
        return ZoneInfo(UTC_ZONE)
