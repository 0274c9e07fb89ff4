"""Compares roll-ups with what they are sums of, as both are at one moment, and names each difference. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from godoty_service.metering.rollups import Kept
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_cells import Cell, Level, Sum, Sums, add_sums, floor_day, floor_hour, joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """The sums of the batch that is being taken up; a document has them once it is folded through its number.

    Attributes:
        number: The batch's; 0: there is none.
        sums: Its sums by cell.
    """

    number: int = 0
    sums: Sums = field(default_factory=dict)

    def reached(self, kept: Kept | None) -> bool:
        """Return whether a document has the batch's sums already."""
        return kept is not None and kept.through >= self.number


class WiderSums:
    """Compares the sums of one level with those of the finer level, both as if the batch were finished."""

    def __init__(self, wider: Level, moving: Moving) -> None:
        self._wider = wider
        self._moving = moving
        self._waiting = dict(moving.sums)  # what no document of the piece has been found for
        self._kept: Sums = {}
        self._true: Sums = {}

    def add(self, kept: Kept) -> None:
        """Add a document of either level."""
        more = self._waiting.pop(kept.cell, None)
        self._add(kept.cell, kept.sum if more is None or self._moving.reached(kept) else joined(kept.sum, more))

    def differences(self) -> Iterator[str]:
        """Name what differs."""
        for cell, each in self._waiting.items():
            self._add(cell, each)
        by = "hours" if self._wider is Level.DAY else "quarters"
        for cell in sorted({*self._kept, *self._true}, key=_order):
            yield from _compared(cell, self._kept.get(cell), self._true.get(cell), by=by)

    def _add(self, cell: Cell, total: Sum) -> None:
        if cell.level is self._wider:
            self._kept[cell] = total
        else:
            floor = floor_day if self._wider is Level.DAY else floor_hour
            add_sums(self._true, {replace(cell, level=self._wider, time=floor(cell.time)): total})


def entry_differences(kept: Iterable[Kept], booked: Sums, moving: Moving) -> Iterator[str]:
    """Name the documents that are not the sums of entries.

    Args:
        kept: The documents.
        booked: The sums of the entries that are taken up.
        moving: Those of the entries that are being taken up.
    """
    by_cell = {each.cell: each for each in kept}
    for cell in sorted({*by_cell, *booked, *moving.sums}, key=_order):
        found = by_cell.get(cell)
        true: Sums = {cell: booked[cell]} if cell in booked else {}
        if cell in moving.sums and moving.reached(found):
            add_sums(true, {cell: moving.sums[cell]})
        yield from _compared(cell, None if found is None else found.sum, true.get(cell), by="entries")


def _compared(cell: Cell, kept: Sum | None, true: Sum | None, *, by: str) -> Iterator[str]:
    name = " ".join(filter(None, (cell.level.value, cell.time.isoformat(), cell.model, cell.provider, cell.agent)))
    if kept is None:
        if true is not None:
            yield f"{name}: is missing"
        return
    if true is None:
        yield f"{name}: is kept, and no entry is in it"
        return
    for each in fields(Totals):
        shown, summed = getattr(kept.totals, each.name), getattr(true.totals, each.name)
        if shown != summed:
            yield f"{name}: {each.name}: kept {shown}, by the {by} {summed}"
    if kept.latest != true.latest:
        yield f"{name}: latest: kept {kept.latest.isoformat()}, by the {by} {true.latest.isoformat()}"


def _order(cell: Cell) -> tuple[datetime, str, str, str, str]:
    return cell.time, cell.level.value, cell.model, cell.provider, cell.agent
