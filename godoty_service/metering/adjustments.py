"""Corrects final calls by new, dated and attributed entries; the call's own entry never changes.

An unresolved call is resolved once. A call with a known cost can be adjusted any number of times. Each adjustment is
inserted with the mark `unapplied`, which is removed when its session's totals and its tenant's budget include it: a
later sweep finishes what a dead server did not.
"""

from decimal import Decimal

import structlog

from godoty_service.budgets.service import BudgetService
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import CallNotFound, DuplicateKey, StorageUnavailable
from godoty_service.ledger.adjustment_order import AdjustmentOrder, adjustment_of, check_same
from godoty_service.ledger.call_totals import call_total, check_total, resolved_usage
from godoty_service.ledger.entries import Adjustment, CostSource, ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import TokenUsage

log = structlog.get_logger(__name__)

_TRIES = 100  # numbers that other entries may take first; each failed try means that another entry was inserted
_SWEEP = 100  # adjustments that one sweep applies
# The reason of a resolution, by the source of the cost.
_REASONS = {
    None: "reported by its own stream",
    CostSource.BILLED: "reported by its own stream",
    CostSource.RECONCILED: "reconciled",
    CostSource.CATALOGUE: "priced by the catalogue",
}


class AlreadyResolved(ValueError):
    """The call was resolved before."""


class NotUnresolved(ValueError):
    """The call is not unresolved."""


class Adjustments:
    """Inserts adjustments and applies them to session totals and budgets."""

    def __init__(
        self,
        ledger: Ledger,
        totals_updater: SessionTotalsUpdater,
        *,
        budget_service: BudgetService | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._ledger = ledger
        self._totals_updater = totals_updater
        self._budget_service = budget_service
        self._clock = clock

    async def settle_late(self, call: ModelCall) -> None:
        """Resolve a call that another server closed as unresolved, if its cost is known or it was never sent."""
        never_sent = not call.counts.call
        cost = money.ZERO if never_sent else call.counted_cost
        if cost is None:
            return
        entry = await self._ledger.get(call.tenant_id, call.call_id)
        if entry is None or not entry.counts.unresolved:
            return  # closed by the provider's record
        why = "provably never sent" if never_sent else _REASONS[call.cost_source]
        try:
            await self.resolve(entry, cost=cost, usage=call.usage, why=why, by="godoty", above_bound=True)
        except AlreadyResolved:
            return

    async def check(self, call: ModelCall, *, cost: Decimal, above_bound: bool) -> str:
        """Check a resolution and return its id: there is one per call, so that a call is resolved once.

        Raises:
            AmountRefused: The cost is out of bounds, or above the call's upper bound.
            NotUnresolved: The call is in another state.
            AlreadyResolved: It was resolved before.
        """
        if not call.counts.unresolved:
            raise NotUnresolved(f"the call is {call.state.value}, not unresolved")
        entry_id = f"adj_{call.call_id}"
        if await self._ledger.adjustments.get(call.tenant_id, entry_id) is not None:
            raise AlreadyResolved("the call was resolved before")
        check_total(call, cost, above_bound=above_bound)
        return entry_id

    async def resolve(
        self,
        call: ModelCall,
        *,
        cost: Decimal,
        usage: TokenUsage | None = None,
        why: str,
        by: str,
        above_bound: bool = False,
    ) -> Adjustment:
        """Record what an unresolved call cost.

        Args:
            call: The call, as it is now.
            cost: Its cost, in US dollars.
            usage: Its usage, if known: the part that its entry does not count yet is added.
            why: The evidence for the cost.
            by: The person or service that states it.
            above_bound: Whether the cost may exceed the call's upper bound.

        Raises:
            AmountRefused: The cost is out of bounds, or above the call's upper bound.
            NotUnresolved: The call is in another state.
            AlreadyResolved: It was resolved before.
        """
        entry_id = await self.check(call, cost=cost, above_bound=above_bound)
        adjustment = Adjustment(
            entry_id=entry_id,
            tenant_id=call.tenant_id,
            session_uid=call.session_uid,
            session_id=call.session_id,
            turn_id=call.turn_id,
            number=await self._ledger.highest(call.tenant_id, call.session_uid) + 1,
            corrects=call.call_id,
            cost=cost,
            usage=resolved_usage(call, usage),
            resolves=True,
            bound=call.upper_bound,
            model=call.model,
            provider=call.provider,
            agent=call.agent,
            agent_version=call.agent_version,
            purpose=call.purpose,
            api_key_id=call.api_key_id,
            user=call.user if call.user_reference is None else None,
            user_reference=call.user_reference,
            call_time=call.start_time,
            time=self._clock(),
            why=why,
            by=by,
        )
        await self._totals_updater.mark_stale(call.tenant_id, call.session_uid)
        try:
            written = await self._ledger.insert(adjustment)
        except DuplicateKey as error:
            raise AlreadyResolved("the call was resolved before") from error
        await self._apply(written)
        return written

    async def find(self, order: AdjustmentOrder) -> Adjustment | None:
        """Return the adjustment that an order resulted in, applied if it was not, or None.

        Raises:
            RequestIdReused: The request id was used for another adjustment.
        """
        found = await self._ledger.adjustments.get(order.tenant_id, order.entry_id)
        if found is not None:
            check_same(order, found)
            await self._apply(found)
        return found

    async def total(self, tenant_id: str, call_id: str) -> Decimal:
        """Return the cost of a call including all its adjustments.

        Raises:
            CallNotFound: The tenant has no such call.
        """
        call = await self._call(tenant_id, call_id)
        return call_total(call, await self._ledger.adjustments.of_call(call))

    async def preview(self, order: AdjustmentOrder) -> Adjustment:
        """Return the adjustment that an order would result in now, or the one that it did result in.

        It has the next number of its session. The number is read before the amounts: any entry that is inserted after
        they were read takes that number or a later one.

        Raises:
            CallNotFound: The tenant has no such call.
            CallNotAdjustable: The call is pending, or unresolved.
            AmountRefused: The call's total would be out of bounds.
        """
        call = await self._call(order.tenant_id, order.call_id)
        number = await self._ledger.highest(call.tenant_id, call.session_uid) + 1
        earlier = await self._ledger.adjustments.of_call(call)
        existing = next((each for each in earlier if each.entry_id == order.entry_id), None)
        return existing or adjustment_of(order, call, earlier, number=number, time=self._clock())

    async def adjust(self, order: AdjustmentOrder) -> Adjustment:
        """Correct the cost of a call; the same order again returns the same adjustment.

        It is inserted under exactly the number that follows the entries its amount was computed from, so the second of
        two concurrent orders is computed again.

        Raises:
            CallNotFound: The tenant has no such call.
            CallNotAdjustable: The call is pending, or unresolved.
            AmountRefused: The call's total would be out of bounds.
            RequestIdReused: The request id was used for another adjustment.
            StorageUnavailable: It may not be inserted, or not be applied; the same order again finishes it.
        """
        for _ in range(_TRIES):
            if (found := await self.find(order)) is not None:
                return found
            adjustment = await self.preview(order)
            await self._totals_updater.mark_stale(adjustment.tenant_id, adjustment.session_uid)
            try:
                inserted = await self._ledger.adjustments.insert(adjustment)
            except DuplicateKey:  # the same order, concurrently
                continue
            if inserted:
                await self._apply(adjustment)
                return adjustment
        raise StorageUnavailable(
            f"Other entries of the session were inserted first in {_TRIES} tries; retry in 1 s.", retry_after=1.0
        )

    async def apply_pending(self) -> int:
        """Apply the adjustments that dead servers inserted and did not apply; return how many.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        unapplied = await self._ledger.adjustments.unapplied(limit=_SWEEP)
        for adjustment in unapplied:
            try:
                await self._apply(adjustment)
            except StorageUnavailable:
                raise
            except Exception:  # a session with broken totals must not hold up the others
                log.exception("adjustment_not_applied", adjustment_id=adjustment.entry_id)
        return len(unapplied)

    async def _call(self, tenant_id: str, call_id: str) -> ModelCall:
        call = await self._ledger.get(tenant_id, call_id)
        if call is None:
            raise CallNotFound("The tenant has no such model call.", metadata={"call_id": call_id})
        return call

    async def _apply(self, adjustment: Adjustment) -> None:
        """Apply an adjustment to its session's totals and its tenant's budget; idempotent."""
        await self._totals_updater.refresh(adjustment.tenant_id, adjustment.session_uid)
        if self._budget_service is not None:
            await self._budget_service.apply_adjustment(adjustment)
