"""Hours, days and months of every zone are what the zone's own clock shows."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest

from godoty_service.metering.time_cells import TimeGroup, cell_start, cells, spans
from tests.billing.books import label

YEAR = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
QUARTER = timedelta(minutes=15)
AWKWARD = ("Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Cairo", "Pacific/Chatham")


def test_every_zone_is_cut_where_its_clocks_change() -> None:
    """Spans follow one another without a gap, each with one offset, which the next does not have."""
    for name in available_timezones():
        zone = ZoneInfo(name)
        found = list(spans(zone, *YEAR))
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
def test_each_quarter_is_in_the_cell_that_the_clock_shows(name: str, group: TimeGroup) -> None:
    """A year of quarters around the changes, against a walk through time."""
    zone = ZoneInfo(name)
    changes = [span.start for span in spans(zone, *YEAR)]
    for change in changes:
        start = change - timedelta(days=2)
        for span in spans(zone, start, change + timedelta(days=2)):
            moment = span.start
            while moment < span.end:
                shown = cell_start(group, zone, moment, span).astimezone(zone).isoformat()
                assert shown == label(moment + timedelta(seconds=1), group, zone)
                moment += QUARTER


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("group", TimeGroup)
def test_a_stretch_is_cut_where_days_and_months_begin(name: str, group: TimeGroup) -> None:
    """Without a gap, each piece in one day or month, and the next one in another; hours are not cut apart."""
    zone = ZoneInfo(name)
    for span in spans(zone, YEAR[0] + timedelta(hours=5, minutes=7), YEAR[1]):
        found = list(cells(group, span.start, span.end, span))
        assert (found[0][0], found[-1][1]) == (span.start, span.end)
        assert all(before[1] == after[0] for before, after in pairwise(found))
        if group is TimeGroup.HOUR:
            assert len(found) == 1
            continue
        shown = [label(start + timedelta(seconds=1), group, zone) for start, _ in found]
        assert shown == [label(end - timedelta(microseconds=1), group, zone) for _, end in found]
        assert len(set(shown)) == len(shown)
