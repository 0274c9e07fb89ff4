"""From what a question about usage is answered: what is summed up of its days, and entries elsewhere. Pure.

Curves tell each quarter of an hour, in detail there are documents by model, provider and agent of days, hours and
quarters.

Entries are read for the pieces of a quarter at a range's ends, for quarters that hold what became known later than the
answer's `as_of`, and for all of it where sums by end user or session are wanted.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from godoty_service.metering.usage_cells import QUARTER, floor_day, floor_hour, floor_quarter

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Source(StrEnum):
    """Where sums are read."""

    DAY = "day"
    DETAIL_HOUR = "detail_hour"
    DETAIL = "detail"
    CURVES = "curves"
    ENTRIES = "entries"


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of time, its end not included."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class _Level:
    """What documents of a source sum up."""

    source: Source
    step: timedelta
    floor: Callable[[datetime], datetime]

    def ceil(self, time: datetime) -> datetime:
        floor = self.floor(time)
        return floor if floor == time else floor + self.step


Plan = dict[Source, list[Range]]
_PLAIN = (_Level(Source.CURVES, QUARTER, floor_quarter),)
_DETAILED = (
    _Level(Source.DAY, DAY, floor_day),
    _Level(Source.DETAIL_HOUR, HOUR, floor_hour),
    _Level(Source.DETAIL, QUARTER, floor_quarter),
)


def plan(groups: Iterable[Range], *, detailed: bool, widest: timedelta, changed: Collection[datetime]) -> Plan:
    """Tell what to read where.

    Args:
        groups: The time that is asked for, cut where its groups of time begin, unless each begins where a document of
            the length `widest` does.
        detailed: Whether sums by model, provider or agent are wanted.
        widest: Documents that sum up longer stretches are not read.
        changed: Quarters that must be read from the entries.
    """
    levels = [level for level in (_DETAILED if detailed else _PLAIN) if level.step <= widest]
    runs = _runs(changed)
    pieces: Plan = {}
    for group in groups:
        start = group.start
        for run in islice(runs, bisect_right(runs, start, key=lambda each: each.end), None):
            if run.start >= group.end:
                break
            _cover(pieces, Range(start, max(run.start, start)), levels)
            _add(pieces, Source.ENTRIES, Range(max(run.start, start), min(run.end, group.end)))
            start = min(run.end, group.end)
        _cover(pieces, Range(start, group.end), levels)
    return pieces


def without(whole: Range, ranges: Sequence[Range]) -> list[Range]:
    """Return what is left of a stretch without some stretches of it, which are in order."""
    left: list[Range] = []
    start = whole.start
    for each in ranges:
        if start < each.start:
            left.append(Range(start, each.start))
        start = max(start, each.end)
    return [*left, Range(start, whole.end)] if start < whole.end else left


def _runs(quarters: Collection[datetime]) -> list[Range]:
    """Join quarters that follow one another."""
    runs: Plan = {}
    for each in sorted(quarters):
        _add(runs, Source.ENTRIES, Range(each, each + QUARTER))
    return runs.get(Source.ENTRIES, [])


def _cover(pieces: Plan, whole: Range, levels: Sequence[_Level]) -> None:
    """Read a stretch from the longest documents in its middle, from shorter ones at its ends, from entries at last."""
    if whole.start >= whole.end:
        return
    if not levels:
        _add(pieces, Source.ENTRIES, whole)
        return
    level, *shorter = levels
    first = min(level.ceil(whole.start), whole.end)
    last = max(level.floor(whole.end), first)
    _cover(pieces, Range(whole.start, first), shorter)
    if first < last:
        _add(pieces, level.source, Range(first, last))
    _cover(pieces, Range(last, whole.end), shorter)


def _add(pieces: Plan, source: Source, piece: Range) -> None:
    ranges = pieces.setdefault(source, [])
    if ranges and ranges[-1].end == piece.start:
        ranges[-1] = Range(ranges[-1].start, piece.end)
    else:
        ranges.append(piece)
