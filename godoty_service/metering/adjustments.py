"""Settles what was given up on: a new, dated and attributed entry, once; the old one is never touched."""

from decimal import Decimal

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.metering.call import Adjustment, CallState, ModelCall
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
            await self.resolve(now, cost=call.cost, usage=call.usage, why="told by its own stream", by="godoty")
        except AlreadyResolved:
            return

    async def check(self, call: ModelCall) -> str:
        """Tell the one id that an adjustment which resolves a call can have: a call is resolved once.

        Raises:
            NotUnresolved: The call is in another state.
            AlreadyResolved: It was resolved before.
        """
        if call.state is not CallState.UNRESOLVED:
            raise NotUnresolved(f"the call is {call.state.value}, not unresolved")
        entry_id = f"adj_{call.call_id}"
        if await self._ledger.adjustment(call.tenant_id, entry_id) is not None:
            raise AlreadyResolved("the call was resolved before")
        return entry_id

    async def resolve(
        self, call: ModelCall, *, cost: Decimal, usage: TokenUsage | None = None, why: str, by: str
    ) -> Adjustment:
        """Say what an unresolved call has cost.

        Args:
            call: The call, as it is now.
            cost: What it cost, in US dollars.
            usage: What it used, where that is known.
            why: How that is known.
            by: Who says so.

        Raises:
            NotUnresolved: The call is in another state.
            AlreadyResolved: It was resolved before.
        """
        entry_id = await self.check(call)
        adjustment = Adjustment(
            entry_id=entry_id,
            tenant_id=call.tenant_id,
            session_uid=call.session_uid,
            session_id=call.session_id,
            turn_id=call.turn_id,
            number=await self._ledger.highest(call.tenant_id, call.session_uid) + 1,
            corrects=call.call_id,
            cost=cost,
            usage=usage,
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
