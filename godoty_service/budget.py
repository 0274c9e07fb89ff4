"""What a tenant may spend: the value that tenancy keeps and metering heeds."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class BudgetWindow(StrEnum):
    """What a budget covers. Days and months are UTC's."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    def key(self, time: datetime) -> str:
        """Name the window that a time falls into."""
        match self:
            case BudgetWindow.DAY:
                return f"{time:%Y-%m-%d}"
            case BudgetWindow.MONTH:
                return f"{time:%Y-%m}"
            case BudgetWindow.TOTAL:
                return "all"

    def start(self, time: datetime) -> datetime | None:
        """Tell when the window that a time falls into began; None: it covers all time."""
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
    """A budget, in US dollars: a hard one is never overspent, a soft one only tells."""

    window: BudgetWindow
    limit: Decimal
    hard: bool
