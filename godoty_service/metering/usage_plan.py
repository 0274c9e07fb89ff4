"""From what a question about usage is answered: days and quarters that are summed up, entries where they are not. Pure.

Entries are read for the pieces of a quarter at a range's ends, for quarters that hold what became known later than the
answer's `as_of`, and for all of it where sums by end user or session are wanted.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from godoty_service.metering.rollups import QUARTER, floor_day, floor_quarter

_DAY = timedelta(days=1)


class Source(StrEnum):
    """Where sums are read."""

    DAY = "day"
    QUARTER = "quarter"
    DETAIL = "detail"
    ENTRIES = "entries"


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of time, its end not included."""

    start: datetime
    end: datetime


Plan = dict[Source, list[Range]]


def plan(
    whole: Range,
    *,
    quarters: Source,
    days: Callable[[Range], bool],
    changed: Collection[datetime],
) -> Plan:
    """Tell what to read where.

    Args:
        whole: The time that is asked for.
        quarters: Where whole quarters are read.
        days: Tells whether a day in UTC may be read as one.
        changed: Quarters that must be read from the entries.
    """
    pieces: Plan = {}
    dirty_days = {floor_day(each) for each in changed}
    for day in _cut(whole, floor_day, _DAY):
        full = day.end - day.start == _DAY and floor_day(day.start) not in dirty_days
        if full and quarters is Source.DETAIL and days(day):
            _add(pieces, Source.DAY, day)
        elif full:
            _add(pieces, quarters, day)
        else:
            for each in _cut(day, floor_quarter, QUARTER):
                clean = each.end - each.start == QUARTER and each.start not in changed
                _add(pieces, quarters if clean else Source.ENTRIES, each)
    return pieces


def _cut(whole: Range, floor: Callable[[datetime], datetime], step: timedelta) -> Iterator[Range]:
    start = whole.start
    while start < whole.end:
        end = min(floor(start) + step, whole.end)
        yield Range(start, end)
        start = end


def _add(pieces: Plan, source: Source, piece: Range) -> None:
    ranges = pieces.setdefault(source, [])
    if ranges and ranges[-1].end == piece.start:
        ranges[-1] = Range(ranges[-1].start, piece.end)
    else:
        ranges.append(piece)
