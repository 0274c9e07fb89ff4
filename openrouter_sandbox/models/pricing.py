"""The price of a generation: the provider's arithmetic, implemented independently of the service's.

    (prompt - read - write) x prompt + read x input_cache_read + write x input_cache_write
    + completion x completion + request + searches x fee

1,058 of 1,107 recorded completions equal this exactly; reasoning tokens are part of the completion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any

from openrouter_sandbox.decimal_json import EXACT

_EXA_SEARCH_FEE = "0.007"  # USD a search of OpenRouter's plugin, for models without native search


@dataclass(frozen=True)
class Counts:
    """Billable quantities of a generation.

    Attributes:
        prompt: All prompt tokens, including those read from and written to the cache.
        completion: All completion tokens, including reasoning.
        reasoning: Reasoning tokens.
        cached: Prompt tokens read from the cache.
        written: Prompt tokens written to the cache.
        searches: Web searches.
        overlap: Whether cache writes are billed in addition to the prompt (Gemini's explicit cache).
        surcharge: Fees in USD beside the listed prices (server tools, OCR of a PDF; under BYOK OpenRouter's own fee).
    """

    prompt: int
    completion: int = 0
    reasoning: int = 0
    cached: int = 0
    written: int = 0
    searches: int = 0
    overlap: bool = False
    surcharge: Decimal = Decimal(0)


@dataclass(frozen=True)
class Charge:
    """A generation's price in USD, by component."""

    prompt: Decimal
    completion: Decimal
    fees: Decimal

    @property
    def total(self) -> Decimal:
        """The sum of the components."""
        with localcontext(EXACT):
            return self.prompt + self.completion + self.fees


def charge(pricing: Mapping[str, Any], counts: Counts, at: datetime) -> Charge:
    """Return the price of the quantities at the prices in effect at `at` (UTC)."""
    prices = _effective_prices(pricing, counts.prompt, at)

    def price(key: str, default: str = "0") -> Decimal:
        return Decimal(prices.get(key, default))

    with localcontext(EXACT):
        plain_tokens = counts.prompt - counts.cached - (0 if counts.overlap else counts.written)
        prompt = (
            plain_tokens * price("prompt")
            + counts.cached * price("input_cache_read", prices["prompt"])
            + counts.written * price("input_cache_write", prices["prompt"])
        )
        fees = price("request") + counts.searches * search_fee(prices) + counts.surcharge
        return Charge(prompt, counts.completion * price("completion"), fees)


def search_fee(pricing: Mapping[str, Any]) -> Decimal:
    """Return the fee in USD of one search by the model's provider, else by OpenRouter's plugin."""
    return Decimal(pricing.get("web_search", _EXA_SEARCH_FEE))


def _effective_prices(pricing: Mapping[str, Any], prompt_tokens: int, at: datetime) -> dict[str, Any]:
    """Return the prices with the applicable overrides; later overrides win, key by key."""
    prices = {key: value for key, value in pricing.items() if key != "overrides"}
    for override in pricing.get("overrides") or ():
        if prompt_tokens > override.get("min_prompt_tokens", -1) and _in_time_range(override, at):
            prices.update({key: value for key, value in override.items() if isinstance(value, str)})
    return prices


def _in_time_range(override: Mapping[str, Any], at: datetime) -> bool:
    """Return whether a time lies in `utc_start`..`utc_end` (HHMM); the range may wrap midnight."""
    start, end = override.get("utc_start"), override.get("utc_end")
    if start is None or end is None:
        return True
    now, first, last = at.hour * 100 + at.minute, int(start), int(end)
    return first <= now < last if first <= last else now >= first or now < last
