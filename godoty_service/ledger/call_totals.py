"""The total cost of a call with its adjustments, its checks, and the usage that a resolution adds. Pure."""

from collections.abc import Iterable
from decimal import Decimal, DecimalException

from godoty_service.errors import AmountRefused
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.ledger.totals import totals_of_entry
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import TokenUsage


def call_total(call: ModelCall, adjustments: Iterable[Adjustment]) -> Decimal:
    """Return the cost of a call including its adjustments.

    Raises:
        AmountRefused: The sum has more than 34 digits.
    """
    return sum_exactly(call, call.counted_cost or money.ZERO, *(each.cost for each in adjustments))


def sum_exactly(call: ModelCall, *amounts: Decimal) -> Decimal:
    """Return the sum of amounts of a call.

    Raises:
        AmountRefused: The sum has more than 34 digits.
    """
    try:
        return money.total(amounts)
    except DecimalException as error:
        raise AmountRefused(
            "The call's amounts cannot be summed exactly: they have more decimals than any amount may have.",
            metadata={"call_id": call.call_id},
        ) from error


def check_total(call: ModelCall, total: Decimal, *, above_bound: bool) -> None:
    """Check the total that a call would cost.

    Args:
        call: The call.
        total: Its cost and all its adjustments, including the new one.
        above_bound: Whether the total may exceed the call's upper bound.

    Raises:
        AmountRefused: The total is out of bounds, or above the call's upper bound.
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
            "if that is intended, repeat with --above-bound (in a request: above_bound).",
            metadata=_facts(call, total) | {"upper_bound_usd": bound or ""},
        )


def resolved_usage(call: ModelCall, stated: TokenUsage | None) -> TokenUsage | None:
    """Return the usage that resolving a call adds: the stated or known usage, less what its entry counts already."""
    complete = (stated or TokenUsage()).or_else(call.usage or TokenUsage())
    return complete.beyond(totals_of_entry(call).usage)


def _facts(call: ModelCall, total: Decimal) -> dict[str, str]:
    facts = {"call_id": call.call_id}
    if total.is_finite():
        facts["total_usd"] = (money.format_usd(total) or "")[:100]
    return facts
