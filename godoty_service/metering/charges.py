"""What calls count in a budget: their cost, or their bound where the cost is unknown. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from godoty_service.budget import BudgetWindow
from godoty_service.metering import money
from godoty_service.metering.call import Adjustment, ModelCall
from godoty_service.metering.states import contribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What an open call may cost, in US dollars, from its start on; `owner` is the server that makes it."""

    call_id: str
    bound: Decimal
    time: datetime
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a tenant's calls come to, each either closed or held.

    Attributes:
        first: The earliest window that is stated, by its key.
        spent: What the closed calls count in each window from `first` on, in US dollars by the window's key.
        held: The open ones.
    """

    first: Mapping[BudgetWindow, str]
    spent: Mapping[BudgetWindow, Mapping[str, Decimal]]
    held: tuple[Held, ...] = ()


def charge(call: ModelCall) -> Decimal:
    """Return what a closed call counts."""
    counted = contribution(call)
    return ((counted.unresolved and call.upper_bound) or (counted.cost and call.cost)) or Decimal(0)


def charge_of(adjustment: Adjustment) -> Decimal:
    """Return what an adjustment adds to a budget: its cost, less the bound of the call that it resolves."""
    bound = (adjustment.bound or Decimal(0)) if adjustment.resolves else Decimal(0)
    return money.subtract(adjustment.cost, bound)


def held(call: ModelCall) -> Held:
    """Return what an open call may cost."""
    return Held(call_id=call.call_id, bound=call.upper_bound or Decimal(0), time=call.start_time, owner=call.owner)
