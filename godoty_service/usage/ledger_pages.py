"""Reads a tenant's ledger entries in pages, oldest first, in constant memory, and exports them as of one time.

An adjustment is ordered by the start of its call, so the entries of a period are those that its sums are made of. Each
page is a query of its own: no cursor of the database expires while a reader is slow.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.ledger.codec import entry_from_document
from godoty_service.ledger.entries import Entry
from godoty_service.ledger.states import CallState
from godoty_service.mongo.collection import Collection, Document
from godoty_service.usage.entries import visible_at
from godoty_service.usage.rollup_job import RollupJob

PAGE_SIZE = 500  # entries
_ORDER = [("start_time", 1), ("number", 1), ("_id", 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Conditions on entries; one that is None or empty matches all.

    Attributes:
        start: Started at this time or later.
        end: Started before this time.
        session_id: Of this session.
        model: Of this model, by its listed id or by the name that the provider sent or the request had.
        other_names: Other names of the model in the listing, which entries of older versions may have.
        state: Calls in this state; adjustments have none.
        visible_at: Visible to reports at this time, which the watermark must have reached.
    """

    start: datetime | None = None
    end: datetime | None = None
    session_id: str = ""
    model: str = ""
    other_names: tuple[str, ...] = field(default=(), repr=False)  # not in page tokens: may change between two pages
    state: CallState | None = None
    visible_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EntryCursor:
    """The position of the last entry of a page."""

    start: datetime
    number: int
    entry_id: str

    @classmethod
    def of(cls, entry: Entry) -> "EntryCursor":
        """Return the position of an entry."""
        return cls(entry.start_time, entry.number, entry.entry_id)


class LedgerPages:
    """Reads entries in pages."""

    def __init__(self, collection: Collection) -> None:
        self._entries = collection

    async def page(self, tenant_id: str, which: EntryFilter, *, after: EntryCursor | None, limit: int) -> list[Entry]:
        """Return up to `limit` entries after a cursor."""
        conditions = [{"tenant_id": tenant_id}, *_conditions(which)]
        if after is not None:
            conditions += _after(after)
        found = await self._entries.find({"$and": conditions}, sort=_ORDER, limit=limit)
        return [entry_from_document(each) async for some in yielding_batches(found) for each in some]

    async def pages(self, tenant_id: str, which: EntryFilter, *, size: int) -> AsyncIterator[list[Entry]]:
        """Yield all entries, page by page."""
        page = await self.page(tenant_id, which, after=None, limit=size)
        while page:
            yield page
            if len(page) < size:
                return
            page = await self.page(tenant_id, which, after=EntryCursor.of(page[-1]), limit=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A started export: its time, and its pages. An entry has the state in which it is read."""

    as_of: datetime
    pages: AsyncIterator[list[Entry]]


class LedgerExport:
    """Starts exports."""

    def __init__(self, *, rollup_job: RollupJob, pages: LedgerPages) -> None:
        self._rollup_job = rollup_job
        self._pages = pages

    async def begin(self, tenant_id: str, which: EntryFilter, *, size: int = PAGE_SIZE) -> Export:
        """Start an export of the entries that are visible now.

        Args:
            tenant_id: The tenant.
            which: Conditions on the entries.
            size: Entries a page.

        Raises:
            StorageUnavailable: The database cannot be reached.
        """
        as_of = await self._rollup_job.advance_watermark(tenant_id)
        chosen = replace(which, visible_at=as_of)
        return Export(as_of=as_of, pages=self._pages.pages(tenant_id, chosen, size=size))


def _conditions(which: EntryFilter) -> list[Document]:
    conditions: list[Document] = []
    if which.start is not None:
        conditions.append({"start_time": {"$gte": which.start}})
    if which.end is not None:
        conditions.append({"start_time": {"$lt": which.end}})
    if which.session_id:
        conditions.append({"session_id": which.session_id})
    if which.state is not None:
        conditions.append({"kind": "call", "state": which.state.value})
    if which.visible_at is not None:
        conditions.append(visible_at(which.visible_at))
    if which.model:
        conditions.append(_of_model({"$in": [which.model, *which.other_names]}, sent=which.model))
    return conditions


def _of_model(named: Document, *, sent: str) -> Document:
    """Match entries of a model: calls that it served, adjustments, and calls that requested it and were not served."""
    requested = [{"requested_id": named}, {"requested_model": named}]
    unserved = {"kind": "call", "served_model": None, "$or": requested}
    return {"$or": [{"served_model": named}, {"served_slug": sent}, {"model": named}, unserved]}


def _after(cursor: EntryCursor) -> list[Document]:
    same = {"start_time": cursor.start, "number": cursor.number}
    return [
        {"start_time": {"$gte": cursor.start}},
        {
            "$or": [
                {"start_time": {"$gt": cursor.start}},
                {"start_time": cursor.start, "number": {"$gt": cursor.number}},
                {**same, "_id": {"$gt": cursor.entry_id}},
            ]
        },
    ]
