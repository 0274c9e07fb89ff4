"""A planned model call: its upper bound as a function of the output limit that its request carries."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from godoty_service.pricing.upper_bound import largest_limit

LEAST_OUTPUT_TOKENS = 256  # a budget lowers the limit of an answer no further, unless less was requested


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """A model call that is not made yet.

    Attributes:
        tenant_id: The tenant that pays.
        start_time: The time that determines the day and month it counts in.
        asked: The output limit that the turn and its model allow, in tokens; None: neither has one.
        bound: Returns the upper bound in US dollars for an output limit in tokens; None: it is not known.
        unbounded_tools: The server tools of the request that have no finite bound, as errors name them.
    """

    tenant_id: str
    start_time: datetime
    asked: int | None
    bound: Callable[[int | None], Decimal | None]
    unbounded_tools: tuple[str, ...] = ()

    @property
    def least(self) -> int | None:
        """The smallest output limit that the call may be made with."""
        return None if self.asked is None else min(self.asked, LEAST_OUTPUT_TOKENS)

    def limit_within(self, amount: Decimal) -> int | None:
        """Return the largest output limit whose bound is within an amount of US dollars; None: there is none."""
        if self.asked is None or self.least is None:
            return None
        return largest_limit(self.bound, least=self.least, most=self.asked, amount=amount)
