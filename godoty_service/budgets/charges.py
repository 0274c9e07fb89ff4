"""The charges of calls to a budget: their cost, or their upper bound while the cost is unknown. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.pricing import money


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The upper bound of an open call, in US dollars; `owner` is the server that makes the call."""

    call_id: str
    bound: Decimal
    time: datetime
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningBalance:
    """The spending of a tenant before tracking starts.

    Attributes:
        first: The key of the earliest window that is included.
        spent: The charges of the closed calls in each window from `first` on, in US dollars by the window's key.
        reservations: The open calls.
    """

    first: Mapping[BudgetWindow, str]
    spent: Mapping[BudgetWindow, Mapping[str, Decimal]]
    reservations: tuple[Reservation, ...] = ()


def call_charge(call: ModelCall) -> Decimal:
    """Return the charge of a closed call, in US dollars."""
    bound = call.upper_bound if call.counts.unresolved else None
    return money.add(call.counted_cost or money.ZERO, bound or money.ZERO)


def adjustment_charge(adjustment: Adjustment) -> Decimal:
    """Return the charge of an adjustment: its cost, less the upper bound of the call that it resolves."""
    bound = (adjustment.bound or Decimal(0)) if adjustment.resolves else Decimal(0)
    return money.subtract(adjustment.cost, bound)


def reservation_of(call: ModelCall) -> Reservation:
    """Return the reservation of an open call."""
    return Reservation(
        call_id=call.call_id, bound=call.upper_bound or Decimal(0), time=call.start_time, owner=call.owner
    )
