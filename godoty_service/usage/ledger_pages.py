"""Reads a tenant's ledger entries in pages, oldest first, in constant memory, and exports them as of one time.

An adjustment is ordered by the start of its call, so the entries of a period are those that its sums are made of. Each
page is a query of its own: no cursor of the database expires while a reader is slow. A filter that no index serves is
applied to pieces of the ledger, one operation each, so that no operation reads a whole ledger.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.errors import InvalidRequest
from godoty_service.ledger.codec import entry_from_document
from godoty_service.ledger.entries import Entry
from godoty_service.ledger.states import CallState
from godoty_service.mongo.collection import Collection, Document
from godoty_service.usage.entries import visible_at
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.users.entry_owners import EntryOwners
from godoty_service.users.references import UserReferences

PAGE_SIZE = 500  # entries
_PIECES = 20  # examined for one page
_ORDER = [("start_time", 1), ("number", 1), ("_id", 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Conditions on entries; one that is None or empty matches all.

    Attributes:
        start: Started at this time or later.
        end: Started before this time.
        session_id: Of this session.
        turn_id: Of this turn.
        user: Of the end user with this name.
        user_reference: Of the end user with this reference.
        api_key_id: Of turns that this API key started.
        model: Of this model, by its listed id or by the name that the provider sent or the request had.
        other_user_form: The reference of the user's name, or the name that entries of the reference may have, if there
            is one.
        other_names: Other names of the model in the listing, which entries of older versions may have.
        state: Calls in this state; adjustments have none.
        visible_at: Visible to reports at this time, which the watermark must have reached.
    """

    start: datetime | None = None
    end: datetime | None = None
    session_id: str = ""
    turn_id: str = ""
    user: str = ""
    user_reference: str = ""
    api_key_id: str = ""
    model: str = ""
    other_names: tuple[str, ...] = field(default=(), repr=False)  # not in page tokens: may change between two pages
    other_user_form: str | None = field(default=None, repr=False)  # likewise
    state: CallState | None = None
    visible_at: datetime | None = None

    @property
    def indexed(self) -> bool:
        """Whether an index serves the filter: each entry that the database examines is on the page."""
        examined = self.user or self.user_reference or self.api_key_id or self.model or self.state or self.visible_at
        return bool(self.turn_id) or not examined


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPage:
    """Entries that follow each other.

    Attributes:
        entries: The entries, oldest first.
        end: The position up to which the ledger was examined; None: the page is full, or the last.
    """

    entries: list[Entry]
    end: EntryCursor | None = None


class LedgerPages:
    """Reads entries in pages."""

    def __init__(self, collection: Collection, *, users: UserReferences, piece: int) -> None:
        """Create it.

        Args:
            collection: `ledger`.
            users: The references and names of end users.
            piece: Entries that one operation examines for a filter that no index serves.
        """
        self._entries = collection
        self._users = users
        self._owners = EntryOwners(collection, users)
        self._piece = piece

    async def page(self, tenant_id: str, which: EntryFilter, *, after: EntryCursor | None, limit: int) -> EntryPage:
        """Return up to `limit` entries after a cursor; fewer if few of those that may be examined match."""
        which = await self._with_both_forms(tenant_id, which)
        if which.indexed:
            return EntryPage(entries=await self._find(tenant_id, which, after=after, until=None, limit=limit))
        found: list[Entry] = []
        for _ in range(_PIECES):
            end = await self._piece_end(tenant_id, which, after)
            found += await self._find(tenant_id, which, after=after, until=end, limit=limit - len(found))
            if end is None or len(found) == limit:
                return EntryPage(entries=found)
            after = end
        return EntryPage(entries=found, end=after)

    async def pages(
        self, tenant_id: str, which: EntryFilter, *, after: EntryCursor | None = None, size: int
    ) -> AsyncGenerator[list[Entry], None]:
        """Yield all entries after a cursor, in pages of at most `size` entries."""
        which = await self._with_both_forms(tenant_id, which)
        while True:
            end = None if which.indexed else await self._piece_end(tenant_id, which, after)
            page = await self._find(tenant_id, which, after=after, until=end, limit=size)
            while page:
                yield page
                if len(page) < size:
                    break
                page = await self._find(tenant_id, which, after=EntryCursor.of(page[-1]), until=end, limit=size)
            if end is None:
                return
            after = end

    async def _find(
        self, tenant_id: str, which: EntryFilter, *, after: EntryCursor | None, until: EntryCursor | None, limit: int
    ) -> list[Entry]:
        """Return the first `limit` matching entries between two positions, or all if there are fewer."""
        matching: list[Document] = []
        size = limit
        while True:
            which, found = await self._read(tenant_id, which, after=after, until=until, limit=size)
            matching += [each for each in found if _is_of_user(each, which)]
            if len(found) < size or len(matching) >= limit:
                break
            after, size = EntryCursor(*(found[-1][name] for name, _ in _ORDER)), max(limit, PAGE_SIZE)
        del matching[limit:]
        await self._users.fill_names(tenant_id, matching)
        return [entry_from_document(each) async for some in yielding_batches(matching) for each in some]

    async def _read(
        self, tenant_id: str, which: EntryFilter, *, after: EntryCursor | None, until: EntryCursor | None, limit: int
    ) -> tuple[EntryFilter, list[Document]]:
        """Read entries with their references; those with a name alone may be of another user who had the name.

        Returns:
            The filter, with the reference of its user if the name has got one meanwhile, and the entries.
        """
        conditions = [{"tenant_id": tenant_id}, *_conditions(which)]
        if after is not None:
            conditions += _beyond(after, "$gt")
        if until is not None:
            conditions += _beyond(until, "$lt", including=True)
        found = await self._entries.find({"$and": conditions}, sort=_ORDER, limit=limit)
        if named := [each for each in found if each.get("user") and each.get("user_reference") is None]:
            owners = await self._owners.of(tenant_id, named)
            for each in named:
                each["user_reference"] = owners.get(each["_id"])
        if which.user and which.other_user_form is None:
            known = await self._with_both_forms(tenant_id, which)
            if known.other_user_form is not None:  # the name got it meanwhile, and entries have it in place of the name
                return await self._read(tenant_id, known, after=after, until=until, limit=limit)
        return which, found

    async def _with_both_forms(self, tenant_id: str, which: EntryFilter) -> EntryFilter:
        """Complete a filter by end user: entries have the reference, those of schema 1 the name."""
        if which.user:
            return replace(which, other_user_form=await self._users.find(tenant_id, which.user))
        if which.user_reference:
            return replace(which, other_user_form=await self._users.stored_name(tenant_id, which.user_reference))
        return which

    async def _piece_end(self, tenant_id: str, which: EntryFilter, after: EntryCursor | None) -> EntryCursor | None:
        """Return the position of the last entry of the piece after a cursor; None: the ledger has no further piece."""
        base = EntryFilter(start=which.start, end=which.end, session_id=which.session_id)
        conditions = [{"tenant_id": tenant_id}, *_conditions(base), *(_beyond(after, "$gt") if after else ())]
        found = await self._entries.aggregate(
            [
                {"$match": {"$and": conditions}},
                {"$sort": dict(_ORDER)},
                {"$skip": self._piece - 1},
                {"$limit": 1},
                {"$project": dict(_ORDER)},
            ]
        )
        return EntryCursor(found[0]["start_time"], found[0]["number"], found[0]["_id"]) if found else None


async def reach_watermark(
    job: RollupJob, tenant_id: str, time: datetime, *, now: Callable[[], Awaitable[datetime]]
) -> None:
    """Advance the watermark to the `as_of` of a request: what is visible at it does not change from then on.

    Raises:
        InvalidRequest: The time is in the future.
    """
    state = await job.get_or_create(tenant_id)
    if (state.watermark is None or time > state.watermark) and time > await now():
        raise InvalidRequest.of("as_of", "must not be in the future")
    await job.advance_watermark(tenant_id, at=time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A started export: its time, and its pages. An entry has the state in which it is read."""

    as_of: datetime
    pages: AsyncIterator[list[Entry]]


class LedgerExport:
    """Starts exports."""

    def __init__(self, *, rollup_job: RollupJob, pages: LedgerPages, now: Callable[[], Awaitable[datetime]]) -> None:
        """Create it.

        Args:
            rollup_job: Advances the watermark.
            pages: Reads the entries.
            now: Returns the database's time.
        """
        self._rollup_job = rollup_job
        self._pages = pages
        self._now = now

    async def reach(self, tenant_id: str, as_of: datetime) -> None:
        """Make the set of entries that are visible at a time final, so that a filter by it can be read.

        Raises:
            InvalidRequest: The time is in the future.
        """
        await reach_watermark(self._rollup_job, tenant_id, as_of, now=self._now)

    async def begin(
        self,
        tenant_id: str,
        which: EntryFilter,
        *,
        as_of: datetime | None = None,
        after: EntryCursor | None = None,
        size: int = PAGE_SIZE,
    ) -> Export:
        """Start an export of the entries that are visible now, or continue an earlier one.

        Args:
            tenant_id: The tenant.
            which: Conditions on the entries.
            as_of: The time of the export that continues; None: now.
            after: The last entry that it has read; None: none.
            size: Entries a page.

        Raises:
            InvalidRequest: `as_of` is in the future.
            StorageUnavailable: The database cannot be reached.
        """
        if as_of is None:
            as_of = await self._rollup_job.advance_watermark(tenant_id)
        else:
            await self.reach(tenant_id, as_of)
        chosen = replace(which, visible_at=as_of)
        return Export(as_of=as_of, pages=self._pages.pages(tenant_id, chosen, after=after, size=size))


def _conditions(which: EntryFilter) -> list[Document]:
    conditions: list[Document] = []
    if which.start is not None:
        conditions.append({"start_time": {"$gte": which.start}})
    if which.end is not None:
        conditions.append({"start_time": {"$lt": which.end}})
    if which.session_id:
        conditions.append({"session_id": which.session_id})
    conditions += [{name: value} for name in ("turn_id", "api_key_id") if (value := getattr(which, name))]
    if which.user:
        conditions.append(_of_user(which.user, which.other_user_form))
    if which.user_reference:
        conditions.append(_of_user(which.other_user_form, which.user_reference))
    if which.state is not None:
        conditions.append({"kind": "call", "state": which.state.value})
    if which.visible_at is not None:
        conditions.append(visible_at(which.visible_at))
    if which.model:
        conditions.append(_of_model({"$in": [which.model, *which.other_names]}, sent=which.model))
    return conditions


def _of_user(name: str | None, reference: str | None) -> Document:
    """Match entries that may be of an end user, in both forms; one that does not exist is the empty text."""
    return {"$or": [{"user_reference": reference or ""}, {"user": name or "", "user_reference": None}]}


def _is_of_user(entry: Document, which: EntryFilter) -> bool:
    """Return whether an entry with its reference is of the filter's end user; a name without reference has None."""
    if not which.user and not which.user_reference:
        return True
    reference: str | None = entry.get("user_reference")
    return reference == (which.user_reference or which.other_user_form)


def _of_model(named: Document, *, sent: str) -> Document:
    """Match entries of a model: calls that it served, adjustments, and calls that requested it and were not served."""
    requested = [{"requested_id": named}, {"requested_model": named}]
    unserved = {"kind": "call", "served_model": None, "$or": requested}
    return {"$or": [{"served_model": named}, {"served_slug": sent}, {"model": named}, unserved]}


def _beyond(cursor: EntryCursor, operator: str, *, including: bool = False) -> list[Document]:
    """Match the entries on one side of a position, as ranges of the index.

    Args:
        cursor: The position.
        operator: "$gt" for the entries after it, "$lt" for those before it.
        including: Match the entry at the position as well.
    """
    same = {"start_time": cursor.start, "number": cursor.number}
    last = f"{operator}e" if including else operator
    return [
        {"start_time": {f"{operator}e": cursor.start}},
        {
            "$or": [
                {"start_time": {operator: cursor.start}},
                {"start_time": cursor.start, "number": {operator: cursor.number}},
                {**same, "_id": {last: cursor.entry_id}},
            ]
        },
    ]
