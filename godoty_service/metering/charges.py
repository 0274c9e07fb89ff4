"""What calls count in a budget: their cost, or their bound where nobody knows that. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.budget import BudgetWindow
from godoty_service.metering import money
from godoty_service.metering.call import Adjustment, ModelCall
from godoty_service.metering.states import contribution, counts
from godoty_service.mongo import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What an open call may cost, in US dollars, from its start on."""

    call_id: str
    bound: Decimal
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a tenant's calls come to, each either closed or held.

    Attributes:
        spent: What the closed ones count in some day, its month and in all: each window's key, and US dollars.
        held: The open ones.
    """

    spent: Mapping[BudgetWindow, tuple[str, Decimal]]
    held: tuple[Held, ...] = ()


NOTHING = Statement(spent=dict.fromkeys(BudgetWindow, ("", Decimal(0))))


def charge(call: ModelCall) -> Decimal:
    """Tell what a closed call counts."""
    counted = contribution(call)
    return ((counted.unresolved and call.upper_bound) or (counted.cost and call.cost)) or Decimal(0)


def charge_of(adjustment: Adjustment) -> Decimal:
    """Return what an adjustment adds to a budget: its cost, less the bound of the call that it resolves."""
    bound = (adjustment.bound or Decimal(0)) if adjustment.resolves else Decimal(0)
    return money.subtract(adjustment.cost, bound)


def held(call: ModelCall) -> Held:
    """Tell what an open call may cost."""
    return Held(call_id=call.call_id, bound=call.upper_bound or Decimal(0), time=call.start_time)


def statement_of(tenant_id: str, *, at: datetime, end: datetime, uncounted: Document | None = None) -> list[Document]:
    """Express a statement over ledger entries: what started before `end`, in the windows of `at`.

    Each entry is read once, so that a call which closes meanwhile is held or spent, never both and never neither.
    An adjustment that is made later is not in it, whatever it adjusts.
    """
    pending = {"id": "$_id", "bound": "$upper_bound", "time": "$start_time"}
    return [
        {
            "$match": {
                "tenant_id": tenant_id,
                "start_time": {"$lt": end},
                "$or": [{"kind": "call"}, {"time": {"$lt": end}}],
                **({"$nor": [uncounted]} if uncounted else {}),
            }
        },
        {
            "$group": {
                "_id": None,
                **{window.value: {"$sum": _charged(window.start(at))} for window in BudgetWindow},
                "held": {"$push": {"$cond": [counts("pending"), pending, "$$REMOVE"]}},
            }
        },
    ]


def read_statement(found: Sequence[Document], *, at: datetime) -> Statement:
    """Read it; a tenant without entries has spent nothing."""
    sums = found[0] if found else {"held": []}
    return Statement(
        spent={window: (window.key(at), _decimal(sums.get(window.value))) for window in BudgetWindow},
        held=tuple(
            Held(call_id=each["id"], bound=_decimal(each.get("bound")), time=each["time"]) for each in sums["held"]
        ),
    )


def _charged(start: datetime | None) -> Document:
    """Express what an entry adds from a time on: an adjustment adds a cost and takes its call's bound away."""
    bound = {"$cond": [counts("unresolved"), "$upper_bound", {"$multiply": ["$bound", -1]}]}
    charged = {"$add": [{"$ifNull": ["$cost", 0]}, {"$ifNull": [bound, 0]}]}
    return charged if start is None else {"$cond": [{"$gte": ["$start_time", start]}, charged, 0]}


def _decimal(amount: Any) -> Decimal:
    """Read a sum: MongoDB gives the integer 0 where there was nothing to add."""
    return amount.to_decimal() if isinstance(amount, Decimal128) else Decimal(amount or 0)
