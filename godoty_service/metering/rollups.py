"""Sums of usage by quarter of an hour, in UTC: days of every time zone are sums of them. Owns `usage_quarters`.

Each entry is in four documents: in its day's curve, which sums each quarter of a day; and by model, provider and agent
in its quarter, its hour and its day in UTC. A document says up to which of its tenant's batches it is folded, so that a
batch folds once into each, however often it is tried and by however many servers at once.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from godoty_service.budget import BudgetWindow
from godoty_service.metering import money
from godoty_service.metering.fold_document import totals_from_document, totals_to_document
from godoty_service.metering.usage_cells import QUARTER, Cell, Level, Sum, Sums, floor_day, joined
from godoty_service.metering.usage_curve import charge_of_curve, curve_from_document, curve_to_document
from godoty_service.metering.usage_entries import nth
from godoty_service.metering.usage_plan import Range
from godoty_service.mongo import Collection, Document, Index, Snapshot
from godoty_service.pieces import in_pieces

PLACES = 15  # decimals; a document says if it has an amount with more, whose sums MongoDB could round
_CURVE = "curve"
_CURVES = 62  # that are read at once: each is as large as a hundred other documents
_LEVELS = (_CURVE, *(level.value for level in Level if level is not Level.QUARTER))  # of documents
_DAY = timedelta(days=1)
INDEXES = (
    Index(keys=[("tenant_id", 1), ("level", 1), ("time", 1)]),
    Index(keys=[("tenant_id", 1), ("level", 1), ("latest", 1)], where={"level": _CURVE}),
)

_KEYS = ("tenant", "level", "time", "model", "provider", "agent")  # of a document's id
Place = tuple[str, str, datetime, str, str, str]  # by these


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A cell's sum as it is kept, and the last batch that is in it."""

    cell: Cell
    sum: Sum
    through: int


class Rollups:
    """Sums by tenant and cell."""

    def __init__(self, collection: Collection) -> None:
        self._documents = collection

    async def fold(self, batch: int, sums: Sums) -> None:
        """Add a batch of sums, once."""
        await self._add_to_curves(batch, sums)  # first: readers see by these whether the others have changed
        await self._add(batch, {cell: each for cell, each in sums.items() if cell.level is not Level.QUARTER})

    async def replace_day(self, batch: int, tenant_id: str, day: datetime, sums: Sums) -> None:
        """Write a day's sums in place of those that are kept, once for a batch."""
        quarters = {cell.time: each for cell, each in sums.items() if cell.level is Level.QUARTER}
        documents = {
            _place(cell): _sum_to_document(each) for cell, each in sums.items() if cell.level is not Level.QUARTER
        }
        if quarters:
            documents[tenant_id, _CURVE, day, "", "", ""] = _curve_with(None, day, quarters)
        kept = await self._kept(documents)
        older = {place: old for place in documents if (old := kept.get(place)) is None or old["through"] < batch}
        await self._write([_update(place, old, batch, documents[place]) for place, old in older.items()])
        times = {"$gte": day, "$lt": day + _DAY}
        await self._documents.delete_many(
            {"tenant_id": tenant_id, "level": {"$in": _LEVELS}, "time": times, "through": {"$lt": batch}}
        )

    async def changed(self, tenant_id: str, start: datetime, end: datetime, *, after: datetime) -> set[datetime]:
        """Tell the quarters of a time that hold something which became known after another time."""
        found = await self._documents.find(
            {"tenant_id": tenant_id, "level": _CURVE, "latest": {"$gt": after}},
            fields={"time": 1, "quarters": 1, "known": 1},
        )
        changed = {
            each["time"] + number * QUARTER
            for each in found
            if start - _DAY < each["time"] < end
            for number, known in zip(each["quarters"], each["known"], strict=True)
            if known > after
        }
        return {quarter for quarter in changed if start - QUARTER < quarter < end}

    async def curves(self, tenant_id: str, ranges: Sequence[Range]) -> list[Document]:
        """Read the curves of the days that some stretches of time touch, as `sum_of_curve` takes them."""
        times = {"$or": [{"time": {"$gt": each.start - _DAY, "$lt": each.end}} for each in ranges]}
        query = {"tenant_id": tenant_id, "level": _CURVE, **times}
        return await self._documents.find(query, sort=[("time", 1)], fields={"_id": 0, "known": 0}, batch=_CURVES)

    async def charges_by_day(self, tenant_id: str, end: datetime) -> dict[str, tuple[Decimal, int]]:
        """Sum what a tenant's calls cost or may have cost, by day, of the quarters that begin before a time.

        Returns:
            US dollars, and the last batch that is in them, by day ("2026-08-22").
        """
        query = {"tenant_id": tenant_id, "level": _CURVE, "time": {"$lt": end}}
        names = ("time", "through", "quarters", "amounts")
        charges: dict[str, tuple[Decimal, int]] = {}
        async for each in self._documents.iterate(query, sort=[("time", 1)], fields=dict.fromkeys(names, 1)):
            amount = charge_of_curve(each, (end - each["time"]) // QUARTER)
            charges[BudgetWindow.DAY.key(each["time"])] = amount, each["through"]
            await asyncio.sleep(0)  # years are many documents
        return charges

    async def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """Sum documents."""
        return await self._documents.aggregate(pipeline)

    async def kept(
        self, tenant_id: str, levels: Iterable[Level], start: datetime, end: datetime
    ) -> AsyncIterator[Kept]:
        """Read the sums of some levels, of the documents that begin within a time; a day's quarters are in one."""
        names = [_CURVE if level is Level.QUARTER else level.value for level in levels]
        query = {"tenant_id": tenant_id, "level": {"$in": names}, "time": {"$gte": start, "$lt": end}}
        async for each in self._documents.iterate(query):
            for cell, kept in _sums(each):
                yield Kept(cell=cell, sum=kept, through=each["through"])

    async def time_of(self, tenant_id: str, level: Level, start: datetime, *, after: int) -> datetime | None:
        """Return the time of the document of a level that comes after so many others from a time on, or None."""
        found = await self._documents.aggregate(
            [
                {"$match": {"tenant_id": tenant_id, "level": level.value, "time": {"$gte": start}}},
                *nth(after, by="time"),
            ]
        )
        return found[0]["time"] if found else None

    async def tenant_after(self, tenant_id: str) -> str | None:
        """Tell the next tenant, by id, that has documents."""
        found = await self._documents.find_one(
            {"tenant_id": {"$gt": tenant_id}}, sort=[("tenant_id", 1)], fields={"tenant_id": 1}
        )
        return found["tenant_id"] if found else None

    async def first_time(self, tenant_id: str, start: datetime) -> datetime | None:
        """Tell the time of a tenant's first document from a time on."""
        found = [
            await self._documents.find_one(
                {"tenant_id": tenant_id, "level": level, "time": {"$gte": start}},
                sort=[("time", 1)],
                fields={"time": 1},
            )
            for level in _LEVELS
        ]
        return min((each["time"] for each in found if each), default=None)

    def at(self, snapshot: Snapshot) -> "Rollups":
        """The same at a moment."""
        return Rollups(self._documents.at(snapshot))

    async def _add_to_curves(self, batch: int, sums: Sums) -> None:
        days: dict[Place, dict[datetime, Sum]] = {}
        for cell, each in sums.items():
            if cell.level is Level.QUARTER:
                days.setdefault(_place(cell), {})[cell.time] = each
        kept = await self._kept(days)
        updates = []
        async for some in in_pieces(list(days.items()), at_once=2):
            for place, new in some:
                old = kept.get(place)
                if old is None or old["through"] < batch:
                    updates.append(_update(place, old, batch, _curve_with(old, place[2], new)))
        await self._write(updates)

    async def _add(self, batch: int, sums: Sums) -> None:
        places = {_place(cell): each for cell, each in sums.items()}
        kept = await self._kept(places)
        updates = []
        async for some in in_pieces(list(places.items())):
            for place, new in some:
                old = kept.get(place)
                if old is None or old["through"] < batch:
                    total = new if old is None else joined(_sum(old), new)
                    updates.append(_update(place, old, batch, _sum_to_document(total)))
        await self._write(updates)

    async def _kept(self, places: Iterable[Place]) -> dict[Place, Document]:
        found = await self._documents.find({"_id": {"$in": [dict(zip(_KEYS, each, strict=True)) for each in places]}})
        return {tuple(each["_id"].values()): each for each in found}

    async def _write(self, updates: Sequence[tuple[Document, Document]]) -> None:
        if updates:
            await self._documents.upsert_each(updates)


def _place(cell: Cell) -> Place:
    """Tell where a cell is kept: a quarter in its day's curve."""
    if cell.level is Level.QUARTER:
        return cell.tenant_id, _CURVE, floor_day(cell.time), "", "", ""
    return cell.tenant_id, cell.level.value, cell.time, cell.model, cell.provider, cell.agent


def _update(place: Place, old: Document | None, batch: int, sums: Document) -> tuple[Document, Document]:
    """Write sums over those of an earlier batch; where they are others by now, somebody else has done it."""
    key = dict(zip(_KEYS, place, strict=True))
    before = 0 if old is None else old["through"]
    fields = {("tenant_id" if name == "tenant" else name): value for name, value in key.items()}
    return {"_id": key, "through": before}, {"$set": {**fields, **sums, "through": batch}}


def _curve_with(old: Document | None, day: datetime, new: dict[datetime, Sum]) -> Document:
    curve = {} if old is None else curve_from_document(day, old)
    for time, each in new.items():
        curve[time] = joined(curve[time], each) if time in curve else each
    return {**curve_to_document(day, curve), "latest": max(each.latest for each in curve.values())}


def _sum_to_document(total: Sum) -> Document:
    amounts = (total.totals.cost, total.totals.unresolved_bound)
    fine = any(_decimals(each) > PLACES for each in amounts)
    return {**totals_to_document(total.totals), "fine": fine, "latest": total.latest}


def _sum(document: Document) -> Sum:
    return Sum(totals=totals_from_document(document), latest=document["latest"])


def _sums(document: Document) -> Iterator[tuple[Cell, Sum]]:
    """Read all sums of a document, whatever it is."""
    tenant_id, time = document["tenant_id"], document["time"]
    if document["level"] == _CURVE:
        newest = max(document["known"])
        for quarter, each in curve_from_document(time, document).items():
            kept = replace(each, latest=document["latest"]) if each.latest == newest else each  # so it is proven, too
            yield Cell(tenant_id=tenant_id, level=Level.QUARTER, time=quarter), kept
        return
    level = Level(document["level"])
    names = {name: document[name] for name in ("model", "provider", "agent")}
    yield Cell(tenant_id=tenant_id, level=level, time=time, **names), _sum(document)


def _decimals(amount: Decimal) -> int:
    exponent = amount.normalize(money.MONEY).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0
