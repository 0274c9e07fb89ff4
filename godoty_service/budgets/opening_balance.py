"""Sums a tenant's charges before tracking starts: from roll-ups, and from the entries that they do not include.

All of it is read in one snapshot. A batch in progress is included in some documents and not yet in others: each day
series records the last batch that it includes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from godoty_service.budgets.calendar import BudgetCalendar, CalendarOf, utc_calendar
from godoty_service.budgets.charges import OpeningBalance
from godoty_service.budgets.entry_sums import DaySums, EntrySums, document_charge, is_made_before
from godoty_service.errors import SnapshotLost, StorageUnavailable
from godoty_service.ledger.states import document_contribution
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Document, Snapshot
from godoty_service.usage.rollup_job import Batch, RollupJob
from godoty_service.usage.rollup_keys import floor_day, floor_quarter
from godoty_service.usage.rollup_store import RollupStore, SeriesCharges

_TRIES = 5  # snapshots: one is lost while an index is being built


@dataclass(frozen=True, slots=True)
class _InBatch:
    """The entries of the batch in progress: those that the day series include, and those that they do not."""

    ids: tuple[str, ...]
    rolled_up: list[Document]
    missing: list[Document]


class OpeningBalanceJob:
    """Sums opening balances by tenant."""

    def __init__(
        self,
        *,
        database: Database,
        rollup_job: RollupJob,
        rollups: RollupStore,
        entries: EntrySums,
        calendar_of: CalendarOf = utc_calendar,
    ) -> None:
        """Create it.

        Args:
            database: Takes snapshots.
            rollup_job: Returns the batch in progress.
            rollups: The sums of the rolled-up entries.
            entries: Sums entries that are not rolled up.
            calendar_of: Returns a tenant's days and months.
        """
        self._database = database
        self._rollup_job = rollup_job
        self._rollups = rollups
        self._entries = entries
        self._calendar_of = calendar_of

    async def before(self, tenant_id: str, end: datetime, *, at: datetime) -> OpeningBalance:
        """Return the balance of the calls that started before `end`, without adjustments that were made later.

        Args:
            tenant_id: The tenant.
            end: The calls started before this time.
            at: The balance has the windows of this time and later ones.

        Raises:
            StorageUnavailable: The database cannot be reached, or the snapshots expired too early.
        """
        calendar = await self._calendar_of(tenant_id)
        for _ in range(_TRIES):
            try:
                async with self._database.snapshot() as snapshot:
                    return (await self._sums(tenant_id, end, snapshot, calendar)).opening_balance(at)
            except SnapshotLost:
                continue
        raise StorageUnavailable("The database cannot be reached just now.")

    async def from_start(self, tenant_id: str, start: datetime) -> OpeningBalance:
        """Return the balance of the calls that started at a time or later, in its windows and later ones."""
        sums = DaySums(await self._calendar_of(tenant_id))
        await self._entries.add_entries(sums, tenant_id, start=start)
        return sums.opening_balance(start)

    async def _sums(self, tenant_id: str, end: datetime, snapshot: Snapshot, calendar: BudgetCalendar) -> DaySums:
        entries, cut = self._entries.read_at(snapshot), floor_quarter(end)
        state = await self._rollup_job.read_at(snapshot).get(tenant_id)
        series = await self._rollups.read_at(snapshot).charges(tenant_id, cut, day_of=calendar.day)
        batch = await _in_batch(entries, tenant_id, cut, state.batch if state else None, series)
        sums = DaySums(calendar)
        for each in series.values():
            for day, amount in each.amounts.items():
                sums.add(day, amount)
        _correct(sums, batch, end)
        later = await entries.adjustments(
            tenant_id, end=cut, made_from=end, calendar=calendar, rolled_up=True, excluded=batch.ids
        )
        for day, amount in later.amounts.items():
            sums.subtract(day, amount)
        await entries.add_not_rolled_up(sums, tenant_id, end=cut, made_before=end, excluded=batch.ids)
        await entries.add_entries(sums, tenant_id, start=cut, end=end, made_before=end)
        return sums


async def _in_batch(
    entries: EntrySums, tenant_id: str, cut: datetime, batch: Batch | None, series: Mapping[datetime, SeriesCharges]
) -> _InBatch:
    if batch is None:
        return _InBatch((), [], [])
    rolled_up: list[Document] = []
    missing: list[Document] = []
    for each in await entries.read(tenant_id, batch.ready):
        if each["start_time"] < cut:
            found = series.get(floor_day(each["start_time"]))
            included = found is not None and found.through >= batch.number
            (rolled_up if included else missing).append(each)
    return _InBatch(batch.ready, rolled_up, missing)


def _correct(sums: DaySums, batch: _InBatch, end: datetime) -> None:
    """Add the entries of the batch that the day series lack, and subtract the adjustments after the balance's end."""
    for each in batch.missing:
        if not document_contribution(each).open and is_made_before(each, end):
            sums.add(sums.calendar.day(each["start_time"]), document_charge(each))
    for each in batch.rolled_up:
        if not is_made_before(each, end):
            sums.subtract(sums.calendar.day(each["start_time"]), document_charge(each))
