"""Builds the errors of model calls that do not fit into a budget or `max_cost_usd`, with the figures. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.document import Keys, is_pruned, reserved, spent
from godoty_service.errors import BudgetReserved, BudgetSpent, MaxCostTooLow, QuotaExceeded
from godoty_service.mongo.collection import Document
from godoty_service.pricing import money

_RETRY_AFTER = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a refusal, in US dollars.

    Attributes:
        limit: The limit of the budget.
        spent: The charges so far; an unresolved call counts with its upper bound.
        reserved: The upper bounds of the open calls.
        needed: The upper bound of the refused call.
    """

    limit: Decimal
    spent: Decimal
    reserved: Decimal
    needed: Decimal

    @property
    def metadata(self) -> dict[str, str]:
        """The figures, by their names in errors.proto."""
        amounts = {"limit": self.limit, "spent": self.spent, "held": self.reserved, "needed": self.needed}
        return {f"{name}_usd": money.format_usd(amount) or "" for name, amount in amounts.items()}

    def __str__(self) -> str:
        """Return the figures as the second half of a sentence."""
        text = "limit {limit_usd} USD, spent {spent_usd} USD, reserved by open calls {held_usd} USD, "
        return (text + "needed {needed_usd} USD.").format_map(self.metadata)


def max_cost_too_low(figures: Figures) -> MaxCostTooLow:
    """Return the error of a call that does not fit into the turn's own limit."""
    return MaxCostTooLow(
        f"max_cost_usd does not cover the next model call: {figures}",
        quota="turn/max_cost_usd",
        metadata=figures.metadata,
    )


def unspent(document: Document, budgets: Sequence[Budget], keys: Keys) -> Decimal:
    """Return the smallest unspent amount of several budgets; reservations are not subtracted."""
    return min(money.subtract(budget.limit, spent(document, budget.window, keys[budget.window])) for budget in budgets)


def budget_refusal(
    document: Document, needed: Decimal, budgets: Sequence[Budget], keys: Keys, *, call_id: str | None = None
) -> QuotaExceeded | None:
    """Return the error of a call that does not fit into the hard budgets; None: it fits.

    It is BudgetSpent if the charges alone leave too little, BudgetReserved if only the other open calls do.

    Args:
        document: The tenant's document.
        needed: The call's upper bound.
        budgets: The budgets.
        keys: The windows of the call's start.
        call_id: The call, if it may have a reservation already.
    """
    for_now: QuotaExceeded | None = None
    for budget in budgets:
        if not budget.hard:
            continue
        key = keys[budget.window]
        figures = Figures(
            limit=budget.limit,
            spent=spent(document, budget.window, key),
            reserved=reserved(document, budget.window, key, without=call_id),
            needed=needed,
        )
        wanted = money.add(figures.spent, needed)
        if wanted > budget.limit:
            return _spent_out(budget.window, figures)
        if is_pruned(document, budget.window, key):
            for_now = for_now or _reserved(budget.window, figures, "is starting a new period")
        elif money.add(wanted, figures.reserved) > budget.limit:
            for_now = for_now or _reserved(budget.window, figures, "is reserved by open model calls")
    return for_now


def _spent_out(window: BudgetWindow, figures: Figures) -> BudgetSpent:
    return BudgetSpent(
        f"The {window.value} budget does not cover the next model call: {figures}",
        quota=f"budget/{window.value}",
        metadata=figures.metadata,
    )


def _reserved(window: BudgetWindow, figures: Figures, why: str) -> BudgetReserved:
    return BudgetReserved(
        f"The {window.value} budget {why}; retry in {_RETRY_AFTER:g} s: {figures}",
        quota=f"budget/{window.value}",
        metadata=figures.metadata,
        retry_after=_RETRY_AFTER,
    )
