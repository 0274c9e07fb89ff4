"""Verifies the roll-ups: names each document that is not the sum that it should be. Reads only.

A day is verified in pieces, each as it is at one moment: its quarters of an hour are compared with their entries, its
hours with the quarters, the day with the hours. So a day is right if no piece differs, however many entries it has, and
no snapshot is older than reading one piece takes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from godoty_service.metering.booking import Batch, Book, Booking
from godoty_service.metering.call import ModelCall
from godoty_service.metering.rollup_comparison import Moving, WiderSums, entry_differences
from godoty_service.metering.rollup_entries import EntryTotals, TurnOpeners
from godoty_service.metering.rollups import Kept, Rollups
from godoty_service.metering.usage_cells import (
    QUARTER,
    Level,
    Sums,
    floor_day,
    floor_hour,
    floor_quarter,
    widened,
)
from godoty_service.metering.usage_entries import UsageEntries
from godoty_service.metering.usage_window import Window
from godoty_service.metering.verification import Difference
from godoty_service.mongo import Database, Snapshot

PIECE = 50_000  # entries or documents of a piece, where one quarter or hour has no more: some 15 seconds
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_START = datetime(1970, 1, 1, tzinfo=UTC)
_BY_ENTRIES = (Level.QUARTER, Level.DETAIL)  # what is compared with entries

Piece = tuple[datetime, datetime]  # its start, and its end, exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class _Books:
    """What is verified, of one tenant, as it is at one moment."""

    tenant_id: str
    entries: UsageEntries
    rollups: Rollups
    book: Book | None

    @classmethod
    async def at(
        cls, snapshot: Snapshot, tenant_id: str, *, entries: UsageEntries, rollups: Rollups, booking: Booking
    ) -> "_Books":
        """Read the tenant's book, which states the batch that is being taken up."""
        book = await booking.at(snapshot).find(tenant_id)
        return cls(tenant_id=tenant_id, entries=entries.at(snapshot), rollups=rollups.at(snapshot), book=book)

    @property
    def batch(self) -> Batch | None:
        """Return the batch that is being taken up."""
        return self.book.batch if self.book else None

    def moving(self, details: Sums, levels: tuple[Level, ...], piece: Piece) -> Moving:
        """Return the sums of the batch, at some levels and of a time."""
        start, end = piece
        sums = {
            cell: each for cell, each in widened(details).items() if cell.level in levels and start <= cell.time < end
        }
        return Moving(number=self.batch.number if self.batch else 0, sums=sums)


async def verify_usage(
    *,
    database: Database,
    entries: UsageEntries,
    rollups: Rollups,
    booking: Booking,
    tenant_id: str | None = None,
    piece: int = PIECE,
) -> AsyncIterator[Difference]:
    """Verify one tenant's roll-ups, or those of all, while servers go on; memory holds the sums of one piece.

    Args:
        database: Where snapshots are taken: each piece is read as it was at one moment.
        entries: The entries.
        rollups: Their sums.
        booking: Knows which entries are being taken up.
        tenant_id: Whose; None: everybody's.
        piece: Entries, or documents, that are read in one snapshot; all of a quarter of an hour, or an hour, are.
    """
    tenant = tenant_id if tenant_id is not None else await _next_tenant(entries, rollups, "")
    while tenant is not None:
        day = await _next_day(entries, rollups, tenant, _START)
        while day is not None:
            async for span, compare in _pieces(tenant, day, piece, entries=entries, rollups=rollups):
                async with database.snapshot() as snapshot:
                    books = await _Books.at(snapshot, tenant, entries=entries, rollups=rollups, booking=booking)
                    found = await compare(books, span)
                for what in found:
                    yield Difference(tenant_id=tenant, session_id="", what=f"usage {what}")
            day = await _next_day(entries, rollups, tenant, day + _DAY)
        tenant = None if tenant_id is not None else await _next_tenant(entries, rollups, tenant)


async def _next_tenant(entries: UsageEntries, rollups: Rollups, after: str) -> str | None:
    found = (await entries.tenant_after(after), await rollups.tenant_after(after))
    return min(filter(None, found), default=None)


async def _next_day(entries: UsageEntries, rollups: Rollups, tenant_id: str, start: datetime) -> datetime | None:
    found = (await entries.first_time(tenant_id, start), await rollups.first_time(tenant_id, start))
    return min((floor_day(each) for each in found if each is not None), default=None)


async def _pieces(
    tenant_id: str, day: datetime, size: int, *, entries: UsageEntries, rollups: Rollups
) -> AsyncIterator[tuple[Piece, Callable[[_Books, Piece], Awaitable[list[str]]]]]:
    """Return the pieces of a day, and how each is compared."""
    end = day + _DAY
    start = day
    while start < end:
        beyond = await entries.time_of(tenant_id, start, after=size)
        stop = min(end, max(start + QUARTER, floor_quarter(beyond))) if beyond else end
        yield (start, stop), _quarters
        start = stop
    start = day
    while start < end:
        beyond = await rollups.time_of(tenant_id, Level.DETAIL, start, after=size)
        stop = min(end, max(start + _HOUR, floor_hour(beyond))) if beyond else end
        yield (start, stop), _hours
        start = stop
    yield (day, end), _day


async def _quarters(books: _Books, piece: Piece) -> list[str]:
    """Compare quarters of an hour with their entries."""
    start, end = piece
    window = books.book.window if books.book else Window()
    summed = EntryTotals()
    async for page in books.entries.by_time(books.tenant_id, start, end):
        calls = [each.entry for each in page if isinstance(each.entry, ModelCall)]
        turns = await books.entries.turn_calls(books.tenant_id, {call.turn_id for call in calls})
        summed.add(page, TurnOpeners.of(turns, books.batch), books.batch, window)
    booked = {cell: each for cell, each in widened(summed.booked).items() if cell.level in _BY_ENTRIES}
    kept = [each async for each in _kept_quarters(books, piece)]
    return [*summed.faults, *entry_differences(kept, booked, books.moving(summed.moving, _BY_ENTRIES, piece))]


async def _kept_quarters(books: _Books, piece: Piece) -> AsyncIterator[Kept]:
    """Read the sums of quarters of an hour; the day's last piece has what its curve has of a time after the day."""
    start, end = piece
    async for each in books.rollups.kept(books.tenant_id, [Level.DETAIL], start, end):
        yield each
    day = floor_day(start)
    async for each in books.rollups.kept(books.tenant_id, [Level.QUARTER], day, day + _DAY):
        if start <= each.cell.time and (each.cell.time < end or end == day + _DAY):
            yield each


async def _hours(books: _Books, piece: Piece) -> list[str]:
    """Compare hours with their quarters."""
    return await _wider(books, piece, Level.DETAIL, Level.DETAIL_HOUR)


async def _day(books: _Books, piece: Piece) -> list[str]:
    """Compare a day with its hours."""
    return await _wider(books, piece, Level.DETAIL_HOUR, Level.DAY)


async def _wider(books: _Books, piece: Piece, finer: Level, wider: Level) -> list[str]:
    batch, details = books.batch, EntryTotals()
    if books.book is not None and batch is not None:
        names = {*batch.final, *(each.entry_id for each in batch.moved)}
        page = await books.entries.marked(books.tenant_id, names)
        details.add(page, TurnOpeners.of([], batch), batch, books.book.window)
    levels = (finer, wider)
    sums = WiderSums(wider, books.moving(details.moving, levels, piece))
    async for each in books.rollups.kept(books.tenant_id, levels, *piece):
        sums.add(each)
    return list(sums.differences())
