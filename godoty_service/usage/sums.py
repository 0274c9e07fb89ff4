"""What entries add to a sum of usage. Pure arithmetic; which entry counts how is said in `totals.py`, once."""

from collections.abc import Iterator
from dataclasses import replace

from godoty_service.ledger.entries import Entry
from godoty_service.ledger.totals import AMOUNTS, COUNTS, Totals, totals_of_entry
from godoty_service.pricing.token_usage import COUNTERS

NOTHING = Totals()


def part(entry: Entry, *, opens_turn: bool) -> Totals:
    """Return what an entry adds; a turn counts once, with the call that opens it."""
    sums = totals_of_entry(entry)
    return replace(sums, turns=1) if opens_turn else sums


def is_zero(totals: Totals) -> bool:
    """Return whether a sum has nothing in it: no call, no turn, no cost, no tokens."""
    summed = (getattr(totals, name) for name in (*COUNTS, *AMOUNTS))
    return not (any(summed) or any(_counters(totals)))


def _counters(totals: Totals) -> Iterator[int | None]:
    return (getattr(totals.usage, name) for name in COUNTERS)


def plus(*sums: Totals) -> Totals:
    """Return the exact sum; raise `decimal.Inexact` if an amount has more than 34 digits."""
    return Totals.sum(sums)
