"""What prompt caches have saved: by the prices at which a call was charged, never by others. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from godoty_service.ledger.entries import ModelCall
from godoty_service.pricing import money
from godoty_service.pricing.unit_prices import cache_savings


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSavings:
    """The savings of many calls.

    Attributes:
        saved: The sum over the calls whose saving is known, in US dollars; negative: writes cost more than reads saved.
        calls: The number of these calls.
        unknown_calls: Calls that read from a cache or wrote to one, and whose saving is not known.
    """

    saved: Decimal = money.ZERO
    calls: int = 0
    unknown_calls: int = 0

    def plus(self, call: ModelCall) -> "CacheSavings":
        """Return the savings with a closed call added; a call without a cache changes nothing."""
        if not uses_cache(call):
            return self
        saved = saved_by(call)
        if saved is None:
            return CacheSavings(saved=self.saved, calls=self.calls, unknown_calls=self.unknown_calls + 1)
        total = money.add(self.saved, saved)
        return CacheSavings(saved=total, calls=self.calls + 1, unknown_calls=self.unknown_calls)


NO_SAVINGS: Final = CacheSavings()


def uses_cache(call: ModelCall) -> bool:
    """Return whether a call is known to have read from a prompt cache or written to one."""
    return call.usage is not None and bool(call.usage.cache_read_tokens or call.usage.cache_write_tokens)


def saved_by(call: ModelCall) -> Decimal | None:
    """Return what prompt caches saved in a call, in US dollars; None: unknown, or it used none.

    It is known if the call was charged exactly what its entry's prices make of its usage: these are then the prices at
    which it was charged. Other charges, such as those under BYOK or of a provider with prices of its own that were not
    known, say nothing about what a cached token cost.
    """
    if call.usage is None or call.evidence is None or call.is_byok or not uses_cache(call):
        return None
    if call.counted_cost is None or call.counted_cost != call.catalogue_cost:
        return None
    return cache_savings(call.usage, call.evidence.prices, at=call.start_time)
