"""The alerts that a turn gets when its tenant's spending reaches a share of a budget. No I/O."""

from dataclasses import dataclass
from decimal import Decimal

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.document import Keys, share_alerted, spent, spent_by_key
from godoty_service.mongo.collection import Document

SHARES = (50, 80, 100)  # per cent of a budget at which a turn gets an alert


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """A share of a budget, in per cent, that was reached."""

    window: BudgetWindow
    percent: int
    spent: Decimal
    limit: Decimal


def due_alert(found: Document, budget: Budget, keys: Keys, now: Keys) -> BudgetAlert | None:
    """Return the largest share of a budget that is reached, unless its alert was sent or its window is over.

    Sent alerts are compared, not the charges before the last call: reconciliation adds charges without alerts.

    Args:
        found: The tenant's document.
        budget: The budget.
        keys: The keys of the windows in which the last call was charged.
        now: The keys of the current windows.
    """
    key, current = keys[budget.window], now[budget.window]
    amount = spent(found, budget.window, key)
    shares = [share for share in SHARES if budget.limit and amount * 100 / budget.limit >= share]  # not a sum of money
    is_over = any(key < later <= current for later in spent_by_key(found, budget.window))
    if is_over or max(shares, default=0) <= share_alerted(found, budget.window, key, budget.limit):
        return None
    return BudgetAlert(window=budget.window, percent=shares[-1], spent=amount, limit=budget.limit)
