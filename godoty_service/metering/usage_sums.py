"""What entries add to a sum of usage. Pure arithmetic; which entry counts how is said in `totals.py`, once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from godoty_service.metering import money
from godoty_service.metering.call import Entry
from godoty_service.metering.totals import Totals, added
from godoty_service.metering.usage import COUNTERS, TokenUsage

NOTHING = Totals()
COUNTS = ("model_calls", "turns", "pending_calls", "unresolved_calls", "unbounded_calls")


def part(entry: Entry, *, opens_turn: bool) -> Totals:
    """Return what an entry adds; a turn counts once, with the call that opens it."""
    sums = added(entry)
    return replace(sums, turns=1) if opens_turn else sums


def is_zero(totals: Totals) -> bool:
    """Return whether a sum has nothing in it: no call, no turn, no cost, no tokens."""
    counts = (getattr(totals, name) for name in COUNTS)
    return not (any(counts) or totals.cost or totals.unresolved_bound or any(_counters(totals)))


def _counters(totals: Totals) -> Iterator[int | None]:
    return (getattr(totals.usage, name) for name in COUNTERS)


def plus(*sums: Totals) -> Totals:
    """Add sums exactly; raises `decimal.Inexact` where 34 digits do not hold one."""
    counters = {name: added_up([getattr(each.usage, name) for each in sums]) for name in COUNTERS}
    return Totals(
        cost=money.total(each.cost for each in sums),
        unresolved_bound=money.total(each.unresolved_bound for each in sums),
        usage=TokenUsage(**counters),
        **{name: sum(getattr(each, name) for each in sums) for name in COUNTS},
    )


def added_up(counts: Sequence[int | None]) -> int | None:
    """Add what was told; None: nothing was."""
    told = [count for count in counts if count is not None] if None in counts else counts
    return sum(told) if told else None  # type: ignore[arg-type] # no None is among them
