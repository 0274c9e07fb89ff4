"""Read plans: as few and as long documents as have the sums, and entries only if nothing else has them."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.grouping import Group, Grouping, NamedGroup
from godoty_service.usage.read_plan import Range, ReadPlan, Source
from godoty_service.usage.rollup_keys import QUARTER

MODEL = NamedGroup.MODEL
YEAR = 400  # days


def _plan(zone: str, *groups: Group, changed: set[datetime] | None = None, days: int = YEAR) -> ReadPlan:
    """Return the read plan of days of a zone, as one interval, without its changes of clocks."""
    grouping = Grouping(groups, ZoneInfo(zone))
    start = datetime(2026, 11, 2, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    (interval, *_) = grouping.intervals(Range(start, start + timedelta(days=days)))
    return grouping.plan(interval, changed or set())


@pytest.mark.parametrize(
    ("zone", "groups", "sources"),
    [
        ("UTC", (), [Source.DAY_SERIES]),
        ("Asia/Kathmandu", (TimeGroup.HOUR,), [Source.DAY_SERIES]),
        ("Asia/Tokyo", (TimeGroup.DAY,), [Source.DAY_SERIES]),
        ("UTC", (MODEL,), [Source.DAY]),
        ("UTC", (TimeGroup.DAY, MODEL), [Source.DAY]),
        ("UTC", (TimeGroup.HOUR, MODEL), [Source.DETAIL_HOUR]),
        ("Asia/Tokyo", (TimeGroup.DAY, MODEL), [Source.DETAIL_HOUR]),
        ("Asia/Kathmandu", (TimeGroup.HOUR, MODEL), [Source.DETAIL]),
        ("UTC", (NamedGroup.SESSION,), [Source.ENTRIES]),
        ("UTC", (TimeGroup.DAY, NamedGroup.USER), [Source.ENTRIES]),
    ],
)
def test_year_is_read_from_longest_documents(zone: str, groups: tuple[Group, ...], sources: list[Source]) -> None:
    """A zone whose days begin with an hour needs no quarters, and no single hours of 400 days."""
    pieces = _plan(zone, *groups)

    assert list(pieces) == sources
    assert [len(ranges) for ranges in pieces.values()] == [1]


def test_days_that_begin_within_an_hour_read_quarters_of_that_hour() -> None:
    """Days of Kathmandu begin at 18:15 UTC: for each, 23 hours are read as such, and four quarters."""
    pieces = _plan("Asia/Kathmandu", TimeGroup.DAY, MODEL, days=10)
    read = {source: sum((each.end - each.start for each in ranges), timedelta()) for source, ranges in pieces.items()}

    assert read == {Source.DETAIL_HOUR: 10 * timedelta(hours=23), Source.DETAIL: 10 * timedelta(hours=1)}


def test_changed_quarters_are_read_from_the_entries() -> None:
    """Only these quarters; the time around them is read from hours and days."""
    start = datetime(2026, 11, 4, 13, 15, tzinfo=UTC)
    pieces = _plan("UTC", MODEL, changed={start, start + QUARTER, start + timedelta(days=3)}, days=10)

    entries = [Range(start, start + 2 * QUARTER), Range(start + timedelta(days=3), start + timedelta(days=3) + QUARTER)]
    assert pieces[Source.ENTRIES] == entries
    assert sum((each.end - each.start for each in pieces[Source.DAY]), timedelta()) == timedelta(days=8)
    covered = sorted((each for ranges in pieces.values() for each in ranges), key=lambda each: each.start)
    assert all(before.end == after.start for before, after in pairwise(covered))
    assert covered[-1].end - covered[0].start == timedelta(days=10)
