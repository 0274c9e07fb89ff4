"""Settles what was given up on: a new, dated and attributed entry, once; the old one is never touched."""

from decimal import Decimal

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.metering.call import Adjustment, CallState, ModelCall
from godoty_service.metering.call_totals import check_total, resolved_usage
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.spending import Spending
from godoty_service.metering.usage import TokenUsage


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
        """Settle a call by what its own stream told, although it was given up on meanwhile; else do nothing."""
        now = await self._ledger.get(call.tenant_id, call.call_id)
        if now is None or now.state is not CallState.UNRESOLVED or call.cost is None:
            return  # the provider's record was faster
        try:
            await self.resolve(
                now, cost=call.cost, usage=call.usage, why="told by its own stream", by="godoty", above_bound=True
            )
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
        if await self._ledger.adjustment(call.tenant_id, entry_id) is not None:
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
        await self._folds.advance(call.tenant_id, call.session_uid)
        if self._spending is not None:
            await self._spending.resolved(call, written)
        return written
