"""Unit prices as OpenRouter lists them, and the oracle: what a usage costs at them.

The formula gave the billed amount to the last bit on 1,058 of 1,107 recorded completions. Where it cannot be
known to hold, the answer is `None`: the oracle never guesses and unknown is never 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from itertools import product
from typing import Any

from godoty_service.metering import money
from godoty_service.metering.price_overrides import (
    PRICE_KEYS,
    WEEKDAYS,
    Override,
    listed_price,
    read_overrides,
    written_price,
)
from godoty_service.metering.usage import TokenUsage

Line = tuple[int, Decimal | None]  # a quantity and its unit price; None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """US dollars for one token, request or search, by the listing's own keys; `None`: not listed.

    `depends` names the keys that are listed without a number ("-1": it depends). `uncounted_fees` says that a
    call also costs what no counter shows (a model that searches by itself), so that no price can be told.
    Evidence only are `discount` (listed prices are discounted already), `image` and `image_token` (vision
    adds nothing to the tokens), `internal_reasoning` (neither does that) and `input_cache_write_1h` (no
    counter tells such writes apart).
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
    depends: frozenset[str] = field(default_factory=frozenset)
    uncounted_fees: bool = False

    @classmethod
    def from_listing(cls, pricing: Mapping[str, Any], *, uncounted_fees: bool = False) -> "UnitPrices":
        """Read a listing's `pricing`; a price that is negative or no number is known to be unknown.

        Raises:
            TypeError: where a price is a float.
        """
        prices = {key: listed_price(pricing.get(key)) for key in PRICE_KEYS}
        return cls(
            overrides=read_overrides(pricing.get("overrides")),
            depends=frozenset(key for key in PRICE_KEYS if pricing.get(key) is not None and prices[key] is None),
            uncounted_fees=uncounted_fees,
            **prices,
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "UnitPrices":
        """Read what `to_document` wrote."""
        return cls.from_listing(document, uncounted_fees=document.get("uncounted_fees") is True)

    def to_document(self) -> dict[str, Any]:
        """Give the prices as a plain dict of decimal strings, as the listing does: evidence for an entry."""
        document: dict[str, Any] = {
            key: written_price(value)
            for key in PRICE_KEYS
            if (value := getattr(self, key)) is not None or key in self.depends
        }
        if self.overrides:
            document["overrides"] = [override.to_document() for override in self.overrides]
        return {**document, **({"uncounted_fees": True} if self.uncounted_fees else {})}

    def effective(self, *, at: datetime, prompt_tokens: int) -> "UnitPrices":
        """Apply the overrides for a prompt of that length at that time; later ones win by key.

        Raises:
            ValueError: for a time without a time zone.
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
        depends = (self.depends - changes.keys()) | unknown
        return replace(self, overrides=(), depends=frozenset(depends), **changes)  # type: ignore[arg-type]

    def states(self, *, max_prompt_tokens: int) -> Iterator["UnitPrices"]:
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

        So it is with Gemini's explicit cache, whose write price is rent for storage: the only write prices
        below the prompt price in any listing. Everybody else charges a written token once, for more.
        """
        if self.input_cache_write is None or self.prompt is None:
            return False
        return self.input_cache_write < self.prompt

    def cache_read_price(self) -> Decimal | None:
        """Give the price of a read token; where none is listed, there is no discount on the prompt price."""
        unlisted = self.input_cache_read is None and "input_cache_read" not in self.depends
        return self.prompt if unlisted else self.input_cache_read


def price(usage: TokenUsage, prices: UnitPrices, *, at: datetime) -> Decimal | None:
    """Tell what a usage costs in US dollars, or `None` where that cannot be known.

    Unknown are: tokens that nobody counted, a needed price that is not listed, counters that contradict each
    other, an amount that no call may cost (`money.is_bounded`), and tools that OpenRouter ran (a search of Exa's,
    another model: their fees are in no list). Not seen, for want of a counter: fees of plugins (search, PDF OCR)
    and caches that are kept for an hour.

    Args:
        usage: the counters of one call; finer kinds that were not told count as none.
        prices: those of the model, or better of the provider, that served the call.
        at: when it was served, with a time zone.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    if prices.uncounted_fees or usage.server_tool_calls:
        return None
    rates = prices.effective(at=at, prompt_tokens=usage.input_tokens)
    return _sum([*_input_lines(usage, rates), *_output_lines(usage, rates), *_fee_lines(usage, rates)])


def _input_lines(usage: TokenUsage, rates: UnitPrices) -> list[Line]:
    tokens, read, write = usage.input_tokens or 0, usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    audio, audio_read = usage.audio_input_tokens or 0, usage.audio_cache_read_tokens or 0
    if audio and read and usage.audio_cache_read_tokens is None:
        return [(audio, None)]  # nobody told how much of the cache is audio
    once = read if rates.cache_write_is_surcharge else read + write
    heard = audio - audio_read
    return [
        (tokens - once - heard, rates.prompt),
        (read - audio_read, rates.cache_read_price()),
        (write if write <= tokens else -1, rates.input_cache_write),
        (heard, rates.audio),
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
    has_fee = rates.request is not None or "request" in rates.depends
    return [(1 if has_fee else 0, rates.request), (usage.web_search_requests or 0, rates.web_search)]


def _sum(lines: list[Line]) -> Decimal | None:
    if any(quantity < 0 or (quantity and unit_price is None) for quantity, unit_price in lines):
        return None
    try:
        cost = money.total(money.multiply(rate, quantity) for quantity, rate in lines if rate is not None)
    except DecimalException:
        return None
    return cost if money.is_bounded(cost) else None
