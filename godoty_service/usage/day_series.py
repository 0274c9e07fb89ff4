"""Encodes a day's sums by quarter of an hour as one document of columns: a month is 31 documents to read. Pure.

`quarters` lists the quarters of the day, 0 to 95, that have usage; each column has one value for each of them. A column
of zeros, or of a counter that was never reported, is omitted. Amounts are strings, which decode in a tenth of the time
of a Decimal128.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from godoty_service.ledger.totals import Totals
from godoty_service.mongo.collection import Document
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import COUNTERS, TokenUsage, sum_counts
from godoty_service.usage.rollup_keys import QUARTER, Sum

QUARTERS = 96  # in a day
_AMOUNTS = ("cost", "unresolved_bound")
_COUNTS = ("model_calls", "turns", "unresolved_calls", "unbounded_calls")  # no rolled-up entry is pending


def series_to_document(day: datetime, sums: Mapping[datetime, Sum]) -> Document:
    """Encode the sums of a day's quarters, by start time."""
    times = sorted(sums)
    totals = [sums[time].totals for time in times]
    columns = {name: [getattr(each, name) for each in totals] for name in (*_AMOUNTS, *_COUNTS)}
    counters = {name: [getattr(each.usage, name) for each in totals] for name in COUNTERS}
    return {
        "quarters": [(time - day) // QUARTER for time in times],
        "known": [sums[time].last_change for time in times],
        "amounts": {name: [str(each) for each in columns[name]] for name in _AMOUNTS if any(columns[name])},
        "counts": {name: columns[name] for name in _COUNTS if any(columns[name])},
        "usage": {name: counts for name, counts in counters.items() if any(count is not None for count in counts)},
    }


def series_from_document(day: datetime, document: Document) -> dict[datetime, Sum]:
    """Decode the sums of a day's quarters, by start time."""
    series = DaySeries(document)
    return {
        day + number * QUARTER: Sum(totals=series.sum(index, index + 1), last_change=document["known"][index])
        for index, number in enumerate(document["quarters"])
    }


class DaySeries:
    """The columns of a day, decoded once for all sums of its quarters."""

    def __init__(self, document: Document) -> None:
        """Decode a document."""
        amounts, counts, usage = document["amounts"], document["counts"], document["usage"]
        self._quarters: Sequence[int] = document["quarters"]
        self._amounts = [(name, list(map(Decimal, amounts[name]))) for name in _AMOUNTS if name in amounts]
        self._counts = [(name, counts[name]) for name in _COUNTS if name in counts]
        self._usage = [(name, usage[name]) for name in COUNTERS if name in usage]

    def totals(self, first: int, end: int) -> Totals | None:
        """Return the sum of the quarters from `first` up to but excluding `end`; None: there are none."""
        start, stop = bisect_left(self._quarters, first), bisect_left(self._quarters, end)
        return self.sum(start, stop) if start < stop else None

    def sum(self, start: int, stop: int) -> Totals:
        """Return the sum of a range of the columns."""
        sums: dict[str, Any] = {name: money.total(column[start:stop]) for name, column in self._amounts}
        for name, column in self._counts:
            sums[name] = sum(column[start:stop])
        counters = {name: sum_counts(column[start:stop]) for name, column in self._usage}
        return Totals(usage=TokenUsage(**counters), **sums)


def series_charges(
    document: Document, day: datetime, end: int, *, day_of: Callable[[datetime], str]
) -> dict[str, Decimal]:
    """Return the cost of the quarters before `end`, in US dollars; unresolved calls count with their upper bounds.

    Args:
        document: The day's sums.
        day: Its start.
        end: The number of the first quarter that is not included.
        day_of: Returns the day, perhaps of another time zone, that contains a quarter: the key of its cost.
    """
    quarters = document["quarters"][: bisect_left(document["quarters"], end)]
    bounds: dict[str, list[int]] = {}  # the first and the last index of each day: days are in order
    for index, number in enumerate(quarters):
        bounds.setdefault(day_of(day + number * QUARTER), [index, index])[1] = index
    return {
        key: money.total(
            Decimal(each) for name in _AMOUNTS for each in document["amounts"].get(name, ())[first : last + 1]
        )
        for key, (first, last) in bounds.items()
    }
