"""A tenant's budget, as stored with its policy and enforced by metering."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class BudgetWindow(StrEnum):
    """The period that a budget covers; days and months are in UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    def key(self, time: datetime) -> str:
        """Return the key of the window that contains a time."""
        match self:
            case BudgetWindow.DAY:
                return f"{time:%Y-%m-%d}"
            case BudgetWindow.MONTH:
                return f"{time:%Y-%m}"
            case BudgetWindow.TOTAL:
                return "all"

    def start(self, time: datetime) -> datetime | None:
        """Return the start of the window that contains a time; None: it has no start."""
        day = time.replace(hour=0, minute=0, second=0, microsecond=0)
        match self:
            case BudgetWindow.DAY:
                return day
            case BudgetWindow.MONTH:
                return day.replace(day=1)
            case BudgetWindow.TOTAL:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget, in US dollars: a hard one is never exceeded, a soft one only sends alerts."""

    window: BudgetWindow
    limit: Decimal
    hard: bool
