"""Verifies the roll-ups: reports each document that is not the sum of its entries or of finer roll-ups. Reads only.

A day is verified in pieces, each in one snapshot: its quarters of an hour are compared with their entries, its hours
with the quarters, and the day with the hours. A day is correct if no piece differs, however many entries it has, and a
snapshot is held only for as long as one piece takes to read.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.verification import Difference
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Snapshot
from godoty_service.usage.comparison import (
    BatchSums,
    EntryTotals,
    GranularityComparison,
    TurnOpeners,
    entry_differences,
)
from godoty_service.usage.entries import UsageEntries
from godoty_service.usage.rollup_job import Batch, RollupJob, RollupState
from godoty_service.usage.rollup_keys import (
    QUARTER,
    Granularity,
    Sums,
    floor_day,
    floor_hour,
    floor_quarter,
    with_all_granularities,
)
from godoty_service.usage.rollup_store import RollupStore, StoredRollup
from godoty_service.usage.window import Window

PIECE = 50_000  # entries or documents of a piece, unless a quarter or hour alone has more: about 15 seconds
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_START = datetime(1970, 1, 1, tzinfo=UTC)
_BY_ENTRIES = (Granularity.QUARTER, Granularity.DETAIL)  # compared with entries

Piece = tuple[datetime, datetime]  # start, and end (exclusive)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TenantSnapshot:
    """The data of one tenant as of one snapshot."""

    tenant_id: str
    entries: UsageEntries
    rollups: RollupStore
    state: RollupState | None

    @classmethod
    async def read(
        cls, snapshot: Snapshot, tenant_id: str, *, entries: UsageEntries, rollups: RollupStore, rollup_job: RollupJob
    ) -> "_TenantSnapshot":
        """Read the tenant's roll-up state, which has the batch in progress."""
        state = await rollup_job.read_at(snapshot).get(tenant_id)
        entries, rollups = entries.read_at(snapshot), rollups.read_at(snapshot)
        return cls(tenant_id=tenant_id, entries=entries, rollups=rollups, state=state)

    @property
    def batch(self) -> Batch | None:
        """The batch in progress."""
        return self.state.batch if self.state else None

    def batch_sums(self, details: Sums, granularities: tuple[Granularity, ...], piece: Piece) -> BatchSums:
        """Return the sums of the batch within a piece, at some granularities."""
        start, end = piece
        sums = {
            key: each
            for key, each in with_all_granularities(details).items()
            if key.granularity in granularities and start <= key.time < end
        }
        return BatchSums(number=self.batch.number if self.batch else 0, sums=sums)


async def verify_usage(
    *,
    database: Database,
    entries: UsageEntries,
    rollups: RollupStore,
    rollup_job: RollupJob,
    tenant_id: str | None = None,
    piece: int = PIECE,
) -> AsyncIterator[Difference]:
    """Verify the roll-ups of one tenant or all, while servers run; memory holds the sums of one piece.

    Args:
        database: Takes the snapshots, one for each piece.
        entries: The entries.
        rollups: Their sums.
        rollup_job: Returns the batch in progress.
        tenant_id: The tenant; None: all.
        piece: Entries, or documents, to read in one snapshot; at least a quarter of an hour, or an hour, is read.
    """
    tenant = tenant_id if tenant_id is not None else await _next_tenant(entries, rollups, "")
    while tenant is not None:
        day = await _next_day(entries, rollups, tenant, _START)
        while day is not None:
            async for span, compare in _pieces(tenant, day, piece, entries=entries, rollups=rollups):
                async with database.snapshot() as snapshot:
                    read = await _TenantSnapshot.read(
                        snapshot, tenant, entries=entries, rollups=rollups, rollup_job=rollup_job
                    )
                    found = await compare(read, span)
                for what in found:
                    yield Difference(tenant_id=tenant, session_id="", what=f"usage {what}")
            day = await _next_day(entries, rollups, tenant, day + _DAY)
        tenant = None if tenant_id is not None else await _next_tenant(entries, rollups, tenant)


async def _next_tenant(entries: UsageEntries, rollups: RollupStore, after: str) -> str | None:
    found = (await entries.tenant_after(after), await rollups.tenant_after(after))
    return min(filter(None, found), default=None)


async def _next_day(entries: UsageEntries, rollups: RollupStore, tenant_id: str, start: datetime) -> datetime | None:
    found = (await entries.first_time(tenant_id, start), await rollups.first_time(tenant_id, start))
    return min((floor_day(each) for each in found if each is not None), default=None)


async def _pieces(
    tenant_id: str, day: datetime, size: int, *, entries: UsageEntries, rollups: RollupStore
) -> AsyncIterator[tuple[Piece, Callable[[_TenantSnapshot, Piece], Awaitable[list[str]]]]]:
    """Yield the pieces of a day, each with its comparison."""
    end = day + _DAY
    start = day
    while start < end:
        beyond = await entries.nth_time(tenant_id, start, after=size)
        stop = min(end, max(start + QUARTER, floor_quarter(beyond))) if beyond else end
        yield (start, stop), _compare_quarters
        start = stop
    start = day
    while start < end:
        beyond = await rollups.nth_time(tenant_id, Granularity.DETAIL, start, after=size)
        stop = min(end, max(start + _HOUR, floor_hour(beyond))) if beyond else end
        yield (start, stop), _compare_hours
        start = stop
    yield (day, end), _compare_day


async def _compare_quarters(snapshot: _TenantSnapshot, piece: Piece) -> list[str]:
    """Compare quarters of an hour with their entries."""
    start, end = piece
    window = snapshot.state.window if snapshot.state else Window()
    totals = EntryTotals()
    async for page in snapshot.entries.iterate_by_time(snapshot.tenant_id, start, end):
        calls = [each.entry for each in page if isinstance(each.entry, ModelCall)]
        turns = await snapshot.entries.turn_calls(snapshot.tenant_id, {call.turn_id for call in calls})
        totals.add(page, TurnOpeners.of(turns, snapshot.batch), snapshot.batch, window)
    sums = with_all_granularities(totals.rolled_up)
    rolled_up = {key: each for key, each in sums.items() if key.granularity in _BY_ENTRIES}
    stored = [each async for each in _stored_quarters(snapshot, piece)]
    batch = snapshot.batch_sums(totals.in_batch, _BY_ENTRIES, piece)
    return [*totals.faults, *entry_differences(stored, rolled_up, batch)]


async def _stored_quarters(snapshot: _TenantSnapshot, piece: Piece) -> AsyncIterator[StoredRollup]:
    """Yield the stored quarters of a piece.

    The last piece of the day includes quarters of its day series that lie after the day, which would be a fault.
    """
    start, end = piece
    async for each in snapshot.rollups.iterate(snapshot.tenant_id, [Granularity.DETAIL], start, end):
        yield each
    day = floor_day(start)
    async for each in snapshot.rollups.iterate(snapshot.tenant_id, [Granularity.QUARTER], day, day + _DAY):
        if start <= each.key.time and (each.key.time < end or end == day + _DAY):
            yield each


async def _compare_hours(snapshot: _TenantSnapshot, piece: Piece) -> list[str]:
    """Compare hours with their quarters."""
    return await _compare_wider(snapshot, piece, Granularity.DETAIL, Granularity.DETAIL_HOUR)


async def _compare_day(snapshot: _TenantSnapshot, piece: Piece) -> list[str]:
    """Compare a day with its hours."""
    return await _compare_wider(snapshot, piece, Granularity.DETAIL_HOUR, Granularity.DAY)


async def _compare_wider(snapshot: _TenantSnapshot, piece: Piece, finer: Granularity, wider: Granularity) -> list[str]:
    batch, details = snapshot.batch, EntryTotals()
    if snapshot.state is not None and batch is not None:
        ids = {*batch.ready, *(each.entry_id for each in batch.moved_turns)}
        page = await snapshot.entries.read_with_state(snapshot.tenant_id, ids)
        details.add(page, TurnOpeners.of([], batch), batch, snapshot.state.window)
    granularities = (finer, wider)
    comparison = GranularityComparison(wider, snapshot.batch_sums(details.in_batch, granularities, piece))
    async for each in snapshot.rollups.iterate(snapshot.tenant_id, granularities, *piece):
        comparison.add(each)
    return list(comparison.differences())
