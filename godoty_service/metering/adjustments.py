"""Corrects calls that are final by new, dated and attributed entries; the call's own entry is never changed.

An unresolved call is resolved once. A call whose cost is known is adjusted any number of times. Each entry is inserted
with the mark `unapplied`, which is removed when its session's sums and its tenant's budget have it: what a server left
in between is finished by a later sweep.
"""

from decimal import Decimal

import structlog

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import CallNotFound, DuplicateKey, StorageUnavailable
from godoty_service.metering import money
from godoty_service.metering.adjustment_order import AdjustmentOrder, adjustment_of, check_same
from godoty_service.metering.call import Adjustment, CallState, CostSource, ModelCall
from godoty_service.metering.call_totals import call_total, check_total, resolved_usage
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.spending import Spending
from godoty_service.metering.usage import TokenUsage

log = structlog.get_logger(__name__)

_TRIES = 100  # numbers that other entries may take first; each failed try means that another entry was inserted
_SWEEP = 100  # adjustments that are finished at once
# Why a call's cost is known, by its source.
_EVIDENCE = {
    None: "told by its own stream",
    CostSource.BILLED: "told by its own stream",
    CostSource.RECONCILED: "reconciled",
    CostSource.CATALOGUE: "priced by the catalogue",
}


class AlreadyResolved(ValueError):
    """Somebody has resolved the call."""


class NotUnresolved(ValueError):
    """The call is not unresolved."""


class Adjustments:
    """Writes adjustments."""

    def __init__(
        self, ledger: Ledger, folds: SessionFolds, *, spending: Spending | None = None, clock: Clock = utc_now
    ) -> None:
        self._ledger = ledger
        self._folds = folds
        self._spending = spending
        self._clock = clock

    async def settle_late(self, call: ModelCall) -> None:
        """Resolve a call that another server closed as unresolved: by its cost, or because it was never sent."""
        never_sent = call.state is CallState.VOID
        cost = money.ZERO if never_sent else call.cost
        if cost is None:
            return
        now = await self._ledger.get(call.tenant_id, call.call_id)
        if now is None or now.state is not CallState.UNRESOLVED:
            return  # the provider's record was faster
        why = "provably never sent" if never_sent else _EVIDENCE[call.cost_source]
        try:
            await self.resolve(now, cost=cost, usage=call.usage, why=why, by="godoty", above_bound=True)
        except AlreadyResolved:
            return

    async def check(self, call: ModelCall, *, cost: Decimal, above_bound: bool) -> str:
        """Check a resolution; return the one id that it can have: a call is resolved once.

        Raises:
            AmountRefused: No call can cost that, or it is above the call's bound.
            NotUnresolved: The call is in another state.
            AlreadyResolved: It was resolved before.
        """
        if call.state is not CallState.UNRESOLVED:
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
        """Say what an unresolved call has cost.

        Args:
            call: The call, as it is now.
            cost: What it cost, in US dollars.
            usage: What it used, where that is known: what its entry does not count already is added.
            why: How that is known.
            by: Who says so.
            above_bound: The cost may be more than the call's upper bound.

        Raises:
            AmountRefused: No call can cost that, or it is above the call's bound.
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
            user=call.user,
            call_time=call.start_time,
            time=self._clock(),
            why=why,
            by=by,
        )
        await self._folds.announce(call.tenant_id, call.session_uid)
        try:
            written = await self._ledger.insert(adjustment)
        except DuplicateKey as error:
            raise AlreadyResolved("the call was resolved before") from error
        await self._apply(written)
        return written

    async def find(self, order: AdjustmentOrder) -> Adjustment | None:
        """Return the adjustment that was made for an order, or None; what it still lacks is done.

        Raises:
            RequestIdReused: The request id was used for another adjustment.
        """
        found = await self._ledger.adjustments.get(order.tenant_id, order.entry_id)
        if found is not None:
            check_same(order, found)
            await self._apply(found)
        return found

    async def total(self, tenant_id: str, call_id: str) -> Decimal:
        """Return what a call costs now, with all its adjustments.

        Raises:
            CallNotFound: The tenant has no such call.
        """
        call = await self._call(tenant_id, call_id)
        return call_total(call, await self._ledger.adjustments.of_call(call))

    async def draft(self, order: AdjustmentOrder) -> Adjustment:
        """Return what an order comes to now, under the next number of its session, or what was made of it meanwhile.

        The number is read before the amounts: whatever is inserted after them takes that number or a later one.

        Raises:
            CallNotFound: The tenant has no such call.
            CallNotAdjustable: The call is pending, or unresolved.
            AmountRefused: No call can cost what it would cost.
        """
        call = await self._call(order.tenant_id, order.call_id)
        number = await self._ledger.highest(call.tenant_id, call.session_uid) + 1
        earlier = await self._ledger.adjustments.of_call(call)
        made = next((each for each in earlier if each.entry_id == order.entry_id), None)
        return made or adjustment_of(order, call, earlier, number=number, time=self._clock())

    async def adjust(self, order: AdjustmentOrder) -> Adjustment:
        """Correct what a call cost; the same order again returns the same adjustment.

        It is inserted under exactly the number after those that its amount was computed from, so of two that are made
        at once the second one is computed anew.

        Raises:
            CallNotFound: The tenant has no such call.
            CallNotAdjustable: The call is pending, or unresolved.
            AmountRefused: No call can cost what it would cost.
            RequestIdReused: The request id was used for another adjustment.
            StorageUnavailable: It may be inserted or not, or a sum may lack it; the same order again finishes it.
        """
        for _ in range(_TRIES):
            if (found := await self.find(order)) is not None:
                return found
            adjustment = await self.draft(order)
            await self._folds.announce(adjustment.tenant_id, adjustment.session_uid)
            try:
                inserted = await self._ledger.adjustments.insert(adjustment)
            except DuplicateKey:  # the same order at the same time
                continue
            if inserted:
                await self._apply(adjustment)
                return adjustment
        raise StorageUnavailable("Too many entries are written to the session just now.", retry_after=1.0)

    async def apply_left(self) -> int:
        """Finish the adjustments that dead servers left unapplied; returns how many.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        left = await self._ledger.adjustments.unapplied(limit=_SWEEP)
        for adjustment in left:
            try:
                await self._apply(adjustment)
            except StorageUnavailable:
                raise
            except Exception:  # one whose session's sums are broken must not hold up the others
                log.exception("adjustment_not_applied", adjustment_id=adjustment.entry_id)
        return len(left)

    async def _call(self, tenant_id: str, call_id: str) -> ModelCall:
        call = await self._ledger.get(tenant_id, call_id)
        if call is None:
            raise CallNotFound("The tenant has no such model call.", metadata={"call_id": call_id})
        return call

    async def _apply(self, adjustment: Adjustment) -> None:
        """Bring the session's sums and the tenant's budget up to date; doing it again changes nothing."""
        await self._folds.advance(adjustment.tenant_id, adjustment.session_uid)
        if self._spending is not None:
            await self._spending.correct(adjustment)
