"""Orders to correct a call's cost, and the adjustments that they result in. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from godoty_service.errors import AmountRefused, CallNotAdjustable, RequestIdReused
from godoty_service.ledger.call_totals import call_total, check_total, sum_exactly
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.pricing import money


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustmentOrder:
    """An order to correct the cost of a call. Money is in US dollars.

    Attributes:
        tenant_id: The tenant of the call.
        call_id: The call.
        amount: The new total cost of the call, or the amount to add to it.
        is_new_cost: Whether `amount` is the new total.
        why: The reason.
        by: The person or service that orders it.
        request_id: Identifies the order within the tenant: the same id is the same adjustment.
        above_bound: Whether the call's total may exceed its upper bound.
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
        """The id of the adjustment: one per request id of a tenant."""
        name = f"{self.tenant_id}\n{self.request_id}"
        return f"adj_{hashlib.sha256(name.encode()).hexdigest()[:28]}"


def check_same(order: AdjustmentOrder, existing: Adjustment) -> None:
    """Check that an existing adjustment is the result of this order.

    Raises:
        RequestIdReused: The request id was used for another adjustment.
    """
    amount = existing.cost if existing.new_cost is None else existing.new_cost
    ordered = (existing.corrects, amount, existing.new_cost is not None, existing.why, existing.by)
    if ordered != (order.call_id, order.amount, order.is_new_cost, order.why, order.by):
        raise RequestIdReused(
            "The request id was used for another adjustment.", metadata={"adjustment_id": existing.entry_id}
        )


def adjustment_of(
    order: AdjustmentOrder, call: ModelCall, earlier: Sequence[Adjustment], *, number: int, time: datetime
) -> Adjustment:
    """Return the adjustment that results from an order.

    Args:
        order: The order.
        call: The call.
        earlier: All its adjustments so far.
        number: The number of the new entry.
        time: The time of the adjustment.

    Raises:
        CallNotAdjustable: The call is pending, or unresolved.
        AmountRefused: The call's total would be out of bounds.
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
        agent_version=call.agent_version,
        purpose=call.purpose,
        api_key_id=call.api_key_id,
        user=call.user if call.user_reference is None else None,
        user_reference=call.user_reference,
        call_time=call.start_time,
        time=time,
        why=order.why,
        by=order.by,
        request_id=order.request_id,
        new_cost=order.amount if order.is_new_cost else None,
    )


def _check_state(call: ModelCall, earlier: Sequence[Adjustment]) -> None:
    facts = {"call_id": call.call_id, "state": call.state.value}
    if call.counts.open:
        raise CallNotAdjustable(
            f"The call is {call.state.value}: its cost is not known yet. Adjust it once it is closed.", metadata=facts
        )
    if call.counts.unresolved and not any(each.resolves for each in earlier):
        raise CallNotAdjustable(
            f"The call is {call.state.value}: resolve it first, with `godoty ledger resolve`.", metadata=facts
        )
