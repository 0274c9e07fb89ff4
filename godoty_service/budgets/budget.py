"""A tenant's budget, as stored with its policy and enforced by metering."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class BudgetWindow(StrEnum):
    """The period that a budget covers; `BudgetCalendar` says where days and months begin."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    def key(self, day: str) -> str:
        """Return the key of the window that contains a day such as "2026-08-22"."""
        match self:
            case BudgetWindow.DAY:
                return day
            case BudgetWindow.MONTH:
                return day[:7]
            case BudgetWindow.TOTAL:
                return "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget, in US dollars: a hard one is never exceeded, a soft one only sends alerts."""

    window: BudgetWindow
    limit: Decimal
    hard: bool
