"""Hours, days and months of every zone are those of the zone's own clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest

from godoty_service.usage.calendar import TimeGroup, offset_intervals, period_start, split_periods
from tests.integration.billing.harness import label

YEAR = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
QUARTER = timedelta(minutes=15)
AWKWARD = ("Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Cairo", "Pacific/Chatham")


def test_intervals_of_every_zone_end_where_its_clocks_change() -> None:
    """Intervals follow one another without a gap, each with one offset, which differs from the next."""
    for name in available_timezones():
        zone = ZoneInfo(name)
        found = list(offset_intervals(zone, *YEAR))
        assert (found[0].start, found[-1].end) == YEAR
        for before, after in pairwise(found):
            assert before.end == after.start == after.change
            assert before.offset != after.offset
            assert after.start.minute % 15 == after.start.second == 0, "quarters are whole on both sides"
        for span in found:
            for moment in (span.start, span.end - timedelta(microseconds=1)):
                assert moment.astimezone(zone).utcoffset() == span.offset


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("group", TimeGroup)
def test_each_quarter_is_in_the_period_of_the_local_clock(name: str, group: TimeGroup) -> None:
    """A year of quarters around the changes, compared with a walk through time."""
    zone = ZoneInfo(name)
    changes = [span.start for span in offset_intervals(zone, *YEAR)]
    for change in changes:
        start = change - timedelta(days=2)
        for span in offset_intervals(zone, start, change + timedelta(days=2)):
            moment = span.start
            while moment < span.end:
                report_sums = period_start(group, zone, moment, span).astimezone(zone).isoformat()
                assert report_sums == label(moment + timedelta(seconds=1), group, zone)
                moment += QUARTER


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("group", TimeGroup)
def test_range_is_split_where_days_and_months_begin(name: str, group: TimeGroup) -> None:
    """Without a gap, each part in one day or month, and the next one in another; hours are not split."""
    zone = ZoneInfo(name)
    for span in offset_intervals(zone, YEAR[0] + timedelta(hours=5, minutes=7), YEAR[1]):
        found = list(split_periods(group, span.start, span.end, span))
        assert (found[0][0], found[-1][1]) == (span.start, span.end)
        assert all(before[1] == after[0] for before, after in pairwise(found))
        if group is TimeGroup.HOUR:
            assert len(found) == 1
            continue
        report_sums = [label(start + timedelta(seconds=1), group, zone) for start, _ in found]
        assert report_sums == [label(end - timedelta(microseconds=1), group, zone) for _, end in found]
        assert len(set(report_sums)) == len(report_sums)
