"""States what a tenant's calls come to before each is counted by itself: from roll-ups, and entries that these lack.

All of it is read at one moment. A batch that is being rolled up at that moment is in some documents and not yet in
others: a day's curve says up to which batch it goes.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from godoty_service.budget import BudgetWindow
from godoty_service.errors import SnapshotLost, StorageUnavailable
from godoty_service.metering import money
from godoty_service.metering.booking import Batch, Booking
from godoty_service.metering.call import CallState
from godoty_service.metering.charges import Statement
from godoty_service.metering.entry_sums import DaySums, EntrySums, charge_in, is_made_before
from godoty_service.metering.rollups import Rollups
from godoty_service.metering.usage_cells import floor_quarter
from godoty_service.mongo import Database, Document, Snapshot

_TRIES = 5  # snapshots, where indexes are just being made


@dataclass(frozen=True, slots=True)
class _InBatch:
    """The entries of the batch that is being rolled up: those that the curves have, and those that they do not."""

    ids: tuple[str, ...]
    rolled_up: list[Document]
    missing: list[Document]


class OpeningBalance:
    """Statements by tenant."""

    def __init__(self, *, database: Database, booking: Booking, rollups: Rollups, entries: EntrySums) -> None:
        """Build it.

        Args:
            database: Where snapshots are taken.
            booking: Says which entries are being rolled up.
            rollups: The sums of the others.
            entries: Reads what no roll-up has.
        """
        self._database = database
        self._booking = booking
        self._rollups = rollups
        self._entries = entries

    async def until(self, tenant_id: str, end: datetime, *, at: datetime) -> Statement:
        """State the calls that started before a time; adjustments that were made later are not in it.

        Args:
            tenant_id: Whose.
            end: The calls started before this time.
            at: Stated are the windows of this time and the later ones.

        Raises:
            StorageUnavailable: The database is out of reach, or a moment did not last as long as this takes.
        """
        for _ in range(_TRIES):
            try:
                async with self._database.snapshot() as snapshot:
                    return (await self._sums(tenant_id, end, snapshot)).statement(at)
            except SnapshotLost:
                continue
        raise StorageUnavailable("The database cannot be reached just now.")

    async def since(self, tenant_id: str, start: datetime) -> Statement:
        """State the calls that started at a time or later, in its windows and the later ones."""
        sums = DaySums()
        await self._entries.add_entries(sums, tenant_id, start=start)
        return sums.statement(start)

    async def _sums(self, tenant_id: str, end: datetime, snapshot: Snapshot) -> DaySums:
        entries, cut = self._entries.at(snapshot), floor_quarter(end)
        book = await self._booking.at(snapshot).find(tenant_id)
        days = await self._rollups.at(snapshot).charges_by_day(tenant_id, cut)
        batch = await _in_batch(entries, tenant_id, cut, book.batch if book else None, days)
        sums = DaySums()
        for day, (amount, _) in days.items():
            sums.add(day, amount)
        _correct(sums, batch, end)
        later = await entries.adjustments(tenant_id, end=cut, made_from=end, booked=True, but=batch.ids)
        for day, amount in later.amounts.items():
            sums.subtract(day, amount)
        await entries.add_unbooked(sums, tenant_id, end=cut, made_before=end, but=batch.ids)
        await entries.add_entries(sums, tenant_id, start=cut, end=end, made_before=end)
        return sums


async def _in_batch(
    entries: EntrySums, tenant_id: str, cut: datetime, batch: Batch | None, days: dict[str, tuple[Decimal, int]]
) -> _InBatch:
    if batch is None:
        return _InBatch((), [], [])
    rolled_up: list[Document] = []
    missing: list[Document] = []
    for each in await entries.of(tenant_id, batch.final):
        if each["start_time"] < cut:
            _, through = days.get(_day(each), (money.ZERO, 0))
            (rolled_up if through >= batch.number else missing).append(each)
    return _InBatch(batch.final, rolled_up, missing)


def _correct(sums: DaySums, batch: _InBatch, end: datetime) -> None:
    """Add what the curves miss of a batch, and take away what was made later than the statement's end."""
    for each in batch.missing:
        if each.get("state") != CallState.PENDING.value and is_made_before(each, end):
            sums.add(_day(each), charge_in(each))
    for each in batch.rolled_up:
        if not is_made_before(each, end):
            sums.subtract(_day(each), charge_in(each))


def _day(document: Document) -> str:
    return BudgetWindow.DAY.key(document["start_time"])
