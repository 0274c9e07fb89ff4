"""What is read for a question: as few and as long sums as have the answer, entries where nothing else has it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from godoty_service.metering.time_cells import TimeGroup
from godoty_service.metering.usage_cells import QUARTER
from godoty_service.metering.usage_groups import Group, Grouping, NamedGroup
from godoty_service.metering.usage_plan import Plan, Range, Source

MODEL = NamedGroup.MODEL
YEAR = 400  # days


def _plan(zone: str, *groups: Group, changed: set[datetime] | None = None, days: int = YEAR) -> Plan:
    """What is read for days that begin with a zone's, in one span, without its changes of clocks."""
    grouping = Grouping(groups, ZoneInfo(zone))
    start = datetime(2026, 11, 2, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    (span, *_) = grouping.spans(Range(start, start + timedelta(days=days)))
    return grouping.plan(span, changed or set())


@pytest.mark.parametrize(
    ("zone", "groups", "sources"),
    [
        ("UTC", (), [Source.CURVES]),
        ("Asia/Kathmandu", (TimeGroup.HOUR,), [Source.CURVES]),
        ("Asia/Tokyo", (TimeGroup.DAY,), [Source.CURVES]),
        ("UTC", (MODEL,), [Source.DAY]),
        ("UTC", (TimeGroup.DAY, MODEL), [Source.DAY]),
        ("UTC", (TimeGroup.HOUR, MODEL), [Source.DETAIL_HOUR]),
        ("Asia/Tokyo", (TimeGroup.DAY, MODEL), [Source.DETAIL_HOUR]),
        ("Asia/Kathmandu", (TimeGroup.HOUR, MODEL), [Source.DETAIL]),
        ("UTC", (NamedGroup.SESSION,), [Source.ENTRIES]),
        ("UTC", (TimeGroup.DAY, NamedGroup.USER), [Source.ENTRIES]),
    ],
)
def test_a_year_is_one_stretch_of_the_longest_sums(zone: str, groups: tuple[Group, ...], sources: list[Source]) -> None:
    """A zone whose days begin with an hour needs no quarters, and nobody looks at each hour of 400 days."""
    pieces = _plan(zone, *groups)

    assert list(pieces) == sources
    assert [len(ranges) for ranges in pieces.values()] == [1]


def test_days_that_begin_within_an_hour_need_its_quarters_alone() -> None:
    """Kathmandu's begin at 18:15 UTC: of each, 23 hours are read as such, and four quarters."""
    pieces = _plan("Asia/Kathmandu", TimeGroup.DAY, MODEL, days=10)
    read = {source: sum((each.end - each.start for each in ranges), timedelta()) for source, ranges in pieces.items()}

    assert read == {Source.DETAIL_HOUR: 10 * timedelta(hours=23), Source.DETAIL: 10 * timedelta(hours=1)}


def test_what_has_changed_since_is_read_from_the_entries() -> None:
    """Only its quarters; what is around them from hours, and days."""
    start = datetime(2026, 11, 4, 13, 15, tzinfo=UTC)
    pieces = _plan("UTC", MODEL, changed={start, start + QUARTER, start + timedelta(days=3)}, days=10)

    entries = [Range(start, start + 2 * QUARTER), Range(start + timedelta(days=3), start + timedelta(days=3) + QUARTER)]
    assert pieces[Source.ENTRIES] == entries
    assert sum((each.end - each.start for each in pieces[Source.DAY]), timedelta()) == timedelta(days=8)
    covered = sorted((each for ranges in pieces.values() for each in ranges), key=lambda each: each.start)
    assert all(before.end == after.start for before, after in pairwise(covered))
    assert covered[-1].end - covered[0].start == timedelta(days=10)
