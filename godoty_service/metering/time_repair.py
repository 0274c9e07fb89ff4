"""Repairs what wrong clocks wrote: entries, the sums that they are in, and what waits for a time that is too late."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from godoty_service.metering.booking import Booking
from godoty_service.metering.entry_times import REPAIRED, EntryTimes, Repair
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.mongo import Document

_BATCH = 500  # entries that are repaired at once
_LONGEST_WAIT = timedelta(minutes=10)  # for which reconciliation leaves a call on purpose, and more

Restate = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairBatch:
    """Entries of a tenant, and their new times.

    Attributes:
        sessions: Our ids of the sessions that they are in.
        repairs: The new times; empty: only the tenant's books are ahead.
    """

    tenant_id: str
    sessions: tuple[str, ...]
    repairs: tuple[Repair, ...]


class TimeRepair:
    """Finds and repairs times after a limit. A repair that was cut short is found again, and finished."""

    def __init__(self, *, ledger: Ledger, booking: Booking, folds: SessionFolds, restate: Restate) -> None:
        """Build it.

        Args:
            ledger: The entries.
            booking: Their roll-ups.
            folds: The sums of sessions.
            restate: States a tenant's budgets anew from the ledger.
        """
        self._ledger = ledger
        self._booking = booking
        self._folds = folds
        self._restate = restate

    async def find(self, tenant_id: str | None, *, now: datetime, limit: datetime) -> AsyncIterator[RepairBatch]:
        """Find what is dated after a limit, tenant by tenant.

        Args:
            tenant_id: Whose; None: everybody's.
            now: The database's time.
            limit: Later times are wrong.
        """
        times = EntryTimes(now=now, limit=limit)
        async for some in _batches(self._ledger.dated_after(limit, tenant_id=tenant_id)):
            times.learn(each for each in some if each["kind"] == "call")
        ahead = {each for each in await self._booking.ahead(limit) if tenant_id in (None, each)}
        async for some in _batches(self._ledger.dated_after(limit, tenant_id=tenant_id)):
            ahead.discard(some[0]["tenant_id"])
            yield await self._batch(some, times)
        for each in sorted(ahead):
            yield RepairBatch(tenant_id=each, sessions=(), repairs=())

    async def apply(self, batch: RepairBatch) -> None:
        """Write the new times, and bring roll-ups, session sums and budgets in line."""
        await self._booking.repair(batch.tenant_id, batch.repairs)
        for session_uid in batch.sessions:
            await self._folds.rebuild(batch.tenant_id, session_uid)
        await self._restate(batch.tenant_id)
        await self._ledger.finish_repair(batch.tenant_id, [each.entry_id for each in batch.repairs])

    async def requeue(self, tenant_id: str | None, *, now: datetime, limit: datetime) -> int:
        """Make due the open calls that a wrong clock left for too late; returns how many."""
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
                found = Repair.again(each)
            repairs += [found] if found is not None else []
        sessions = tuple(dict.fromkeys(each["session_uid"] for each in entries))
        return RepairBatch(tenant_id=tenant_id, sessions=sessions, repairs=tuple(repairs))


async def _batches(entries: AsyncIterator[Document]) -> AsyncIterator[list[Document]]:
    """Give entries some at a time, those of a tenant together."""
    batch: list[Document] = []
    async for each in entries:
        if batch and (len(batch) == _BATCH or each["tenant_id"] != batch[0]["tenant_id"]):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch
