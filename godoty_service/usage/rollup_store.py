"""Stores usage sums by quarter of an hour in UTC: days of every time zone are sums of them. Owns `usage_rollups`.

Each entry is included in four documents: the day series of its day, which has a sum for each quarter of an hour; and by
model, provider and agent those of its quarter, its hour and its day in UTC. A document records in `through` the last of
its tenant's batches that it includes, so that a batch is added exactly once to each, however often it is tried and by
however many servers at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import ClassVar

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.ledger.session_totals import totals_from_document, totals_to_document
from godoty_service.mongo.collection import Collection, Document, Index, Snapshot
from godoty_service.pricing import money
from godoty_service.usage.day_series import series_charges, series_from_document, series_to_document
from godoty_service.usage.entries import nth_stages
from godoty_service.usage.read_plan import Range
from godoty_service.usage.rollup_keys import QUARTER, Granularity, RollupKey, Sum, Sums, combined, floor_day

EXACT_DECIMALS = 15  # a document sets `fine` if an amount has more decimals, whose sums MongoDB could round
_SERIES_LEVEL = "curve"  # the value of `level` of a day series
_SERIES_BATCH = 62  # day series in one read: each is as large as a hundred other documents
_LEVELS = (_SERIES_LEVEL, *(level.value for level in Granularity if level is not Granularity.QUARTER))
_DAY = timedelta(days=1)

_KEYS = ("tenant", "level", "time", "model", "provider", "agent")  # fields of `_id`
DocumentKey = tuple[str, str, datetime, str, str, str]  # the values of these fields


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRollup:
    """A stored sum, and the last batch that it includes."""

    key: RollupKey
    sum: Sum
    last_batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCharges:
    """The charges of a day series.

    Attributes:
        amounts: US dollars by the tenant's day ("2026-08-22"); unresolved calls count with their upper bounds.
        through: The last batch that is included.
    """

    amounts: Mapping[str, Decimal]
    through: int


class RollupStore:
    """Reads and writes the sums by tenant and key."""

    COLLECTION = "usage_rollups"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("level", 1), ("time", 1)]),
        Index(keys=[("tenant_id", 1), ("level", 1), ("latest", 1)], where={"level": _SERIES_LEVEL}),
    )

    def __init__(self, collection: Collection) -> None:
        self._documents = collection

    async def add_batch(self, batch: int, sums: Sums) -> None:
        """Add the sums of a batch; idempotent."""
        await self._add_to_day_series(batch, sums)  # first: readers detect changes of the others by these
        await self._add(batch, {key: each for key, each in sums.items() if key.granularity is not Granularity.QUARTER})

    async def replace_day(self, batch: int, tenant_id: str, day: datetime, sums: Sums) -> None:
        """Replace the stored sums of a day by those of a batch; idempotent."""
        quarters = {key.time: each for key, each in sums.items() if key.granularity is Granularity.QUARTER}
        documents = {
            _document_key(key): _sum_to_document(each)
            for key, each in sums.items()
            if key.granularity is not Granularity.QUARTER
        }
        if quarters:
            documents[tenant_id, _SERIES_LEVEL, day, "", "", ""] = _series_with(None, day, quarters)
        stored = await self._read(documents)
        older = {key: old for key in documents if (old := stored.get(key)) is None or old["through"] < batch}
        await self._write([_update(key, old, batch, documents[key]) for key, old in older.items()])
        times = {"$gte": day, "$lt": day + _DAY}
        await self._documents.delete_many(
            {"tenant_id": tenant_id, "level": {"$in": _LEVELS}, "time": times, "through": {"$lt": batch}}
        )

    async def changed_quarters(
        self, tenant_id: str, start: datetime, end: datetime, *, after: datetime
    ) -> set[datetime]:
        """Return the quarters of a time range that include an entry which became visible after `after`."""
        found = await self._documents.find(
            {"tenant_id": tenant_id, "level": _SERIES_LEVEL, "latest": {"$gt": after}},
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

    async def day_series(self, tenant_id: str, ranges: Sequence[Range]) -> list[Document]:
        """Return the day series of the days that overlap some time ranges, as `DaySeries` reads them."""
        times = {"$or": [{"time": {"$gt": each.start - _DAY, "$lt": each.end}} for each in ranges]}
        query = {"tenant_id": tenant_id, "level": _SERIES_LEVEL, **times}
        return await self._documents.find(query, sort=[("time", 1)], fields={"_id": 0, "known": 0}, batch=_SERIES_BATCH)

    async def charges(
        self, tenant_id: str, end: datetime, *, day_of: Callable[[datetime], str]
    ) -> dict[datetime, SeriesCharges]:
        """Return the cost of a tenant's calls in the quarters that begin before `end`, by the start of their UTC day.

        Args:
            tenant_id: The tenant.
            end: The end.
            day_of: Returns the tenant's day that contains a quarter.
        """
        query = {"tenant_id": tenant_id, "level": _SERIES_LEVEL, "time": {"$lt": end}}
        names = ("time", "through", "quarters", "amounts")
        charges: dict[datetime, SeriesCharges] = {}
        async for each in self._documents.iterate(query, sort=[("time", 1)], fields=dict.fromkeys(names, 1)):
            amounts = series_charges(each, each["time"], (end - each["time"]) // QUARTER, day_of=day_of)
            charges[each["time"]] = SeriesCharges(amounts=amounts, through=each["through"])
            await asyncio.sleep(0)  # several years are many documents
        return charges

    async def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """Run an aggregation over the documents."""
        return await self._documents.aggregate(pipeline)

    async def iterate(
        self, tenant_id: str, granularities: Iterable[Granularity], start: datetime, end: datetime
    ) -> AsyncIterator[StoredRollup]:
        """Yield the sums of some granularities from the documents that begin within a time range.

        The quarters of a day are in one document, which begins with the day.
        """
        levels = [_SERIES_LEVEL if each is Granularity.QUARTER else each.value for each in granularities]
        query = {"tenant_id": tenant_id, "level": {"$in": levels}, "time": {"$gte": start, "$lt": end}}
        async for each in self._documents.iterate(query):
            for key, stored in _sums(each):
                yield StoredRollup(key=key, sum=stored, last_batch=each["through"])

    async def nth_time(
        self, tenant_id: str, granularity: Granularity, start: datetime, *, after: int
    ) -> datetime | None:
        """Return the time of the document that follows the first `after` documents from `start` on, or None."""
        found = await self._documents.aggregate(
            [
                {"$match": {"tenant_id": tenant_id, "level": granularity.value, "time": {"$gte": start}}},
                *nth_stages(after, by="time"),
            ]
        )
        return found[0]["time"] if found else None

    async def tenant_after(self, tenant_id: str) -> str | None:
        """Return the next tenant, by id, that has documents."""
        found = await self._documents.find_one(
            {"tenant_id": {"$gt": tenant_id}}, sort=[("tenant_id", 1)], fields={"tenant_id": 1}
        )
        return found["tenant_id"] if found else None

    async def first_time(self, tenant_id: str, start: datetime) -> datetime | None:
        """Return the time of a tenant's first document at or after `start`."""
        found = [
            await self._documents.find_one(
                {"tenant_id": tenant_id, "level": level, "time": {"$gte": start}},
                sort=[("time", 1)],
                fields={"time": 1},
            )
            for level in _LEVELS
        ]
        return min((each["time"] for each in found if each), default=None)

    def read_at(self, snapshot: Snapshot) -> "RollupStore":
        """Return a reader of the roll-ups as of a snapshot."""
        return RollupStore(self._documents.read_at(snapshot))

    async def _add_to_day_series(self, batch: int, sums: Sums) -> None:
        days: dict[DocumentKey, dict[datetime, Sum]] = {}
        for key, each in sums.items():
            if key.granularity is Granularity.QUARTER:
                days.setdefault(_document_key(key), {})[key.time] = each
        stored = await self._read(days)
        updates = []
        async for some in yielding_batches(list(days.items()), size=2):
            for day, new in some:
                old = stored.get(day)
                if old is None or old["through"] < batch:
                    updates.append(_update(day, old, batch, _series_with(old, day[2], new)))
        await self._write(updates)

    async def _add(self, batch: int, sums: Sums) -> None:
        by_key = {_document_key(key): each for key, each in sums.items()}
        stored = await self._read(by_key)
        updates = []
        async for some in yielding_batches(list(by_key.items())):
            for key, new in some:
                old = stored.get(key)
                if old is None or old["through"] < batch:
                    total = new if old is None else combined(_sum(old), new)
                    updates.append(_update(key, old, batch, _sum_to_document(total)))
        await self._write(updates)

    async def _read(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        found = await self._documents.find({"_id": {"$in": [dict(zip(_KEYS, each, strict=True)) for each in keys]}})
        return {tuple(each["_id"].values()): each for each in found}

    async def _write(self, updates: Sequence[tuple[Document, Document]]) -> None:
        if updates:
            await self._documents.upsert_each(updates)


def _document_key(key: RollupKey) -> DocumentKey:
    """Return the key of the document that has a sum: for a quarter, its day series."""
    if key.granularity is Granularity.QUARTER:
        return key.tenant_id, _SERIES_LEVEL, floor_day(key.time), "", "", ""
    return key.tenant_id, key.granularity.value, key.time, key.model, key.provider, key.agent


def _update(key: DocumentKey, old: Document | None, batch: int, sums: Document) -> tuple[Document, Document]:
    """Return the update that replaces the sums of an earlier batch; it matches nothing if another server was faster."""
    document_id = dict(zip(_KEYS, key, strict=True))
    before = 0 if old is None else old["through"]
    fields = {("tenant_id" if name == "tenant" else name): value for name, value in document_id.items()}
    return {"_id": document_id, "through": before}, {"$set": {**fields, **sums, "through": batch}}


def _series_with(old: Document | None, day: datetime, new: dict[datetime, Sum]) -> Document:
    series = {} if old is None else series_from_document(day, old)
    for time, each in new.items():
        series[time] = combined(series[time], each) if time in series else each
    return {**series_to_document(day, series), "latest": max(each.last_change for each in series.values())}


def _sum_to_document(total: Sum) -> Document:
    amounts = (total.totals.cost, total.totals.unresolved_bound)
    fine = any(_decimals(each) > EXACT_DECIMALS for each in amounts)
    return {**totals_to_document(total.totals), "fine": fine, "latest": total.last_change}


def _sum(document: Document) -> Sum:
    return Sum(totals=totals_from_document(document), last_change=document["latest"])


def _sums(document: Document) -> Iterator[tuple[RollupKey, Sum]]:
    """Decode all sums of a document of any level."""
    tenant_id, time = document["tenant_id"], document["time"]
    if document["level"] == _SERIES_LEVEL:
        newest = max(document["known"])
        for quarter, each in series_from_document(time, document).items():
            is_newest = each.last_change == newest  # then return `latest` instead, so that it is verified, too
            stored = replace(each, last_change=document["latest"]) if is_newest else each
            yield RollupKey(tenant_id=tenant_id, granularity=Granularity.QUARTER, time=quarter), stored
        return
    granularity = Granularity(document["level"])
    names = {name: document[name] for name in ("model", "provider", "agent")}
    yield RollupKey(tenant_id=tenant_id, granularity=granularity, time=time, **names), _sum(document)


def _decimals(amount: Decimal) -> int:
    exponent = amount.normalize(money.MONEY).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0
