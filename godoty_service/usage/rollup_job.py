"""Rolls up ledger entries, each exactly once, and advances the watermark of reports. Owns `usage_rollup_state`.

Each tenant has one state document, replaced as a whole under an optimistic lock: an update matches the `revision` that
was read and writes the next one. No transaction is open, so a server that dies leaves no lock.

A batch goes through three idempotent steps:

1. Write the ids of its entries, and its number, to the state document (`batch`).
2. Add its sums to the roll-up documents, which record the number of their last batch; mark the entries as rolled up.
3. Remove the batch from the state document and record its number as `last_batch`.

A server that finds a batch in the state document completes it first. Two may complete it at the same time: the batch
numbers make the second one a no-op.

A report advances the `watermark` to its `as_of`, which is never after the database's time. An entry that is rolled up
later becomes visible after the watermark, whichever time the clock of the server that wrote it showed, so the same
query with the same `as_of` returns the same report. An entry dated in the future becomes visible at its roll-up.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

import structlog

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.aio.periodic import run_every
from godoty_service.errors import DuplicateKey, GodotyError
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.entry_times import Repair
from godoty_service.mongo.collection import Collection, Document, Index, Snapshot
from godoty_service.usage.entries import QueuedEntry, UsageEntries, visible_from
from godoty_service.usage.entry_scan import sums_of_day
from godoty_service.usage.rollup_keys import Sums, add_sums, floor_day, rollup_sums, turn_sums
from godoty_service.usage.rollup_store import RollupStore
from godoty_service.usage.turn_openers import MovedTurn, openers
from godoty_service.usage.window import TICK, Window

log = structlog.get_logger(__name__)

_BATCH_SIZE = 500  # entries
_MAX_WATERMARK_AGE = timedelta(minutes=1)  # of the `as_of` of a report that names none
_LEASE_ID = "lease"  # a tenant's id is `tnt_…`
_LEASE_TIME = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Entries that are being rolled up.

    Attributes:
        number: 1, 2, 3 … within the tenant.
        ready: Ids of final entries, to be added to the roll-ups.
        pending: Ids of pending calls, to be marked as counted.
        time: The database's time at the start: all of the batch is visible by then; None: from an earlier version.
        deferred: Ids of pending calls whose served model is known.
        turn_openers: Ids of the calls with which their turns are counted; None: from an earlier version.
        moved_turns: Calls of earlier batches with which their turns are counted from now on.
        repairs: New times of entries; None: the batch rolls up entries.
    """

    number: int
    ready: tuple[str, ...]
    pending: tuple[str, ...]
    time: datetime | None
    deferred: tuple[str, ...] = ()
    turn_openers: tuple[str, ...] | None = None
    moved_turns: tuple[MovedTurn, ...] = ()
    repairs: tuple[Repair, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupState:
    """The roll-up state of a tenant.

    Attributes:
        revision: Version of the document, for the optimistic lock.
        watermark: Reports up to this time do not change any more; None: there was no report.
        last_change: When the newest of the rolled-up entries became visible.
        last_batch: Number of the last completed batch.
        batch: The batch in progress.
    """

    tenant_id: str
    revision: int
    watermark: datetime | None
    last_change: datetime | None
    last_batch: int
    batch: Batch | None

    @property
    def window(self) -> Window:
        """The times at which the entries of the batch can become visible."""
        return Window(watermark=self.watermark, end=self.batch.time if self.batch else None)


class RollupJob:
    """Rolls up entries by tenant."""

    COLLECTION = "usage_rollup_state"
    INDEXES: ClassVar = (Index(keys=[("batch.number", 1)], where={"batch.number": {"$exists": True}}),)

    def __init__(
        self,
        states: Collection,
        *,
        entries: UsageEntries,
        rollups: RollupStore,
        now: Callable[[], Awaitable[datetime]],
        owner: str,
    ) -> None:
        """Create the job.

        Args:
            states: The collection `usage_rollup_state`.
            entries: The ledger entries.
            rollups: The roll-ups.
            now: Returns the database's time, which all servers share.
            owner: The id of this server, for the lease of the periodic run.
        """
        self._states = states
        self._entries = entries
        self._rollups = rollups
        self._now = now
        self._owner = owner

    async def run(self, interval: float) -> None:
        """Roll up entries every `interval` seconds until cancelled; a lease lets one server at a time do it."""
        await run_every(interval, self.run_once, failure="usage_not_rolled_up", fault="rollup_fault")

    async def run_once(self) -> bool:
        """Roll up the queued entries of all tenants; return False if another server has the lease."""
        if not await self._acquire_lease():
            return False
        for each in await self._states.find({"batch.number": {"$exists": True}}, fields={"_id": 1}):
            await self._try_roll_up(each["_id"])
        tenant_id = await self._entries.next_queued_tenant("")
        while tenant_id is not None and await self._acquire_lease():
            await self._try_roll_up(tenant_id)
            tenant_id = await self._entries.next_queued_tenant(tenant_id)
        return True

    async def _try_roll_up(self, tenant_id: str) -> None:
        """Roll up a tenant's entries; log a fault of this tenant, so that the others are not blocked.

        Raises:
            StorageUnavailable: The next tenant would fail in the same way.
        """
        try:
            await self.roll_up(tenant_id)
        except GodotyError:
            raise
        except Exception:
            log.exception("rollup_fault", tenant_id=tenant_id)

    async def roll_up(self, tenant_id: str, *, include_pending: bool = False) -> RollupState:
        """Roll up the entries that are queued at the start; return the state, which has no batch in progress.

        A long backlog is bounded by the newest entry at the start: entries that are inserted meanwhile could otherwise
        keep the loop running without end.

        Args:
            tenant_id: The tenant.
            include_pending: Also mark pending calls as counted.
        """
        until: datetime | None = None
        is_last = False
        while True:
            state = await self.get_or_create(tenant_id)
            if state.batch is None:
                if is_last:
                    return state
                queued = await self._entries.queued(
                    tenant_id, include_pending=include_pending, limit=_BATCH_SIZE, until=until
                )
                if not queued:
                    return state
                batch = await self._next_batch(state, queued)
                is_last = len(queued) < _BATCH_SIZE
                if not is_last and until is None:
                    until = await self._entries.newest_queued_time(tenant_id, include_pending=include_pending)
                started = await self._replace(replace(state, batch=batch))
                if started is None:
                    is_last = False
                    continue
                state = started
            await self._finish_batch(state)

    async def advance_watermark(self, tenant_id: str, *, at: datetime | None = None) -> datetime:
        """Roll up all queued entries and advance the watermark to `at` (default: now); return that time.

        Without `at`, a watermark that is at most a minute old is reused, unless entries became visible after it.
        """
        while True:
            state = await self.roll_up(tenant_id, include_pending=True)
            if at is not None:
                if state.watermark is not None and at <= state.watermark:
                    return at
                watermark = at
            else:
                now = await self._now()
                oldest = max(now - _MAX_WATERMARK_AGE, state.last_change or now - _MAX_WATERMARK_AGE)
                if state.watermark is not None and state.watermark >= oldest:
                    return state.watermark
                watermark = max(filter(None, (now, state.watermark, state.last_change)))
            if await self._replace(replace(state, watermark=watermark)):
                return watermark

    async def repair(self, tenant_id: str, repairs: Sequence[Repair]) -> None:
        """Set new times of entries, and rebuild the roll-ups of the days that they leave and enter.

        A watermark that lies in the future is set back to now.
        """
        while True:
            state = await self.roll_up(tenant_id)
            now = await self._now()
            batch = Batch(number=state.last_batch + 1, ready=(), pending=(), time=now, repairs=tuple(repairs))
            watermark, last_change = (
                None if time is None else min(time, now - TICK) for time in (state.watermark, state.last_change)
            )
            started = await self._replace(replace(state, batch=batch, watermark=watermark, last_change=last_change))
            if started is not None:
                await self._finish_batch(started)
                return

    async def tenants_ahead_of(self, limit: datetime) -> list[str]:
        """Return the tenants whose watermark or newest change is after `limit`."""
        late: Document = {"$or": [{"watermark": {"$gt": limit}}, {"last_change": {"$gt": limit}}]}
        return [each["_id"] for each in await self._states.find(late, fields={})]

    async def get_or_create(self, tenant_id: str) -> RollupState:
        """Return a tenant's state; insert an empty one if it has none."""
        state = await self.get(tenant_id)
        while state is None:
            with suppress(DuplicateKey):
                await self._states.insert_one({"_id": tenant_id, "revision": 0, "last_batch": 0})
            state = await self.get(tenant_id)
        return state

    async def get(self, tenant_id: str) -> RollupState | None:
        """Return a tenant's state, or None."""
        found = await self._states.find_one({"_id": tenant_id})
        return _state_from_document(found) if found else None

    def read_at(self, snapshot: Snapshot) -> "RollupJob":
        """Return a job that reads states as of a snapshot; it must not write."""
        states = self._states.read_at(snapshot)
        return RollupJob(states, entries=self._entries, rollups=self._rollups, now=self._now, owner=self._owner)

    async def _next_batch(self, state: RollupState, queued: Sequence[QueuedEntry]) -> Batch:
        """Return the next batch.

        Which calls open their turns depends on other entries, which may change before the batch is completed. It is
        therefore decided here and stored with the batch.
        """
        ready, pending, deferred = (
            tuple(each.entry_id for each in queued if each.rollup_state == rollup_state)
            for rollup_state in ("ready", "pending", "deferred")
        )
        time = await self._now()
        calls = await self._entries.turn_calls(state.tenant_id, [each.turn_id for each in queued])
        window = Window(watermark=state.watermark, end=time)
        opening, moved = openers(calls, ready=set(ready), pending={*pending, *deferred}, window=window)
        return Batch(
            number=state.last_batch + 1,
            ready=ready,
            pending=pending,
            time=time,
            deferred=deferred,
            turn_openers=tuple(opening),
            moved_turns=tuple(moved),
        )

    async def _finish_batch(self, state: RollupState) -> None:
        """Complete the batch in progress; idempotent."""
        batch = state.batch
        if batch is None:
            return
        if batch.repairs is not None:
            await self._finish_repair(state, batch, batch.repairs)
            return
        tenant_id = state.tenant_id
        pending = (*batch.pending, *batch.deferred)
        moved = {each.entry_id: each.time for each in batch.moved_turns if each.rolled_up}
        entries = await self._entries.read(tenant_id, (*batch.ready, *pending, *moved))
        stored = batch.turn_openers
        turn_openers = set(stored) if stored is not None else await self._entries.first_calls(tenant_id, entries)
        by_id = {entry.entry_id: entry for entry in entries}
        sums: Sums = {}
        async for some in yielding_batches([by_id[each] for each in batch.ready if each in by_id]):
            add_sums(sums, rollup_sums(some, turn_openers=turn_openers, window=state.window))
        for name, time in moved.items():
            add_sums(sums, turn_sums(by_id[name], counted_from=time))
        if sums:
            await self._rollups.add_batch(batch.number, sums)
        await self._mark_entries(state, batch, turn_openers)
        times = [each.last_change for each in sums.values()] + [each.time for each in batch.moved_turns]
        counted = [call for each in pending if isinstance(call := by_id.get(each), ModelCall)]
        times += [visible_from(call, state.window) for call in counted]
        last_change = max((*times, *filter(None, [state.last_change])), default=None)
        await self._replace(replace(state, batch=None, last_batch=batch.number, last_change=last_change))

    async def _mark_entries(self, state: RollupState, batch: Batch, turn_openers: set[str]) -> None:
        """Mark the entries of a batch as counted or rolled up."""
        tenant_id, window = state.tenant_id, state.window
        if batch.moved_turns:
            await self._entries.move_turns(tenant_id, batch.moved_turns)
        if batch.pending or batch.deferred:
            pending = (*batch.pending, *batch.deferred)
            await self._entries.mark_counted(tenant_id, pending, window=window, turn_openers=turn_openers)
        if batch.deferred:
            await self._entries.mark_listed(tenant_id, batch.deferred, window=window)
        if batch.ready:
            await self._entries.mark_rolled_up(tenant_id, batch.ready, window=window, turn_openers=turn_openers)

    async def _finish_repair(self, state: RollupState, batch: Batch, repairs: Sequence[Repair]) -> None:
        time = batch.time or await self._now()
        await self._entries.apply_repairs(state.tenant_id, repairs, visible_from=time)
        days = await self._entries.cap_visibility(state.tenant_id, time)
        moved = [start for each in repairs for start in each.starts]
        for day in sorted(days | {floor_day(start) for start in moved}):
            sums = await sums_of_day(self._entries, state.tenant_id, day)
            await self._rollups.replace_day(batch.number, state.tenant_id, day, sums)
        await self._replace(replace(state, batch=None, last_batch=batch.number, last_change=time))

    async def _replace(self, state: RollupState) -> RollupState | None:
        """Write the next revision of a state; return it, or None if the revision was replaced by another server."""
        new = replace(state, revision=state.revision + 1)
        replaced = await self._states.update_one(
            {"_id": state.tenant_id, "revision": state.revision},
            [{"$replaceWith": {"$literal": _state_to_document(new)}}],
        )
        return new if replaced else None

    async def _acquire_lease(self) -> bool:
        """Acquire or renew the lease; return False if another server has it."""
        now = await self._now()
        available = {"_id": _LEASE_ID, "$or": [{"owner": self._owner}, {"until": {"$lt": now}}]}
        lease = {"owner": self._owner, "until": now + _LEASE_TIME}
        try:
            await self._states.update_one(available, {"$set": lease}, upsert=True)
        except DuplicateKey:
            return False
        return True


def _state_to_document(state: RollupState) -> Document:
    document: Document = {"_id": state.tenant_id, "revision": state.revision, "last_batch": state.last_batch}
    times = {"watermark": state.watermark, "last_change": state.last_change}
    document |= {name: time for name, time in times.items() if time is not None}
    if state.batch is not None:
        document["batch"] = _batch_to_document(state.batch)
    return document


def _state_from_document(document: Document) -> RollupState:
    batch = document.get("batch")
    return RollupState(
        tenant_id=document["_id"],
        revision=document["revision"],
        watermark=document.get("watermark"),
        last_change=document.get("last_change"),
        last_batch=document["last_batch"],
        batch=_batch_from_document(batch) if batch else None,
    )


def _batch_to_document(batch: Batch) -> Document:
    document: Document = {"number": batch.number, "ready": list(batch.ready), "pending": list(batch.pending)}
    if batch.time is not None:
        document["time"] = batch.time
    if batch.repairs is not None:
        document["repairs"] = [each.to_document() for each in batch.repairs]
    if batch.turn_openers is not None:
        document |= {"deferred": list(batch.deferred), "turn_openers": list(batch.turn_openers)}
        document["moved_turns"] = [each.to_document() for each in batch.moved_turns]
    return document


def _batch_from_document(document: Document) -> Batch:
    repairs = document.get("repairs")
    return Batch(
        number=document["number"],
        ready=tuple(document["ready"]),
        pending=tuple(document["pending"]),
        time=document.get("time"),
        deferred=tuple(document.get("deferred", ())),
        turn_openers=tuple(document["turn_openers"]) if "turn_openers" in document else None,
        moved_turns=tuple(map(MovedTurn.from_document, document.get("moved_turns", ()))),
        repairs=None if repairs is None else tuple(map(Repair.from_document, repairs)),
    )
