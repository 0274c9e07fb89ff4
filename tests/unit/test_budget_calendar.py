"""The days and months of budgets in time zones, across changes of the clocks and of the zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.calendar import UTC_CALENDAR, BudgetCalendar, ZonePeriod

DAY, MONTH, TOTAL = BudgetWindow.DAY, BudgetWindow.MONTH, BudgetWindow.TOTAL
ZONES = sorted(name for name in available_timezones() if name not in ("Factory", "localtime"))
NOVEMBER = datetime(2026, 11, 17, 9, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def length(calendar: BudgetCalendar, time: datetime) -> timedelta:
    """Return the duration of the day that contains a time."""
    start = calendar.window_start(DAY, time)
    assert start is not None
    end = start
    while calendar.day(end) == calendar.day(time):
        end += calendar.unit
    return end - start


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 10, tzinfo=UTC), 23),
        ("Europe/Berlin", datetime(2026, 10, 25, 10, tzinfo=UTC), 25),
        ("Europe/Berlin", datetime(2026, 10, 26, 10, tzinfo=UTC), 24),
        ("America/Santiago", datetime(2026, 9, 6, 16, tzinfo=UTC), 23),  # its clocks skip midnight
        ("America/Havana", datetime(2026, 11, 1, 16, tzinfo=UTC), 25),  # they repeat it
        ("Australia/Lord_Howe", datetime(2026, 4, 5, 2, tzinfo=UTC), 24.5),
        ("UTC", NOVEMBER, 24),
    ],
)
def test_day_has_the_length_that_its_clocks_give_it(zone: str, noon: datetime, hours: float) -> None:
    """Also where a day begins or ends with the change."""
    assert length(BudgetCalendar.of(zone), noon) == hours * HOUR


@given(zone=st.sampled_from(ZONES), hours=st.integers(0, 24 * 365 * 4), quarters=st.integers(0, 3))
def test_windows_of_every_zone_follow_each_other(zone: str, hours: int, quarters: int) -> None:
    """A window's start is its first time; a unit of the calendar before it, the window before is in force."""
    calendar = BudgetCalendar.of(zone)
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours, minutes=15 * quarters)
    keys = calendar.keys(time)

    assert keys[MONTH] == keys[DAY][:7]
    for window in (DAY, MONTH):
        start = calendar.window_start(window, time)
        assert start is not None
        assert (start - datetime(2026, 1, 1, tzinfo=UTC)) % timedelta(minutes=15) == timedelta()
        assert calendar.keys(start)[window] == keys[window]
        assert calendar.keys(start - timedelta(milliseconds=1))[window] < keys[window]
        assert start <= time
    assert calendar.window_start(TOTAL, time) is None


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ("UTC", "America/New_York", "2026-12-01T00:00:00+00:00"),  # the first day has 29 hours
        ("UTC", "Asia/Tokyo", "2026-12-01T00:00:00+00:00"),  # and here 15
        ("Europe/Berlin", "UTC", "2026-11-30T23:00:00+00:00"),
        ("Etc/GMT+12", "Pacific/Kiritimati", "2026-12-01T12:00:00+00:00"),  # 26 hours apart: day 1 does not exist
        ("Pacific/Kiritimati", "Etc/GMT+12", "2026-11-30T10:00:00+00:00"),
    ],
)
def test_new_zone_is_in_force_from_the_next_month_of_the_old_one(old: str, new: str, start: str) -> None:
    """The old month ends as it began; the new one begins there, and each time is in one day and one month."""
    before = BudgetCalendar.of(old)
    after = before.changed(new, NOVEMBER)
    begin = datetime.fromisoformat(start)
    time = NOVEMBER
    while time < begin:
        assert after.keys(time) == before.keys(time)
        time += HOUR
    moment = timedelta(milliseconds=1)
    assert (after.keys(begin - moment)[MONTH], after.keys(begin)[MONTH]) == ("2026-11", "2026-12")
    assert after.window_start(MONTH, begin + 9 * timedelta(days=1)) == begin
    assert after.window_start(DAY, begin) == begin
    keys = [after.day(begin - 50 * HOUR + number * timedelta(minutes=15)) for number in range(400)]
    assert keys == sorted(keys)
    assert BudgetCalendar.of(new).keys(begin + timedelta(days=3)) == after.keys(begin + timedelta(days=3))
    january = after.window_start(MONTH, begin + timedelta(days=40))
    assert january == BudgetCalendar.of(new).window_start(MONTH, begin + timedelta(days=40))


def test_change_that_is_not_in_force_is_replaced() -> None:
    """The last one before the month begins counts, the zone in force cancels it; later it is a change of its own."""
    once = UTC_CALENDAR.changed("Asia/Tokyo", NOVEMBER)
    twice = once.changed("Europe/Berlin", NOVEMBER + HOUR)

    assert [each.zone for each in twice.periods] == ["UTC", "Europe/Berlin"]
    assert twice.changed("UTC", NOVEMBER + HOUR) == UTC_CALENDAR
    later = twice.changed("UTC", NOVEMBER + timedelta(days=20))
    assert [each.zone for each in later.periods] == ["UTC", "Europe/Berlin", "UTC"]
    assert later.last.start == datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert (twice.changed("Europe/Berlin", NOVEMBER), UTC_CALENDAR.changed("UTC", NOVEMBER)) == (twice, UTC_CALENDAR)


def test_zone_of_a_later_build_is_utc() -> None:
    """Its calls are charged all the same."""
    assert BudgetCalendar((ZonePeriod(zone="Mars/Olympus"),)).day(NOVEMBER) == "2026-11-17"
