"""The ledger's entries of a tenant by the page, the oldest first, in constant memory.

An adjustment stands beside its call, at the call's start: so the entries of a period are those that its sums are made
of. Each page is a query of its own: nothing expires while a reader takes its time.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

from godoty_service.metering.call import CallState, Entry
from godoty_service.metering.documents import entry_from_document
from godoty_service.metering.usage_entries import entry_id, known_by, start_time
from godoty_service.mongo import Collection, Document
from godoty_service.pieces import in_pieces

_ORDER = [("start_time", 1), ("number", 1), ("_id", 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries. What is None or empty lets all pass.

    Attributes:
        start: Started at this time or later.
        end: Started before this time.
        session_id: Of this session.
        model: Of this model, by its listed id or by the name that the provider sent or the request had.
        other_names: Names of the same model in the listing: entries of older versions may have one of them.
        state: Calls in this state; adjustments have none.
        known_by: Held by the ledger when the usage books were closed through this time.
    """

    start: datetime | None = None
    end: datetime | None = None
    session_id: str = ""
    model: str = ""
    other_names: tuple[str, ...] = field(default=(), repr=False)  # may change between two pages
    state: CallState | None = None
    known_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended."""

    start: datetime
    number: int
    entry_id: str

    @classmethod
    def of(cls, entry: Entry) -> "Place":
        """The place of an entry."""
        return cls(start_time(entry), entry.number, entry_id(entry))


class LedgerPages:
    """Entries by tenant and page."""

    def __init__(self, collection: Collection) -> None:
        self._entries = collection

    async def page(self, tenant_id: str, which: EntryFilter, *, after: Place | None, limit: int) -> list[Entry]:
        """Read the entries after a place."""
        conditions = [{"tenant_id": tenant_id}, *_conditions(which)]
        if after is not None:
            conditions += _after(after)
        found = await self._entries.find({"$and": conditions}, sort=_ORDER, limit=limit)
        return [entry_from_document(each) async for some in in_pieces(found) for each in some]

    async def pages(self, tenant_id: str, which: EntryFilter, *, size: int) -> AsyncIterator[list[Entry]]:
        """Read all entries, page by page."""
        page = await self.page(tenant_id, which, after=None, limit=size)
        while page:
            yield page
            if len(page) < size:
                return
            page = await self.page(tenant_id, which, after=Place.of(page[-1]), limit=size)


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
    if which.known_by is not None:
        conditions.append(known_by(which.known_by))
    if which.model:
        conditions.append(_of_model({"$in": [which.model, *which.other_names]}, sent=which.model))
    return conditions


def _of_model(named: Document, *, sent: str) -> Document:
    """Match entries of a model: calls that it served, adjustments, and calls that asked for it and had no answer."""
    asked = [{"requested_id": named}, {"requested_model": named}]
    unserved = {"kind": "call", "served_model": None, "$or": asked}
    return {"$or": [{"served_model": named}, {"served_slug": sent}, {"model": named}, unserved]}


def _after(place: Place) -> list[Document]:
    same = {"start_time": place.start, "number": place.number}
    return [
        {"start_time": {"$gte": place.start}},
        {
            "$or": [
                {"start_time": {"$gt": place.start}},
                {"start_time": place.start, "number": {"$gt": place.number}},
                {**same, "_id": {"$gt": place.entry_id}},
            ]
        },
    ]
