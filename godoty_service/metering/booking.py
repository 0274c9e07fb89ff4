"""Takes ledger entries up into the roll-ups, each once, and closes the books for answers. Owns `usage_books`.

No transaction, so no lock that a dead server could leave behind: a tenant's book is one document, and all that
happens to it happens by replacing its revision.

1. A batch of entry ids is put into the book.
2. It is folded into the roll-ups (once into each document, by the batch's number), and its entries are marked.
3. It is taken out of the book.

Whoever finds a batch in a book finishes it first, and doing it twice does nothing twice.

An answer closes the book through its `as_of`, which is never after the database's time. What is taken up later counts
as known after `as_of`, whatever the clock of the server that wrote it says, so the same question with that `as_of` has
the same answer. What a wrong clock dated in the future counts as known when it is taken up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from godoty_service.errors import DuplicateKey, GodotyError
from godoty_service.metering.call import ModelCall
from godoty_service.metering.day_sums import sums_of_day
from godoty_service.metering.entry_times import Repair
from godoty_service.metering.rollups import Rollups
from godoty_service.metering.turn_openers import Moved, openers
from godoty_service.metering.usage_cells import Sums, add_sums, floor_day, sums_of, turn_of
from godoty_service.metering.usage_entries import UsageEntries, Waiting, entry_id, opened_time
from godoty_service.metering.usage_window import TICK, Window
from godoty_service.mongo import Collection, Document, Index, Snapshot
from godoty_service.pieces import in_pieces

log = structlog.get_logger(__name__)

INDEXES = (Index(keys=[("batch.number", 1)], where={"batch.number": {"$exists": True}}),)
_BATCH = 500  # entries
_FRESH = timedelta(minutes=1)  # an answer's `as_of` is at most so old
_LEASE = "lease"  # its document's id; a tenant's is `tnt_…`
_LEASE_TIME = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Entries that are being taken up.

    Attributes:
        number: 1, 2, 3 … in the tenant's book.
        final: Ids of final entries, for the roll-ups.
        unseen: Ids of calls that were pending, to be noted as such.
        time: The database's when it was opened: nothing in it became known later; None: an older version's.
        left: Ids of pending calls whose served model is known by now.
        opening: Ids of those that their turns count with; None: an earlier build began the batch.
        moved: Calls of earlier batches that their turns count with from now on.
        repairs: New times of entries; None: it takes up entries.
    """

    number: int
    final: tuple[str, ...]
    unseen: tuple[str, ...]
    time: datetime | None
    left: tuple[str, ...] = ()
    opening: tuple[str, ...] | None = None
    moved: tuple[Moved, ...] = ()
    repairs: tuple[Repair, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """A tenant's book.

    Attributes:
        closed: Answers up to this time do not change any more; None: there was none.
        latest: When the last of what is taken up became known.
        done: The number of the last batch that is finished.
        batch: The one that is not.
    """

    tenant_id: str
    revision: int
    closed: datetime | None
    latest: datetime | None
    done: int
    batch: Batch | None

    @property
    def window(self) -> Window:
        """When the books can know of what its batch takes up."""
        return Window(closed=self.closed, end=None if self.batch is None else self.batch.time)


class Booking:
    """Books by tenant."""

    def __init__(
        self,
        books: Collection,
        *,
        entries: UsageEntries,
        rollups: Rollups,
        now: Callable[[], Awaitable[datetime]],
        owner: str,
    ) -> None:
        """Build it.

        Args:
            books: The books.
            entries: What is taken up.
            rollups: Where it is summed.
            now: Tells the database's time, which all servers share.
            owner: This server.
        """
        self._books = books
        self._entries = entries
        self._rollups = rollups
        self._now = now
        self._owner = owner

    async def run(self, interval: float) -> None:
        """Take entries up for ever, every so many seconds; one server does it at a time."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.tick()
            except GodotyError as error:
                log.warning("usage_not_rolled_up", error=str(error))
            except Exception:
                log.exception("rollup_fault")

    async def tick(self) -> bool:
        """Take up what there is, of all tenants; tells whether it was this server's turn."""
        if not await self._lead():
            return False
        for each in await self._books.find({"batch.number": {"$exists": True}}, fields={"_id": 1}):
            await self._try(each["_id"])
        tenant_id = await self._entries.next_tenant("")
        while tenant_id is not None and await self._lead():
            await self._try(tenant_id)
            tenant_id = await self._entries.next_tenant(tenant_id)
        return True

    async def _try(self, tenant_id: str) -> None:
        """Take up a tenant's entries; a fault in one tenant's books does not hold up the others'.

        Raises:
            StorageUnavailable: It would be the same with the next tenant.
        """
        try:
            await self.take_up(tenant_id)
        except GodotyError:
            raise
        except Exception:
            log.exception("rollup_fault", tenant_id=tenant_id)

    async def take_up(self, tenant_id: str, *, note: bool = False) -> Book:
        """Take up all that was there when this began; returns the book, which has no batch open.

        What comes meanwhile is left alone, where it is much: what started by then is a backlog that has an end.

        Args:
            tenant_id: Whose.
            note: Note pending calls, too.
        """
        until: datetime | None = None
        last = False
        while True:
            book = await self.book(tenant_id)
            if book.batch is None:
                if last:
                    return book
                waiting = await self._entries.waiting(tenant_id, unseen=note, limit=_BATCH, until=until)
                if not waiting:
                    return book
                batch = await self._batch(book, waiting)
                last = len(waiting) < _BATCH
                if not last and until is None:
                    until = await self._entries.newest_waiting(tenant_id, unseen=note)
                started = await self._replace(book, batch=batch)
                if started is None:
                    last = False
                    continue
                book = started
            await self._finish(book)

    async def close(self, tenant_id: str, *, at: datetime | None = None) -> datetime:
        """Take up all that is there, and close the book through a time, or through now; returns that time."""
        while True:
            book = await self.take_up(tenant_id, note=True)
            if at is not None:
                if book.closed is not None and at <= book.closed:
                    return at
                through = at
            else:
                now = await self._now()
                if book.closed is not None and book.closed >= max(now - _FRESH, book.latest or book.closed):
                    return book.closed
                through = max(filter(None, (now, book.closed, book.latest)))
            if await self._replace(book, closed=through):
                return through

    async def repair(self, tenant_id: str, repairs: Sequence[Repair]) -> None:
        """Set new times of entries, and sum the days that they leave and reach anew.

        A book that was closed through a time in the future is closed through now again.
        """
        while True:
            book = await self.take_up(tenant_id)
            now = await self._now()
            batch = Batch(number=book.done + 1, final=(), unseen=(), time=now, repairs=tuple(repairs))
            closed, latest = (None if time is None else min(time, now - TICK) for time in (book.closed, book.latest))
            started = await self._replace(book, batch=batch, closed=closed, latest=latest)
            if started is not None:
                await self._finish(started)
                return

    async def ahead(self, limit: datetime) -> list[str]:
        """Return the tenants whose books are closed through a time after a limit."""
        found = await self._books.find({"$or": [{"closed": {"$gt": limit}}, {"latest": {"$gt": limit}}]}, fields={})
        return [each["_id"] for each in found]

    async def book(self, tenant_id: str) -> Book:
        """Read a tenant's book; it is begun where there is none."""
        book = await self.find(tenant_id)
        while book is None:
            with suppress(DuplicateKey):
                await self._books.insert_one({"_id": tenant_id, "revision": 0, "done": 0})
            book = await self.find(tenant_id)
        return book

    async def find(self, tenant_id: str) -> Book | None:
        """Read a tenant's book, if there is one."""
        found = await self._books.find_one({"_id": tenant_id})
        return _read(found) if found else None

    def at(self, snapshot: Snapshot) -> "Booking":
        """The same at a moment, to read."""
        return Booking(
            self._books.at(snapshot), entries=self._entries, rollups=self._rollups, now=self._now, owner=self._owner
        )

    async def _batch(self, book: Book, waiting: Sequence[Waiting]) -> Batch:
        """Return the next batch. What depends on other entries is decided here: they may change before it is done."""
        final, unseen, left = (
            tuple(each.entry_id for each in waiting if each.mark == mark) for mark in ("final", "open", "left")
        )
        time = await self._now()
        calls = await self._entries.turn_calls(book.tenant_id, [each.turn_id for each in waiting])
        window = Window(closed=book.closed, end=time)
        opening, moved = openers(calls, final=set(final), unseen={*unseen, *left}, window=window)
        return Batch(
            number=book.done + 1,
            final=final,
            unseen=unseen,
            time=time,
            left=left,
            opening=tuple(opening),
            moved=tuple(moved),
        )

    async def _finish(self, book: Book) -> None:
        """Do what a batch says, as often as it takes."""
        batch = book.batch
        if batch is None:
            return
        if batch.repairs is not None:
            await self._finish_repair(book, batch, batch.repairs)
            return
        tenant_id = book.tenant_id
        pending = (*batch.unseen, *batch.left)
        moved = {each.entry_id: each.time for each in batch.moved if each.booked}
        entries = await self._entries.read(tenant_id, (*batch.final, *pending, *moved))
        opening = set(batch.opening) if batch.opening is not None else await self._entries.opening(tenant_id, entries)
        by_id = {entry_id(entry): entry for entry in entries}
        sums: Sums = {}
        async for some in in_pieces([by_id[each] for each in batch.final if each in by_id]):
            add_sums(sums, sums_of(some, opening=opening, window=book.window))
        for name, time in moved.items():
            add_sums(sums, turn_of(by_id[name], known=time))
        if sums:
            await self._rollups.fold(batch.number, sums)
        await self._mark(book, batch, opening)
        times = [each.latest for each in sums.values()] + [each.time for each in batch.moved]
        seen = [call for each in pending if isinstance(call := by_id.get(each), ModelCall)]
        times += [opened_time(call, book.window) for call in seen]
        latest = max((*times, *filter(None, [book.latest])), default=None)
        await self._replace(book, batch=None, done=batch.number, latest=latest)

    async def _mark(self, book: Book, batch: Batch, opening: set[str]) -> None:
        """Mark a batch's entries."""
        tenant_id, window = book.tenant_id, book.window
        if batch.moved:
            await self._entries.move(tenant_id, batch.moved)
        if batch.unseen or batch.left:
            pending = (*batch.unseen, *batch.left)
            await self._entries.note(tenant_id, pending, window=window, opening=opening)
        if batch.left:
            await self._entries.note_served(tenant_id, batch.left, window=window)
        if batch.final:
            await self._entries.book(tenant_id, batch.final, window=window, opening=opening)

    async def _finish_repair(self, book: Book, batch: Batch, repairs: Sequence[Repair]) -> None:
        known = batch.time or await self._now()
        await self._entries.repair(book.tenant_id, repairs, known=known)
        days = await self._entries.known_from(book.tenant_id, known)
        moved = [start for each in repairs for start in each.starts]
        for day in sorted(days | {floor_day(time) for time in moved}):
            sums = await sums_of_day(self._entries, book.tenant_id, day)
            await self._rollups.replace_day(batch.number, book.tenant_id, day, sums)
        await self._replace(book, batch=None, done=batch.number, latest=known)

    async def _replace(self, book: Book, **changes: object) -> Book | None:
        """Replace a book; None: somebody else has."""
        new = replace(book, revision=book.revision + 1, **changes)  # type: ignore[arg-type] # the fields' own types
        replaced = await self._books.update_one(
            {"_id": book.tenant_id, "revision": book.revision}, [{"$replaceWith": {"$literal": _write(new)}}]
        )
        return new if replaced else None

    async def _lead(self) -> bool:
        """Take or keep the lease; tells whether it is ours."""
        now = await self._now()
        free = {"_id": _LEASE, "$or": [{"owner": self._owner}, {"until": {"$lt": now}}]}
        try:
            await self._books.update_one(
                free, {"$set": {"owner": self._owner, "until": now + _LEASE_TIME}}, upsert=True
            )
        except DuplicateKey:
            return False
        return True


def _write(book: Book) -> Document:
    document: Document = {"_id": book.tenant_id, "revision": book.revision, "done": book.done}
    if book.closed is not None:
        document["closed"] = book.closed
    if book.latest is not None:
        document["latest"] = book.latest
    if book.batch is not None:
        batch = book.batch
        document["batch"] = _write_batch(batch)
    return document


def _read(document: Document) -> Book:
    batch = document.get("batch")
    return Book(
        tenant_id=document["_id"],
        revision=document["revision"],
        closed=document.get("closed"),
        latest=document.get("latest"),
        done=document["done"],
        batch=_read_batch(batch) if batch else None,
    )


def _write_batch(batch: Batch) -> Document:
    document: Document = {"number": batch.number, "final": list(batch.final), "unseen": list(batch.unseen)}
    if batch.time is not None:
        document["time"] = batch.time
    if batch.repairs is not None:
        document["repairs"] = [each.to_document() for each in batch.repairs]
    if batch.opening is not None:
        document |= {"left": list(batch.left), "opening": list(batch.opening)}
        document["moved"] = [{"id": each.entry_id, "time": each.time, "booked": each.booked} for each in batch.moved]
    return document


def _read_batch(document: Document) -> Batch:
    repairs = document.get("repairs")
    return Batch(
        repairs=None if repairs is None else tuple(map(Repair.from_document, repairs)),
        number=document["number"],
        final=tuple(document["final"]),
        unseen=tuple(document["unseen"]),
        time=document.get("time"),
        left=tuple(document.get("left", ())),
        opening=tuple(document["opening"]) if "opening" in document else None,
        moved=tuple(
            Moved(entry_id=each["id"], time=each["time"], booked=each["booked"]) for each in document.get("moved", ())
        ),
    )
