"""Plans which documents a usage query reads for which part of its time range. Pure.

Day series have a sum for each quarter of an hour. For sums by model, provider or agent there are documents of days,
hours and quarters.

Entries are read for partial quarters at the ends of the range, for quarters that include an entry which became visible
after the report's `as_of`, and for the whole range if sums by end user, session or API key are requested.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from godoty_service.usage.rollup_keys import QUARTER, floor_day, floor_hour, floor_quarter

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Source(StrEnum):
    """What sums are read from; the values of DAY, DETAIL_HOUR and DETAIL are those of the documents' `level`."""

    DAY = "day"
    DETAIL_HOUR = "detail_hour"
    DETAIL = "detail"
    DAY_SERIES = "day_series"
    ENTRIES = "entries"


@dataclass(frozen=True, slots=True)
class Range:
    """A time range; `end` is exclusive."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class _Level:
    """The length of the documents of a source."""

    source: Source
    step: timedelta
    floor: Callable[[datetime], datetime]

    def ceil(self, time: datetime) -> datetime:
        floor = self.floor(time)
        return floor if floor == time else floor + self.step


ReadPlan = dict[Source, list[Range]]
_PLAIN = (_Level(Source.DAY_SERIES, QUARTER, floor_quarter),)
_DETAILED = (
    _Level(Source.DAY, DAY, floor_day),
    _Level(Source.DETAIL_HOUR, HOUR, floor_hour),
    _Level(Source.DETAIL, QUARTER, floor_quarter),
)


def read_plan(groups: Iterable[Range], *, detailed: bool, widest: timedelta, changed: Collection[datetime]) -> ReadPlan:
    """Return which time ranges to read from which source.

    Args:
        groups: The queried time range, split where its groups of time begin, unless each of them begins with a
            document of the length `widest`.
        detailed: Whether sums by model, provider or agent are requested.
        widest: The greatest length of documents to read.
        changed: Quarters that must be read from the entries.
    """
    levels = [level for level in (_DETAILED if detailed else _PLAIN) if level.step <= widest]
    runs = _runs(changed)
    pieces: ReadPlan = {}
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


def subtract_ranges(whole: Range, ranges: Sequence[Range]) -> list[Range]:
    """Return the parts of `whole` outside of `ranges`, which must be in order."""
    rest: list[Range] = []
    start = whole.start
    for each in ranges:
        if start < each.start:
            rest.append(Range(start, each.start))
        start = max(start, each.end)
    return [*rest, Range(start, whole.end)] if start < whole.end else rest


def _runs(quarters: Collection[datetime]) -> list[Range]:
    """Return the ranges of consecutive quarters."""
    runs: ReadPlan = {}
    for each in sorted(quarters):
        _add(runs, Source.ENTRIES, Range(each, each + QUARTER))
    return runs.get(Source.ENTRIES, [])


def _cover(pieces: ReadPlan, whole: Range, levels: Sequence[_Level]) -> None:
    """Cover a range with the longest documents in its middle, shorter ones at its ends, and entries for the rest."""
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


def _add(pieces: ReadPlan, source: Source, piece: Range) -> None:
    ranges = pieces.setdefault(source, [])
    if ranges and ranges[-1].end == piece.start:
        ranges[-1] = Range(ranges[-1].start, piece.end)
    else:
        ranges.append(piece)
