"""What entries add to a sum of usage. Pure arithmetic; which entry counts how is said in `totals.py`, once."""

from dataclasses import fields, replace

from godoty_service.metering import money
from godoty_service.metering.call import Entry
from godoty_service.metering.totals import Totals, fold

NOTHING = Totals()


def part(entry: Entry, *, opens_turn: bool) -> Totals:
    """What an entry adds. A turn counts once, where its first call stands, whatever becomes of that call."""
    return replace(fold([entry]), turns=int(opens_turn))


def plus(left: Totals, right: Totals) -> Totals:
    """Add two sums exactly; raises `decimal.Inexact` where 34 digits do not hold one."""
    return Totals(
        **{
            field.name: getattr(left, field.name) + getattr(right, field.name)
            for field in fields(Totals)
            if field.name not in ("cost", "unresolved_bound")
        },
        cost=money.add(left.cost, right.cost),
        unresolved_bound=money.add(left.unresolved_bound, right.unresolved_bound),
    )
