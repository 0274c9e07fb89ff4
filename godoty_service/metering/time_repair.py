"""Repairs the times that wrong clocks wrote: in entries, in sums over them, and when deferred calls are due."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from godoty_service.ledger.entry_times import REPAIRED, EntryTimes, Repair
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.mongo.collection import Document
from godoty_service.usage.rollup_job import RollupJob

_BATCH = 500  # entries that are repaired together
_LONGEST_WAIT = timedelta(minutes=10)  # more than the longest wait of reconciliation between two tries

RestateBudgets = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairBatch:
    """The repairs of some entries of a tenant.

    Attributes:
        tenant_id: The tenant.
        sessions: Our ids of the entries' sessions.
        repairs: The new times; empty: only the tenant's roll-up watermark is ahead.
    """

    tenant_id: str
    sessions: tuple[str, ...]
    repairs: tuple[Repair, ...]


class TimeRepair:
    """Finds and repairs times after a limit. An interrupted repair is found again and finished."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        rollup_job: RollupJob,
        totals_updater: SessionTotalsUpdater,
        restate_budgets: RestateBudgets,
    ) -> None:
        """Build it.

        Args:
            ledger: The entries.
            rollup_job: Their roll-ups.
            totals_updater: The totals of sessions.
            restate_budgets: Recomputes a tenant's budgets from the ledger.
        """
        self._ledger = ledger
        self._rollup_job = rollup_job
        self._totals_updater = totals_updater
        self._restate_budgets = restate_budgets

    async def find(self, tenant_id: str | None, *, now: datetime, limit: datetime) -> AsyncIterator[RepairBatch]:
        """Yield batches of entries that are dated after a limit, tenant by tenant.

        Args:
            tenant_id: The tenant; None: all tenants.
            now: The database's time.
            limit: A later time is wrong.
        """
        times = EntryTimes(now=now, limit=limit)
        async for entries in _batches(self._ledger.dated_after(limit, tenant_id=tenant_id)):
            times.learn(each for each in entries if each["kind"] == "call")
        ahead = {each for each in await self._rollup_job.tenants_ahead_of(limit) if tenant_id in (None, each)}
        async for entries in _batches(self._ledger.dated_after(limit, tenant_id=tenant_id)):
            ahead.discard(entries[0]["tenant_id"])
            yield await self._batch(entries, times)
        for each in sorted(ahead):
            yield RepairBatch(tenant_id=each, sessions=(), repairs=())

    async def apply(self, batch: RepairBatch) -> None:
        """Write the new times, and update roll-ups, session totals and budgets."""
        await self._rollup_job.repair(batch.tenant_id, batch.repairs)
        for session_uid in batch.sessions:
            await self._totals_updater.rebuild(batch.tenant_id, session_uid)
        await self._restate_budgets(batch.tenant_id)
        await self._ledger.finish_repair(batch.tenant_id, [each.entry_id for each in batch.repairs])

    async def requeue(self, tenant_id: str | None, *, now: datetime, limit: datetime) -> int:
        """Make due the pending calls that a wrong clock deferred for too long; return how many."""
        return await self._ledger.requeue(limit=limit + _LONGEST_WAIT, now=now, tenant_id=tenant_id)

    async def _batch(self, entries: Sequence[Document], times: EntryTimes) -> RepairBatch:
        tenant_id = entries[0]["tenant_id"]
        corrected = {each["corrects"] for each in entries if each["kind"] == "adjustment"}
        calls = {each["_id"]: each for each in await self._ledger.documents(tenant_id, corrected)}
        repairs: list[Repair] = []
        for each in entries:
            if each["kind"] == "call":
                found = times.of_call(each)
            else:
                found = times.of_adjustment(each, calls.get(each["corrects"]))
            if found is None and REPAIRED in each:
                found = Repair.from_entry(each)
            repairs += [found] if found is not None else []
        sessions = tuple(dict.fromkeys(each["session_uid"] for each in entries))
        return RepairBatch(tenant_id=tenant_id, sessions=sessions, repairs=tuple(repairs))


async def _batches(entries: AsyncIterator[Document]) -> AsyncIterator[list[Document]]:
    """Yield the entries in batches, each of one tenant."""
    batch: list[Document] = []
    async for each in entries:
        if batch and (len(batch) == _BATCH or each["tenant_id"] != batch[0]["tenant_id"]):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch
