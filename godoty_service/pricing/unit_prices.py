"""Unit prices as OpenRouter lists them, and the formula for the cost of a usage.

The formula gave the billed amount to the last bit on 1,058 of 1,107 recorded completions. If it is not known to
apply, the result is `None`: the oracle never guesses, and unknown is never 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from itertools import product
from typing import Any

from godoty_service.pricing import money
from godoty_service.pricing.price_overrides import (
    PRICE_KEYS,
    WEEKDAYS,
    Override,
    listed_price,
    read_overrides,
    written_price,
)
from godoty_service.pricing.token_usage import TokenUsage

Line = tuple[int, Decimal | None]  # a quantity and its unit price; None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """Prices in US dollars per token, request or search, by the listing's own keys; `None`: not listed.

    `unpriced_keys` are listed without a number ("-1": the price depends on the call). With `uncounted_fees` a call has
    fees that no counter shows (a model that searches by itself), so that its cost cannot be computed. Stored as
    evidence only: `discount` (listed prices are discounted already), `image` and `image_token` (vision adds nothing to
    the tokens), `internal_reasoning` (nor does reasoning) and `input_cache_write_1h` (no counter distinguishes such
    writes).
    """

    prompt: Decimal | None = None
    completion: Decimal | None = None
    request: Decimal | None = None
    image: Decimal | None = None
    image_token: Decimal | None = None
    image_output: Decimal | None = None
    audio: Decimal | None = None
    audio_output: Decimal | None = None
    input_audio_cache: Decimal | None = None
    web_search: Decimal | None = None
    internal_reasoning: Decimal | None = None
    input_cache_read: Decimal | None = None
    input_cache_write: Decimal | None = None
    input_cache_write_1h: Decimal | None = None
    discount: Decimal | None = None
    overrides: tuple[Override, ...] = ()
    unpriced_keys: frozenset[str] = field(default_factory=frozenset)
    uncounted_fees: bool = False

    @classmethod
    def from_listing(cls, pricing: Mapping[str, Any], *, uncounted_fees: bool = False) -> "UnitPrices":
        """Parse a listing's `pricing`; a key whose price is negative or no number is one of `unpriced_keys`.

        Raises:
            TypeError: A price is a float.
        """
        prices = {key: listed_price(pricing.get(key)) for key in PRICE_KEYS}
        return cls(
            overrides=read_overrides(pricing.get("overrides")),
            unpriced_keys=frozenset(key for key in PRICE_KEYS if pricing.get(key) is not None and prices[key] is None),
            uncounted_fees=uncounted_fees,
            **prices,
        )

    @property
    def are_listed(self) -> bool:
        """Whether any price is listed, be it one that depends on the call; some upstreams list models alone."""
        return self != _UNLISTED

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "UnitPrices":
        """Decode prices from `to_document`."""
        return cls.from_listing(document, uncounted_fees=document.get("uncounted_fees") is True)

    def to_document(self) -> dict[str, Any]:
        """Encode the prices in the listing's form, as decimal strings: the evidence of an entry."""
        document: dict[str, Any] = {
            key: written_price(value)
            for key in PRICE_KEYS
            if (value := getattr(self, key)) is not None or key in self.unpriced_keys
        }
        if self.overrides:
            document["overrides"] = [override.to_document() for override in self.overrides]
        return {**document, **({"uncounted_fees": True} if self.uncounted_fees else {})}

    def effective(self, *, at: datetime, prompt_tokens: int) -> "UnitPrices":
        """Apply the overrides for a prompt of that length at that time; later ones win by key.

        Raises:
            ValueError: The time has no time zone.
        """
        if at.tzinfo is None:
            raise ValueError("a time needs a time zone")
        utc = at.astimezone(UTC)
        return self._applied(clock=utc.hour * 100 + utc.minute, weekday=utc.weekday(), prompt_tokens=prompt_tokens)

    def _applied(self, *, clock: int, weekday: int, prompt_tokens: int) -> "UnitPrices":
        if not self.overrides:
            return self
        changes: dict[str, Decimal | None] = {}
        for override in self.overrides:
            if override.holds(clock=clock, weekday=weekday, prompt_tokens=prompt_tokens):
                changes.update(dict.fromkeys(override.prices) if override.unclear else override.prices)
        unknown = {key for key, value in changes.items() if value is None}
        unpriced = (self.unpriced_keys - changes.keys()) | unknown
        return replace(self, overrides=(), unpriced_keys=frozenset(unpriced), **changes)  # type: ignore[arg-type]

    def variants(self, *, max_prompt_tokens: int) -> Iterator["UnitPrices"]:
        """Yield the effective prices of every weekday, every time of day and every prompt up to that length."""
        marks = {mark for entry in self.overrides for mark in (entry.utc_start, entry.utc_end) if mark is not None}
        floors = {entry.min_prompt_tokens for entry in self.overrides if entry.min_prompt_tokens is not None}
        clocks = {0} | {int(mark) for mark in marks}
        sizes = {0} | {int(floor) + 1 for floor in floors if floor < max_prompt_tokens}
        days = range(len(WEEKDAYS)) if any(entry.utc_days is not None for entry in self.overrides) else (0,)
        for clock, size, day in product(clocks, sizes, days):
            yield self._applied(clock=clock, weekday=day, prompt_tokens=size)

    @property
    def cache_write_is_surcharge(self) -> bool:
        """Whether a written token is charged at the prompt price or as a read as well.

        Gemini's explicit cache works this way: its write price is rent for storage, the only write price below the
        prompt price in any listing. All other providers charge a written token once, at a higher price.
        """
        if self.input_cache_write is None or self.prompt is None:
            return False
        return self.input_cache_write < self.prompt

    def cache_read_price(self) -> Decimal | None:
        """Return the price of a token read from a cache; if none is listed, it is the prompt price."""
        unlisted = self.input_cache_read is None and "input_cache_read" not in self.unpriced_keys
        return self.prompt if unlisted else self.input_cache_read


_UNLISTED = UnitPrices()


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEvidence:
    """The prices that were in force when a call started, and their source.

    Attributes:
        prices: The provider's own prices if they are known, else the catalogue's.
        catalogue_hash: The catalogue in force.
        catalogue_time: When it was first seen.
        provider_prices_hash: The providers' list that the prices are from; None: they are from the catalogue.
        provider_prices_time: When that list was first seen.
    """

    prices: UnitPrices
    catalogue_hash: str
    catalogue_time: datetime
    provider_prices_hash: str | None = None
    provider_prices_time: datetime | None = None


def price(usage: TokenUsage, prices: UnitPrices, *, at: datetime) -> Decimal | None:
    """Return the cost of a usage in US dollars; None: it cannot be known.

    It is unknown with unreported token counts, a needed price that is not listed, counters that contradict each other,
    an amount out of bounds (`money.is_bounded`), and tools that OpenRouter ran (a search of Exa's, another model: their
    fees are in no list). Not included, for lack of a counter: fees of plugins (search, PDF OCR) and one-hour caches.

    Args:
        usage: The counters of one call; unreported finer kinds count as zero.
        prices: The prices of the model, or better of the provider, that served the call.
        at: When it was served, with a time zone.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    if prices.uncounted_fees or usage.server_tool_calls or not prices.are_listed:
        return None
    rates = prices.effective(at=at, prompt_tokens=usage.input_tokens)
    return _sum([*_input_lines(usage, rates), *_output_lines(usage, rates), *_fee_lines(usage, rates)])


def cache_savings(usage: TokenUsage, prices: UnitPrices, *, at: datetime) -> Decimal | None:
    """Return what a prompt would have cost without a cache, less its cost, in US dollars; None: it cannot be known.

    That is the tokens read, each at the difference to the price of a prompt token, less what writing cost in addition.

    Args:
        usage: The counters of one call.
        prices: The prices at which the call was charged.
        at: When it was served, with a time zone.
    """
    if usage.input_tokens is None:
        return None
    rates = prices.effective(at=at, prompt_tokens=usage.input_tokens)
    uncached = replace(usage, cache_read_tokens=0, cache_write_tokens=0, audio_cache_read_tokens=0)
    full, paid = _sum(_input_lines(uncached, rates)), _sum(_input_lines(usage, rates))
    return None if full is None or paid is None else money.subtract(full, paid)


def _input_lines(usage: TokenUsage, rates: UnitPrices) -> list[Line]:
    tokens, read, write = usage.input_tokens or 0, usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    audio, audio_read = usage.audio_input_tokens or 0, usage.audio_cache_read_tokens or 0
    if audio and read and usage.audio_cache_read_tokens is None:
        return [(audio, None)]  # the audio part of the cached tokens is not reported
    once = read if rates.cache_write_is_surcharge else read + write
    new_audio = audio - audio_read
    return [
        (tokens - once - new_audio, rates.prompt),
        (read - audio_read, rates.cache_read_price()),
        (write if write <= tokens else -1, rates.input_cache_write),
        (new_audio, rates.audio),
        (audio_read, rates.input_audio_cache),
    ]


def _output_lines(usage: TokenUsage, rates: UnitPrices) -> list[Line]:
    tokens, image, audio = (
        usage.output_tokens or 0,
        usage.image_output_tokens or 0,
        usage.audio_output_tokens or 0,
    )
    return [
        (tokens - image - audio, rates.completion),
        (image, rates.image_output),
        (audio, rates.audio_output),
    ]


def _fee_lines(usage: TokenUsage, rates: UnitPrices) -> list[Line]:
    has_fee = rates.request is not None or "request" in rates.unpriced_keys
    return [(1 if has_fee else 0, rates.request), (usage.web_search_requests or 0, rates.web_search)]


def _sum(lines: list[Line]) -> Decimal | None:
    if any(quantity < 0 or (quantity and unit_price is None) for quantity, unit_price in lines):
        return None
    try:
        cost = money.total(money.multiply(rate, quantity) for quantity, rate in lines if rate is not None)
    except DecimalException:
        return None
    return cost if money.is_bounded(cost) else None
