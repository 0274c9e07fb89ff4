"""A day's sums by quarter of an hour, as one document of columns: a month is 31 documents to read. Pure.

`quarters` numbers those of the day, 0 to 95, in which something was used; each column has a value for each of them. One
that is all zeros, or a counter that nobody told, is left out. Amounts are texts, which are read in a tenth of the time
of a Decimal128.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from godoty_service.metering import money
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage import COUNTERS, TokenUsage
from godoty_service.metering.usage_cells import QUARTER, Sum
from godoty_service.metering.usage_sums import added_up
from godoty_service.mongo import Document

QUARTERS = 96  # of a day
_AMOUNTS = ("cost", "unresolved_bound")
_COUNTS = ("model_calls", "turns", "unresolved_calls", "unbounded_calls")  # nothing that is summed up is pending


def curve_to_document(day: datetime, sums: Mapping[datetime, Sum]) -> Document:
    """Write the sums of a day's quarters, by when each begins."""
    times = sorted(sums)
    totals = [sums[time].totals for time in times]
    columns = {name: [getattr(each, name) for each in totals] for name in (*_AMOUNTS, *_COUNTS)}
    counters = {name: [getattr(each.usage, name) for each in totals] for name in COUNTERS}
    return {
        "quarters": [(time - day) // QUARTER for time in times],
        "known": [sums[time].latest for time in times],
        "amounts": {name: [str(each) for each in columns[name]] for name in _AMOUNTS if any(columns[name])},
        "counts": {name: columns[name] for name in _COUNTS if any(columns[name])},
        "usage": {name: counts for name, counts in counters.items() if any(count is not None for count in counts)},
    }


def curve_from_document(day: datetime, document: Document) -> dict[datetime, Sum]:
    """Read the sums of a day's quarters."""
    return {
        day + number * QUARTER: Sum(totals=_sum(document, place, place + 1), latest=document["known"][place])
        for place, number in enumerate(document["quarters"])
    }


def sum_of_curve(document: Document, first: int, end: int) -> Totals | None:
    """Sum the quarters of a day from one up to another; None: there are none."""
    quarters: Sequence[int] = document["quarters"]
    start, stop = bisect_left(quarters, first), bisect_left(quarters, end)
    return _sum(document, start, stop) if start < stop else None


def charge_of_curve(document: Document, end: int) -> Decimal:
    """Sum what the quarters of a day up to another one cost, unresolved calls with their bounds."""
    stop = bisect_left(document["quarters"], end)
    return money.total(Decimal(each) for name in _AMOUNTS for each in document["amounts"].get(name, ())[:stop])


def _sum(document: Document, start: int, stop: int) -> Totals:
    amounts, counts, usage = (
        [(name, document[kind][name]) for name in names if name in document[kind]]
        for kind, names in (("amounts", _AMOUNTS), ("counts", _COUNTS), ("usage", COUNTERS))
    )
    sums: dict[str, Any] = {name: money.total(map(Decimal, column[start:stop])) for name, column in amounts}
    sums |= {name: sum(column[start:stop]) for name, column in counts}
    counters = {name: added_up(column[start:stop]) for name, column in usage}
    return Totals(usage=TokenUsage(**counters), **sums)
