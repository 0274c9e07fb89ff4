"""From what a question about usage is answered: days, hours and quarters that are summed up, entries elsewhere. Pure.

Entries are read for the pieces of a quarter at a range's ends, for quarters that hold what became known later than the
answer's `as_of`, and for all of it where sums by end user or session are wanted.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from godoty_service.metering.rollups import QUARTER, floor_day, floor_hour, floor_quarter

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


class Source(StrEnum):
    """Where sums are read."""

    DAY = "day"
    HOUR = "hour"
    QUARTER = "quarter"
    DETAIL = "detail"
    ENTRIES = "entries"


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of time, its end not included."""

    start: datetime
    end: datetime


Plan = dict[Source, list[Range]]
Floor = Callable[[datetime], datetime]


def plan(whole: Range, *, detailed: bool, fits: Callable[[Range], bool], changed: Collection[datetime]) -> Plan:
    """Tell what to read where.

    Args:
        whole: The time that is asked for.
        detailed: Whether sums by model, provider or agent are wanted.
        fits: Tells whether an hour or a day in UTC is in one group of time.
        changed: Quarters that must be read from the entries.
    """
    pieces: Plan = {}
    dirty_days, dirty_hours = ({floor(each) for each in changed} for floor in (floor_day, floor_hour))
    for day in _cut(whole, floor_day, _DAY):
        if detailed and _is_whole(day, _DAY, dirty_days):
            _add(pieces, Source.DAY if fits(day) else Source.DETAIL, day)
            continue
        for hour in _cut(day, floor_hour, _HOUR):
            if not detailed and _is_whole(hour, _HOUR, dirty_hours):
                _add(pieces, Source.HOUR if fits(hour) else Source.QUARTER, hour)
                continue
            for each in _cut(hour, floor_quarter, QUARTER):
                source = Source.DETAIL if detailed else Source.QUARTER
                _add(pieces, source if _is_whole(each, QUARTER, changed) else Source.ENTRIES, each)
    return pieces


def _is_whole(piece: Range, step: timedelta, dirty: Collection[datetime]) -> bool:
    return piece.end - piece.start == step and piece.start not in dirty


def _cut(whole: Range, floor: Floor, step: timedelta) -> Iterator[Range]:
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
