"""What a generation costs: the provider's own arithmetic, written for the sandbox alone.

    (prompt - read - write) x prompt + read x input_cache_read + write x input_cache_write
    + completion x completion + request + searches x fee

1,058 of 1,107 recorded completions equal this to the last bit; reasoning adds nothing more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any

from godoty_service.sandbox.exact import EXACT

_EXA_SEARCH_FEE = "0.007"  # a search of OpenRouter's own plugin, where the model has no native one


@dataclass(frozen=True)
class Counts:
    """What was consumed.

    Attributes:
        prompt: All prompt tokens, cached and written ones included.
        completion: All completion tokens, reasoning included.
        reasoning: Reasoning tokens.
        cached: Prompt tokens read from the cache.
        written: Prompt tokens written to the cache.
        searches: Web searches.
        overlap: Whether written tokens are billed on top of the prompt (Gemini's explicit cache).
        surcharge: A fee in USD that no counter shows (OCR of a PDF; under BYOK OpenRouter's own fee).
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
    """A price in USD, by part."""

    prompt: Decimal
    completion: Decimal
    fees: Decimal

    @property
    def total(self) -> Decimal:
        """All of it."""
        with localcontext(EXACT):
            return self.prompt + self.completion + self.fees


def charge(pricing: Mapping[str, Any], counts: Counts, at: datetime) -> Charge:
    """Price what was consumed at the prices in force at a moment (UTC)."""
    prices = _in_force(pricing, counts.prompt, at)

    def price(key: str, default: str = "0") -> Decimal:
        return Decimal(prices.get(key, default))

    with localcontext(EXACT):
        plain_tokens = counts.prompt - counts.cached - (0 if counts.overlap else counts.written)
        prompt = (
            plain_tokens * price("prompt")
            + counts.cached * price("input_cache_read", prices["prompt"])
            + counts.written * price("input_cache_write", prices["prompt"])
        )
        fees = price("request") + counts.searches * price("web_search", _EXA_SEARCH_FEE) + counts.surcharge
        return Charge(prompt, counts.completion * price("completion"), fees)


def _in_force(pricing: Mapping[str, Any], prompt_tokens: int, at: datetime) -> dict[str, Any]:
    """The prices with the overrides that apply; later ones win, key by key."""
    prices = {key: value for key, value in pricing.items() if key != "overrides"}
    for override in pricing.get("overrides") or ():
        if prompt_tokens > override.get("min_prompt_tokens", -1) and _within(override, at):
            prices.update({key: value for key, value in override.items() if isinstance(value, str)})
    return prices


def _within(override: Mapping[str, Any], at: datetime) -> bool:
    """Whether the time lies in `utc_start`..`utc_end` (HHMM), which may wrap midnight."""
    start, end = override.get("utc_start"), override.get("utc_end")
    if start is None or end is None:
        return True
    now, first, last = at.hour * 100 + at.minute, int(start), int(end)
    return first <= now < last if first <= last else now >= first or now < last
