"""Sums of usage by quarter of an hour, in UTC: days of every time zone are sums of them. Owns `usage_quarters`.

Each entry is in five documents, at five levels: its quarter; its hour in UTC; and by model, provider and agent its
quarter, its hour and its day in UTC. A document says up to which of its tenant's batches it is folded, so that a batch
folds once into each, however often it is tried and by however many servers at once.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from godoty_service.metering import money
from godoty_service.metering.call import Entry
from godoty_service.metering.fold_document import totals_from_document, totals_to_document
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_entries import entry_id, known_time, start_time
from godoty_service.metering.usage_sums import part, plus
from godoty_service.mongo import Collection, Document, Index, Snapshot

PLACES = 15  # decimals; a document says if it has an amount with more, whose sums MongoDB could round
QUARTER = timedelta(minutes=15)
INDEXES = (
    Index(keys=[("tenant_id", 1), ("level", 1), ("time", 1)]),
    Index(keys=[("tenant_id", 1), ("level", 1), ("latest", 1)], where={"level": "quarter"}),
)


class Level(StrEnum):
    """How finely a document sums."""

    QUARTER = "quarter"
    HOUR = "hour"
    DETAIL = "detail"
    DETAIL_HOUR = "detail_hour"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What the entries of a document have in common; at the levels QUARTER and HOUR, their time alone."""

    tenant_id: str
    level: Level
    time: datetime
    model: str = ""
    provider: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A document's sum, and when the last of it became known."""

    totals: Totals
    latest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A document: its sum, and the last batch that is in it."""

    cell: Cell
    sum: Sum
    through: int


Sums = dict[Cell, Sum]


class Rollups:
    """Sums by tenant and cell."""

    def __init__(self, collection: Collection) -> None:
        self._quarters = collection

    async def fold(self, batch: int, sums: Sums) -> None:
        """Add a batch of sums, once."""
        quarters = {cell: each for cell, each in sums.items() if cell.level is Level.QUARTER}
        await self._add(batch, quarters)  # first: readers see by these whether the others have changed
        await self._add(batch, {cell: each for cell, each in sums.items() if cell not in quarters})

    async def changed(self, tenant_id: str, start: datetime, end: datetime, *, after: datetime) -> set[datetime]:
        """Tell the quarters of a time that hold something which became known after another time."""
        found = await self._quarters.find(
            {"tenant_id": tenant_id, "level": Level.QUARTER.value, "latest": {"$gt": after}},
            fields={"time": 1},
        )
        return {each["time"] for each in found if start - QUARTER < each["time"] < end}

    async def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """Sum documents."""
        return await self._quarters.aggregate(pipeline)

    async def of_day(self, tenant_id: str, day: datetime) -> AsyncIterator[Kept]:
        """Read a day's documents, of all levels."""
        times = {"$gte": day, "$lt": day + timedelta(days=1)}
        levels = {"$in": [level.value for level in Level]}
        async for each in self._quarters.iterate({"tenant_id": tenant_id, "level": levels, "time": times}):
            total = Sum(totals=totals_from_document(each), latest=each["latest"])
            yield Kept(cell=_cell(each), sum=total, through=each["through"])

    async def tenant_after(self, tenant_id: str) -> str | None:
        """Tell the next tenant, by id, that has documents."""
        found = await self._quarters.find_one(
            {"tenant_id": {"$gt": tenant_id}}, sort=[("tenant_id", 1)], fields={"tenant_id": 1}
        )
        return found["tenant_id"] if found else None

    async def first_time(self, tenant_id: str, start: datetime) -> datetime | None:
        """Tell the time of a tenant's first document from a time on."""
        found = [
            await self._quarters.find_one(
                {"tenant_id": tenant_id, "level": level.value, "time": {"$gte": start}},
                sort=[("time", 1)],
                fields={"time": 1},
            )
            for level in Level
        ]
        return min((each["time"] for each in found if each), default=None)

    def at(self, snapshot: Snapshot) -> "Rollups":
        """The same at a moment."""
        return Rollups(self._quarters.at(snapshot))

    async def _add(self, batch: int, sums: Sums) -> None:
        found = await self._quarters.find({"_id": {"$in": [_key(cell) for cell in sums]}})
        kept = {_cell(each): each for each in found}
        updates = []
        for cell, new in sums.items():
            old = kept.get(cell)
            if old is None:
                updates.append(_update(cell, new, before=0, batch=batch))
            elif old["through"] < batch:
                added = _joined(Sum(totals=totals_from_document(old), latest=old["latest"]), new)
                updates.append(_update(cell, added, before=old["through"], batch=batch))
        if updates:
            await self._quarters.upsert_each(updates)


def sums_of(
    entries: Iterable[Entry], *, opening: set[str], closed: datetime | None, known: datetime | None = None
) -> Sums:
    """Sum final entries by cell, at every level.

    Args:
        entries: The entries.
        opening: Those that are the first call of their turn.
        closed: The time up to which answers must not change any more.
        known: When they became known, where that is kept.
    """
    details: dict[Cell, list[Sum]] = {}
    for entry in entries:
        added = part(entry, opens_turn=entry_id(entry) in opening)
        details.setdefault(_detail(entry), []).append(Sum(totals=added, latest=known or known_time(entry, closed)))
    return widened({cell: _joined(*parts) for cell, parts in details.items()})


def widened(details: Sums) -> Sums:
    """Sum up, at every level, what stands at the level DETAIL."""
    parts: dict[Cell, list[Sum]] = {}
    for cell, each in details.items():
        for wider in _levels(cell):
            parts.setdefault(wider, []).append(each)
    return {cell: _joined(*each) for cell, each in parts.items()}


def add_sums(sums: Sums, more: Sums) -> None:
    """Add sums to others, in place."""
    for cell, new in more.items():
        old = sums.get(cell)
        sums[cell] = new if old is None else _joined(old, new)


def floor_quarter(time: datetime) -> datetime:
    """The start of a time's quarter of an hour."""
    return time.replace(minute=time.minute // 15 * 15, second=0, microsecond=0)


def floor_hour(time: datetime) -> datetime:
    """The start of a time's hour in UTC."""
    return time.replace(minute=0, second=0, microsecond=0)


def floor_day(time: datetime) -> datetime:
    """The start of a time's day in UTC."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def _joined(*sums: Sum) -> Sum:
    if len(sums) == 1:
        return sums[0]
    return Sum(totals=plus(*(each.totals for each in sums)), latest=max(each.latest for each in sums))


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
    hour, day = floor_hour(detail.time), floor_day(detail.time)
    return (
        Cell(tenant_id=detail.tenant_id, level=Level.QUARTER, time=detail.time),
        Cell(tenant_id=detail.tenant_id, level=Level.HOUR, time=hour),
        detail,
        replace(detail, level=Level.DETAIL_HOUR, time=hour),
        replace(detail, level=Level.DAY, time=day),
    )


def _update(cell: Cell, total: Sum, *, before: int, batch: int) -> tuple[Document, Document]:
    """Write a sum over the one of an earlier batch; where it is another by now, somebody else has done it."""
    return (
        {"_id": _key(cell), "through": before},
        {
            "$set": {
                "tenant_id": cell.tenant_id,
                "level": cell.level.value,
                "time": cell.time,
                "model": cell.model,
                "provider": cell.provider,
                "agent": cell.agent,
                **totals_to_document(total.totals),
                "fine": any(_places(each) > PLACES for each in (total.totals.cost, total.totals.unresolved_bound)),
                "latest": total.latest,
                "through": batch,
            }
        },
    )


def _places(amount: Decimal) -> int:
    exponent = amount.normalize(money.MONEY).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _key(cell: Cell) -> Document:
    return {
        "tenant": cell.tenant_id,
        "level": cell.level.value,
        "time": cell.time,
        "model": cell.model,
        "provider": cell.provider,
        "agent": cell.agent,
    }


def _cell(document: Document) -> Cell:
    return Cell(
        tenant_id=document["tenant_id"],
        level=Level(document["level"]),
        time=document["time"],
        model=document["model"],
        provider=document["provider"],
        agent=document["agent"],
    )
