"""A model call before it is made: what it may cost, by the output limit that its request carries."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from godoty_service.metering.bounds import largest_limit

LEAST_OUTPUT_TOKENS = 256  # no answer is cut shorter to fit a budget, unless fewer tokens were asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """A model call before it is made.

    Attributes:
        tenant_id: The tenant that pays.
        start_time: The time that decides which day and month it is counted in.
        asked: The output limit that the turn and its model allow, in tokens; None: neither has one.
        bound: Returns the largest cost in US dollars for an output limit in tokens; None: it is not known.
    """

    tenant_id: str
    start_time: datetime
    asked: int | None
    bound: Callable[[int | None], Decimal | None]

    @property
    def least(self) -> int | None:
        """The least output limit that the call is made with."""
        return None if self.asked is None else min(self.asked, LEAST_OUTPUT_TOKENS)

    def limit_within(self, amount: Decimal) -> int | None:
        """Return the largest output limit whose bound is within an amount of US dollars; None: there is none."""
        if self.asked is None or self.least is None:
            return None
        return largest_limit(self.bound, least=self.least, most=self.asked, amount=amount)
