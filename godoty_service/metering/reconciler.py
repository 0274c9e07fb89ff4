"""Reconciles deferred calls: cancelled, broken and orphaned ones are closed by the provider's own records.

Every server runs it. A due call is claimed by one of them at a time, and closes once: it leaves `pending` only once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.budgets.service import BudgetService
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, StorageError, StorageUnavailable
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.ledger import DueCall, Ledger
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.ledger.states import CallState
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.late_calls import LateCalls
from godoty_service.metering.settlement import ReadGeneration, RecordTimeouts, SettlementFinder
from godoty_service.pricing import money
from godoty_service.pricing.oracle import PricingOracle

log = structlog.get_logger(__name__)

# Seconds to wait after the first, second … try that found no record; the last one repeats. Records come within
# seconds, for interrupted streams within a minute or so.
_WAITS = (0.25, 0.25, 0.5, 0.5, 1, 1, 2, 2, 3, 5, 5, 10, 10, 15, 30, 30, 60)
_CLAIM = timedelta(seconds=30)  # no try takes longer; after it, another server may claim the call of a dead one
_BATCH = 16  # calls that are reconciled concurrently
_LAST_TRY = 5.0  # seconds, at shutdown
_LATE_INSERT = timedelta(minutes=10)  # an insert without a response may still take effect within this time
_SWEEP_INTERVAL = timedelta(seconds=10)  # between two sweeps for the reservations of dead servers

ReadableKeys = Callable[[], Awaitable[Collection[str]]]
Alive = Callable[[Collection[str]], Awaitable[set[str]]]


class Outcome(Enum):
    """The outcome of one try to reconcile a call."""

    SETTLED = auto()
    UNRESOLVED = auto()
    POSTPONED = auto()


class Reconciler:
    """Closes the pending calls that no turn is working on."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        oracle: PricingOracle,
        totals_updater: SessionTotalsUpdater,
        adjustments: Adjustments,
        read_generation: ReadGeneration,
        alive: Alive,
        owner: str,
        readable_keys: ReadableKeys,
        record: Callable[[ModelCall], None],
        timeouts: RecordTimeouts,
        keeps_records: Callable[[], bool],
        now: Callable[[], Awaitable[datetime]],
        budget_service: BudgetService | None = None,
        settle_orphans: Callable[[], Awaitable[object]] | None = None,
        clock: Clock = utc_now,
    ) -> None:
        """Build a reconciler.

        Args:
            ledger: The entries.
            oracle: Prices usage if no record comes.
            totals_updater: Updates the session totals when a call closes.
            adjustments: Resolves calls that another server closed as unresolved.
            read_generation: Reads a generation's record by key id and generation id; None: there is none, or none yet.
            alive: Returns the servers among these that are alive.
            owner: The id of this server.
            readable_keys: Returns the ids of the keys that `read_generation` can read with.
            record: Called with each call that closes.
            timeouts: How long to wait for records.
            keeps_records: Returns whether the upstream may keep records.
            now: Reads the database's time, by which calls are due and have waited.
            budget_service: Settles the budgets of closed calls; None: there are no budgets.
            settle_orphans: Settles the reservations of dead servers; None: there are none.
            clock: Returns the time.
        """
        self._ledger = ledger
        self._totals_updater = totals_updater
        self._adjustments = adjustments
        self._alive = alive
        self._owner = owner
        self._readable_keys = readable_keys
        self._record = record
        self._timeouts = timeouts
        self._now = now
        self._budget_service = budget_service
        self._settle_orphans = settle_orphans
        self._clock = clock
        self._settlements = SettlementFinder(
            oracle=oracle, read_generation=read_generation, keeps_records=keeps_records, timeouts=timeouts, clock=clock
        )
        self._late_calls = LateCalls(
            find=self._settlements.find, resolve=adjustments.settle_late, wait=_wait, longest=timeouts.unreachable
        )
        self._swept_at = clock() - 2 * _SWEEP_INTERVAL

    async def run(self, interval: float) -> None:
        """Reconcile until cancelled, once per interval in seconds; at the end, write the calls still in memory."""
        try:
            await run_every(interval, self.tick, failure="reconciliation_failed", fault="reconciliation_fault")
        finally:
            await self._finish()

    async def tick(self) -> dict[Outcome, int]:
        """Reconcile all calls that are due now; return the number of calls by outcome.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        await self._write_unwritten()
        await self._sweep()
        if not self._late_calls.waiting and not await self._ledger.unsettled.any_open():
            return dict.fromkeys(Outcome, 0)
        await self._ledger.defer_own(self._owner)
        owners = await self._ledger.owners() - {self._owner}
        if dead := owners - await self._alive(owners):
            await self._ledger.defer_orphans(dead)
        self._settlements.readable_keys = await self._readable_keys()
        outcomes = dict.fromkeys(Outcome, 0)
        now = started = await self._now()
        await self._late_calls.resolve_due(now)
        while batch := await self._claim_batch(started, now):
            for outcome in await asyncio.gather(*(self._reconcile(due, now) for due in batch)):
                outcomes[outcome] += 1
            now = await self._now()
        return outcomes

    async def _finish(self) -> None:
        """Write the calls still in memory, and try once more to resolve those that other servers closed."""
        with suppress(GodotyError, TimeoutError):
            await self._write_unwritten()
            async with asyncio.timeout(_LAST_TRY):
                self._settlements.readable_keys = await self._readable_keys()
                await self._late_calls.resolve_due(await self._now() + timedelta(seconds=_WAITS[-1]))
        self._late_calls.give_up()

    async def _sweep(self) -> None:
        """Settle the reservations and apply the adjustments that dead servers did not finish."""
        if self._settle_orphans is not None and self._clock() - self._swept_at > _SWEEP_INTERVAL:
            self._swept_at = self._clock()
            await self._settle_orphans()
            await self._adjustments.apply_pending()

    async def _write_unwritten(self) -> None:
        """Write the calls that turns could not write.

        A call that was never sent is retained while its entry may still be inserted: only this server knows that it is
        void.

        Raises:
            StorageUnavailable: The database is still out of reach.
        """
        calls = self._ledger.unwritten
        missing = await self._ledger.missing([call for call in calls if self._insert_may_follow(call)])
        for call in calls:
            if call.call_id in missing:
                continue
            try:
                await self._write(call)
            except StorageUnavailable:
                raise
            except StorageError:  # a call that cannot be written must not hold up the others
                log.exception("call_not_written", call_id=call.call_id, cost_usd=money.format_usd(call.cost))
            else:
                self._ledger.discard(call)

    def _insert_may_follow(self, call: ModelCall) -> bool:
        voided_at = call.settle_time
        return not call.counts.call and voided_at is not None and self._clock() - voided_at < _LATE_INSERT

    async def _write(self, call: ModelCall) -> None:
        if not call.counts.open:
            if not await self._close(call):
                await self._adjustments.settle_late(call)
        elif not await self._ledger.defer(call):
            entry = await self._ledger.get(call.tenant_id, call.call_id)
            if entry is not None and entry.counts.unresolved:
                self._late_calls.add(call, now=await self._now())

    async def _claim_batch(self, started: datetime, now: datetime) -> list[DueCall]:
        batch: list[DueCall] = []
        while len(batch) < _BATCH:
            due = await self._ledger.claim_due(
                due_by=started,
                claimed_until=now + _CLAIM,
                provider_key_ids=self._settlements.readable_keys,
                any_before=now - self._timeouts.without_usage,
            )
            if due is None:
                break
            batch.append(due)
        return batch

    async def _reconcile(self, due: DueCall, now: datetime) -> Outcome:
        """Close or postpone a call; on a fault it stays claimed, and the others are not affected.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        try:
            unsent = await self._unsent(due.call)
            found = unsent or await self._settlements.find(due.call, now - due.deferred_time)
            if found is None:
                await self._ledger.postpone(due.call, due=now + _wait(due.tries))
                return Outcome.POSTPONED
            if not await self._close(found) and unsent is None:  # else it was closed, and its reservation settled
                await self._adjustments.settle_late(found)  # another server may have closed it as unresolved
        except StorageUnavailable:
            raise
        except Exception:
            log.exception("call_not_reconciled", call_id=due.call.call_id)
            return Outcome.POSTPONED
        return Outcome.UNRESOLVED if found.counts.unresolved else Outcome.SETTLED

    async def _unsent(self, call: ModelCall) -> ModelCall | None:
        """Return a call as void if its server died before its bound was reserved; None: it may have been sent.

        Its entry and its reservation are written side by side. Unresolved, its bound would be in no budget.
        """
        ended = call.duration is not None or call.generation_id is not None
        if ended or self._budget_service is None or not await self._budget_service.was_never_sent(call):
            return None
        return replace(call, state=CallState.VOID, settle_time=self._clock())

    async def _close(self, call: ModelCall) -> bool:
        """Close a call and update the sums that include it; return False if it was closed before."""
        if not await self._ledger.close(call):
            return False
        self._record(call)
        log.info(
            "call_reconciled",
            call_id=call.call_id,
            tenant_id=call.tenant_id,
            state=call.state.value,
            cost_usd=money.format_usd(call.cost),
        )
        await self._totals_updater.refresh(call.tenant_id, call.session_uid)
        if self._budget_service is not None:
            await self._budget_service.settle_reconciled(call)
        return True


def _wait(tries: int) -> timedelta:
    """Return how long to wait after this many tries."""
    return timedelta(seconds=_WAITS[min(tries, len(_WAITS)) - 1])
