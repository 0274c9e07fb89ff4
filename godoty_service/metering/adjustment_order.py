"""What a person asks to be corrected about a call, and the entry that comes of it. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from godoty_service.errors import AmountRefused, CallNotAdjustable, RequestIdReused
from godoty_service.metering import money
from godoty_service.metering.call import Adjustment, CallState, ModelCall
from godoty_service.metering.call_totals import call_total, check_total, sum_exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustmentOrder:
    """A correction of what a call cost. Money is in US dollars.

    Attributes:
        tenant_id: Whose call it is.
        call_id: The call.
        amount: Its new cost in all, or what is added to it.
        is_new_cost: Which of the two `amount` is.
        why: The reason.
        by: Who asks.
        request_id: The same id is the same adjustment, within the tenant.
        above_bound: The call's total may be above its upper bound.
    """

    tenant_id: str
    call_id: str
    amount: Decimal
    is_new_cost: bool
    why: str
    by: str
    request_id: str
    above_bound: bool = False

    @property
    def entry_id(self) -> str:
        """The id of the adjustment: one for each request id of a tenant."""
        name = f"{self.tenant_id}\n{self.request_id}"
        return f"adj_{hashlib.sha256(name.encode()).hexdigest()[:28]}"


def check_same(order: AdjustmentOrder, made: Adjustment) -> None:
    """Check that an adjustment is what is ordered.

    Raises:
        RequestIdReused: The request id was used for another adjustment.
    """
    amount = made.cost if made.new_cost is None else made.new_cost
    found = (made.corrects, amount, made.new_cost is not None, made.why, made.by)
    if found != (order.call_id, order.amount, order.is_new_cost, order.why, order.by):
        raise RequestIdReused(
            "The request id was used for another adjustment.", metadata={"adjustment_id": made.entry_id}
        )


def adjustment_of(
    order: AdjustmentOrder, call: ModelCall, earlier: Sequence[Adjustment], *, number: int, time: datetime
) -> Adjustment:
    """Return the adjustment that is ordered.

    Args:
        order: What is asked.
        call: The call.
        earlier: All its adjustments so far.
        number: The number of the new entry.
        time: When it is made.

    Raises:
        CallNotAdjustable: The call is pending, or unresolved.
        AmountRefused: No call can cost what it would cost.
    """
    _check_state(call, earlier)
    before = call_total(call, earlier)
    total = order.amount if order.is_new_cost else sum_exactly(call, before, order.amount)
    check_total(call, total, above_bound=order.above_bound)
    cost = sum_exactly(call, total, before.copy_negate())
    if not money.is_bounded(cost):
        raise AmountRefused(f"The difference must be {money.AMOUNT_RULE}.", metadata={"call_id": call.call_id})
    return Adjustment(
        entry_id=order.entry_id,
        tenant_id=call.tenant_id,
        session_uid=call.session_uid,
        session_id=call.session_id,
        turn_id=call.turn_id,
        number=number,
        corrects=call.call_id,
        cost=cost,
        model=call.model,
        provider=call.provider,
        agent=call.agent,
        user=call.user,
        call_time=call.start_time,
        time=time,
        why=order.why,
        by=order.by,
        request_id=order.request_id,
        new_cost=order.amount if order.is_new_cost else None,
    )


def _check_state(call: ModelCall, earlier: Sequence[Adjustment]) -> None:
    facts = {"call_id": call.call_id, "state": call.state.value}
    if call.state is CallState.PENDING:
        raise CallNotAdjustable(
            "The call is pending: its cost is not known yet. Adjust it once it is closed.", metadata=facts
        )
    if call.state is CallState.UNRESOLVED and not any(each.resolves for each in earlier):
        raise CallNotAdjustable(
            "The call is unresolved: resolve it first, with `godoty ledger resolve`.", metadata=facts
        )
