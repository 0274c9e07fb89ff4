"""Verifies adjustments against the calls that they correct, and every amount against its bounds. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, DecimalException

from godoty_service.ledger.entries import Adjustment, Entry, ModelCall
from godoty_service.pricing import money


def correction_faults(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield the faults of a session's adjustments; entries are ordered by number."""
    calls = {entry.call_id: entry for entry in entries if isinstance(entry, ModelCall)}
    earlier: defaultdict[str, list[Adjustment]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Adjustment):
            yield from _faults(entry, calls, earlier[entry.corrects])
            earlier[entry.corrects].append(entry)
    for call_id, adjustments in earlier.items():
        if call_id in calls:
            yield from _total_faults(calls[call_id], adjustments)
    total = _sum([_counted_cost(entry) for entry in entries])
    if total is not None and total < 0:
        yield f"the session's total is {money.format_usd(total)}, below zero"


def amount_faults(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield the entries whose amount is out of bounds: sums that include it may not be exact."""
    for entry in entries:
        if isinstance(entry, ModelCall):
            name, bound = f"call {entry.call_id}", entry.upper_bound
        else:
            name, bound = f"adjustment {entry.entry_id}", entry.bound
        if not all(money.is_bounded(amount) for amount in (entry.cost, bound) if amount is not None):
            yield f"{name} has an amount that is not {money.AMOUNT_RULE}"


def _faults(entry: Adjustment, calls: Mapping[str, ModelCall], earlier: Sequence[Adjustment]) -> Iterator[str]:
    call = calls.get(entry.corrects)
    if entry.resolves:
        yield from _resolution_faults(entry, call, earlier)
    elif call is None:
        yield f"adjustment {entry.entry_id} corrects call {entry.corrects}, which is not in its session"
    elif call.counts.open:
        yield f"adjustment {entry.entry_id} corrects call {call.call_id}, which is {call.state.value}"
    elif call.counts.unresolved and not any(each.resolves for each in earlier):
        yield f"adjustment {entry.entry_id} corrects call {call.call_id}, which was not resolved before"


def _resolution_faults(entry: Adjustment, call: ModelCall | None, earlier: Sequence[Adjustment]) -> Iterator[str]:
    if call is None or not call.counts.unresolved:
        yield f"adjustment {entry.entry_id} resolves a call that is not unresolved"
    elif call.upper_bound != entry.bound:
        yield f"adjustment {entry.entry_id} subtracts another bound than that of call {call.call_id}"
    if any(each.resolves for each in earlier):
        yield f"call {entry.corrects} is resolved twice"


def _total_faults(call: ModelCall, adjustments: Sequence[Adjustment]) -> Iterator[str]:
    total = _sum([_counted_cost(call), *(each.cost for each in adjustments)])
    if total is None:
        yield f"call {call.call_id}: its adjustments cannot be summed exactly"
    elif total < 0:
        yield f"call {call.call_id}: its total is {money.format_usd(total)}, below zero"
    elif total > money.MAX_USD:
        yield f"call {call.call_id}: its total is {money.format_usd(total)}, more than any call can cost"


def _counted_cost(entry: Entry) -> Decimal:
    cost = entry.counted_cost if isinstance(entry, ModelCall) else entry.cost
    return money.ZERO if cost is None else cost


def _sum(amounts: Sequence[Decimal]) -> Decimal | None:
    try:
        return money.total(amounts)
    except DecimalException:
        return None
