"""What roll-ups sum up: an entry's quarter of an hour in UTC, and by model, provider and agent wider times. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from godoty_service.metering.call import Entry
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_entries import entry_id, known_time, start_time
from godoty_service.metering.usage_sums import part, plus
from godoty_service.metering.usage_window import Window

QUARTER = timedelta(minutes=15)


class Level(StrEnum):
    """How finely is summed: by quarter alone; and in detail, by model, provider and agent, by quarter, hour and day."""

    QUARTER = "quarter"
    DETAIL = "detail"
    DETAIL_HOUR = "detail_hour"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What entries have in common; at the level QUARTER, their time alone."""

    tenant_id: str
    level: Level
    time: datetime
    model: str = ""
    provider: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A cell's sum, and when the last of it became known."""

    totals: Totals
    latest: datetime


Sums = dict[Cell, Sum]


def sums_of(entries: Iterable[Entry], *, opening: set[str], window: Window, known: datetime | None = None) -> Sums:
    """Sum final entries by cell, at every level.

    Args:
        entries: The entries.
        opening: Those that their turns count with.
        window: When the books can know of them.
        known: When they became known, where that is kept.
    """
    return widened(details_of(entries, opening=opening, window=window, known=known))


def details_of(entries: Iterable[Entry], *, opening: set[str], window: Window, known: datetime | None = None) -> Sums:
    """Sum final entries by cell, at the level DETAIL alone; the arguments are those of `sums_of`."""
    details: dict[Cell, list[Sum]] = {}
    for entry in entries:
        added = part(entry, opens_turn=entry_id(entry) in opening)
        details.setdefault(_detail(entry), []).append(Sum(totals=added, latest=known or known_time(entry, window)))
    return {cell: joined(*parts) for cell, parts in details.items()}


def turn_of(entry: Entry, *, known: datetime) -> Sums:
    """Return, at every level, the turn that counts with an entry from a time on."""
    return widened(turn_detail_of(entry, known=known))


def turn_detail_of(entry: Entry, *, known: datetime) -> Sums:
    """Return, at the level DETAIL alone, the turn that counts with an entry from a time on."""
    return {_detail(entry): Sum(totals=Totals(turns=1), latest=known)}


def widened(details: Sums) -> Sums:
    """Sum up, at every level, what stands at the level DETAIL."""
    parts: dict[Cell, list[Sum]] = {}
    for cell, each in details.items():
        for wider in _levels(cell):
            parts.setdefault(wider, []).append(each)
    return {cell: joined(*each) for cell, each in parts.items()}


def add_sums(sums: Sums, more: Sums) -> None:
    """Add sums to others, in place."""
    for cell, new in more.items():
        old = sums.get(cell)
        sums[cell] = new if old is None else joined(old, new)


def joined(*sums: Sum) -> Sum:
    """Add sums."""
    if len(sums) == 1:
        return sums[0]
    return Sum(totals=plus(*(each.totals for each in sums)), latest=max(each.latest for each in sums))


def floor_quarter(time: datetime) -> datetime:
    """The start of a time's quarter of an hour."""
    return time.replace(minute=time.minute // 15 * 15, second=0, microsecond=0)


def floor_hour(time: datetime) -> datetime:
    """The start of a time's hour in UTC."""
    return time.replace(minute=0, second=0, microsecond=0)


def floor_day(time: datetime) -> datetime:
    """The start of a time's day in UTC."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def _detail(entry: Entry) -> Cell:
    return Cell(
        tenant_id=entry.tenant_id,
        level=Level.DETAIL,
        time=floor_quarter(start_time(entry)),
        model=entry.model,
        provider=entry.provider or "",
        agent=entry.agent,
    )


def _levels(detail: Cell) -> tuple[Cell, ...]:
    """Tell the cells, one a level, that hold what a cell at the level DETAIL holds."""
    return (
        Cell(tenant_id=detail.tenant_id, level=Level.QUARTER, time=detail.time),
        detail,
        replace(detail, level=Level.DETAIL_HOUR, time=floor_hour(detail.time)),
        replace(detail, level=Level.DAY, time=floor_day(detail.time)),
    )
