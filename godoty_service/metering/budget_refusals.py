"""Why a model call does not fit a budget or `max_cost_usd`, with the figures. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.errors import BudgetReserved, BudgetSpent, MaxCostTooLow, QuotaExceeded
from godoty_service.metering import money
from godoty_service.metering.budget_document import Keys, is_forgotten, reserved, spent
from godoty_service.mongo import Document

_RETRY_AFTER = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a refusal states, in US dollars.

    Attributes:
        limit: The budget.
        spent: What is spent of it; an unresolved call counts with its bound.
        held: The bounds of the calls that are open.
        needed: What the refused call may cost.
    """

    limit: Decimal
    spent: Decimal
    held: Decimal
    needed: Decimal

    @property
    def metadata(self) -> dict[str, str]:
        """The figures by their names in errors.proto."""
        amounts = {"limit": self.limit, "spent": self.spent, "held": self.held, "needed": self.needed}
        return {f"{name}_usd": money.format_usd(amount) or "" for name, amount in amounts.items()}

    def __str__(self) -> str:
        """Return the figures as the second half of a sentence."""
        text = (
            "limit {limit_usd} USD, spent {spent_usd} USD, held by open calls {held_usd} USD, needed {needed_usd} USD."
        )
        return text.format_map(self.metadata)


def max_cost_too_low(figures: Figures) -> MaxCostTooLow:
    """Return the error of a call that does not fit the turn's own bound."""
    return MaxCostTooLow(
        f"max_cost_usd does not cover the next model call: {figures}",
        quota="turn/max_cost_usd",
        metadata=figures.metadata,
    )


def unspent(document: Document, budgets: Sequence[Budget], keys: Keys) -> Decimal:
    """Return the least that is not spent of several budgets; what open calls hold is not taken off."""
    return min(money.subtract(budget.limit, spent(document, budget.window, keys[budget.window])) for budget in budgets)


def budget_refusal(document: Document, needed: Decimal, budgets: Sequence[Budget], keys: Keys) -> QuotaExceeded | None:
    """Return why a call does not fit the hard budgets: for good, or only for now; None: it fits."""
    for_now: QuotaExceeded | None = None
    for budget in budgets:
        if not budget.hard:
            continue
        key = keys[budget.window]
        figures = Figures(
            limit=budget.limit,
            spent=spent(document, budget.window, key),
            held=reserved(document, budget.window, key),
            needed=needed,
        )
        wanted = money.add(figures.spent, needed)
        if wanted > budget.limit:
            return _spent_out(budget.window, figures)
        if is_forgotten(document, budget.window, key):
            for_now = for_now or _reserved(budget.window, figures, "begins a new period at this moment")
        elif money.add(wanted, figures.held) > budget.limit:
            for_now = for_now or _reserved(budget.window, figures, "is held by open model calls")
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
