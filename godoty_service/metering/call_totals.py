"""What a call may cost in all, by its entry and its adjustments, and what a resolution adds to its tokens. Pure."""

from collections.abc import Iterable
from decimal import Decimal, DecimalException

from godoty_service.errors import AmountRefused
from godoty_service.metering import money
from godoty_service.metering.call import Adjustment, ModelCall
from godoty_service.metering.totals import added
from godoty_service.metering.usage import COUNTERS, TokenUsage


def call_total(call: ModelCall, adjustments: Iterable[Adjustment]) -> Decimal:
    """Return a call's cost together with its adjustments.

    Raises:
        AmountRefused: 34 digits do not hold the sum.
    """
    return sum_exactly(call, call.cost or money.ZERO, *(each.cost for each in adjustments))


def sum_exactly(call: ModelCall, *amounts: Decimal) -> Decimal:
    """Return the sum of amounts of a call.

    Raises:
        AmountRefused: 34 digits do not hold it.
    """
    try:
        return money.total(amounts)
    except DecimalException as error:
        raise AmountRefused(
            "The call's amounts cannot be summed exactly: they have more decimals than any amount may have.",
            metadata={"call_id": call.call_id},
        ) from error


def check_total(call: ModelCall, total: Decimal, *, above_bound: bool) -> None:
    """Check what a call would cost in all.

    Args:
        call: The call.
        total: Its cost and all adjustments of it, the new one included.
        above_bound: It may be more than the call's upper bound.

    Raises:
        AmountRefused: No call can cost that, or it is above the call's bound.
    """
    if not money.is_bounded(total):
        raise AmountRefused(f"A call's total must be {money.AMOUNT_RULE}.", metadata=_facts(call, total))
    if total < 0:
        raise AmountRefused(
            f"The call's total would be below zero: {money.format_usd(total)} USD.", metadata=_facts(call, total)
        )
    if call.upper_bound is not None and total > call.upper_bound and not above_bound:
        bound = money.format_usd(call.upper_bound)
        raise AmountRefused(
            f"The call's total would be {money.format_usd(total)} USD, above its upper bound of {bound} USD; "
            "if that is meant, repeat with --above-bound (in a request: above_bound).",
            metadata=_facts(call, total) | {"upper_bound_usd": bound or ""},
        )


def resolved_usage(call: ModelCall, stated: TokenUsage | None) -> TokenUsage | None:
    """Return what resolving a call adds to the sums' tokens: what is stated or known, and not counted yet."""
    told, known = stated or TokenUsage(), call.usage or TokenUsage()
    pairs = {name: (getattr(told, name), getattr(known, name)) for name in COUNTERS}
    whole = TokenUsage(**{name: other if count is None else count for name, (count, other) in pairs.items()})
    return whole.beyond(added(call).usage)


def _facts(call: ModelCall, total: Decimal) -> dict[str, str]:
    facts = {"call_id": call.call_id}
    if total.is_finite():
        facts["total_usd"] = (money.format_usd(total) or "")[:100]
    return facts
