"""Conditional prices of a listing: they replace base prices, key by key, while their conditions hold (`UnitPrices`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from godoty_service.pricing import money
from godoty_service.pricing.token_usage import whole_number

PRICE_KEYS = (
    "prompt",
    "completion",
    "request",
    "image",
    "image_token",
    "image_output",
    "audio",
    "audio_output",
    "input_audio_cache",
    "web_search",
    "internal_reasoning",
    "input_cache_read",
    "input_cache_write",
    "input_cache_write_1h",
    "discount",
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MAX_OVERRIDES = 32  # of one model; the largest recorded listing has two

_NUMBERS = ("min_prompt_tokens", "utc_start", "utc_end")
_CLOCKS = ("utc_start", "utc_end")
_DAYS = "utc_days"
_HOURS, _MINUTES = 24, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Prices that replace the base ones, key by key, while every condition holds.

    `min_prompt_tokens` must be strictly exceeded. `utc_start` and `utc_end` are clock numbers (1030 is 10:30) of a
    daily window that excludes its end and may wrap midnight. `utc_days` are the weekdays (0 is Monday) on which the
    override applies, by the UTC day of the call itself. An `unclear` override has a condition that this version cannot
    parse: it is unknown whether it applies, and so are the prices it names.
    """

    prices: Mapping[str, Decimal | None]
    min_prompt_tokens: Decimal | None = None
    utc_start: Decimal | None = None
    utc_end: Decimal | None = None
    utc_days: frozenset[int] | None = None
    unclear: bool = False

    @classmethod
    def from_listing(cls, entry: Any) -> "Override":
        """Parse one entry of `pricing.overrides`; one that is no object makes every price unknown."""
        if not isinstance(entry, Mapping):
            return UNREADABLE
        numbers = {key: _number(entry.get(key)) for key in _NUMBERS}
        days = _weekdays(entry.get(_DAYS))
        unread = any(entry.get(key) is not None and numbers[key] is None for key in _NUMBERS)
        unread_days = entry.get(_DAYS) is not None and days is None
        known = {*PRICE_KEYS, *_NUMBERS, _DAYS}
        window = _is_window(numbers)
        if not window:  # any time of day is possible
            numbers |= dict.fromkeys(_CLOCKS)
        return cls(
            prices={key: listed_price(entry[key]) for key in PRICE_KEYS if entry.get(key) is not None},
            utc_days=days,
            unclear=unread or unread_days or not window or not set(entry) <= known,
            **numbers,
        )

    def to_document(self) -> dict[str, Any]:
        """Return the entry in the listing's form; a condition that could not be parsed is stored as `unclear`."""
        numbers = {key: money.format_usd(value) for key in _NUMBERS if (value := getattr(self, key)) is not None}
        days = {} if self.utc_days is None else {_DAYS: [WEEKDAYS[day] for day in sorted(self.utc_days)]}
        prices = {key: written_price(value) for key, value in self.prices.items()}
        return {**numbers, **days, **prices, **({"unclear": "1"} if self.unclear else {})}

    def holds(self, *, clock: int, weekday: int, prompt_tokens: int) -> bool:
        """Return whether every parsed condition holds for a prompt of that length at that UTC time and weekday."""
        if self.min_prompt_tokens is not None and prompt_tokens <= self.min_prompt_tokens:
            return False
        if self.utc_days is not None and weekday not in self.utc_days:
            return False
        if self.utc_start is None or self.utc_end is None:
            return True
        if self.utc_start <= self.utc_end:
            return self.utc_start <= clock < self.utc_end
        return clock >= self.utc_start or clock < self.utc_end


UNREADABLE = Override(prices=dict.fromkeys(PRICE_KEYS), unclear=True)


def read_overrides(listed: Any) -> tuple[Override, ...]:
    """Parse `pricing.overrides`; anything but a list of a usual length makes every price unknown."""
    if listed is None:
        return ()
    if not isinstance(listed, Sequence) or isinstance(listed, str | bytes) or len(listed) > MAX_OVERRIDES:
        return (UNREADABLE,)
    return tuple(Override.from_listing(entry) for entry in listed)


def listed_price(value: Any) -> Decimal | None:
    """Parse a listed price; a negative, absurd or malformed one is unknown."""
    price = money.parse_charge(value)
    return price if price is not None and money.is_bounded(price) else None


def written_price(value: Decimal | None) -> str:
    """Format a price as the listing does; unknown is "-1"."""
    return money.format_usd(value) or "-1"


def _number(value: Any) -> Decimal | None:
    """Parse a threshold or a clock number: it may be a text, and must be whole."""
    number = money.parse_charge(value)
    return None if number is None or (whole := whole_number(number)) is None else Decimal(whole)


def _is_window(numbers: Mapping[str, Decimal | None]) -> bool:
    """Return whether the clock numbers are two different times of day, or both missing."""
    start, end = (numbers[key] for key in _CLOCKS)
    if start is None and end is None:
        return True
    return start != end and all(clock is not None and _is_clock(clock) for clock in (start, end))


def _is_clock(number: Decimal) -> bool:
    hour, minute = divmod(number, 100)
    return (minute in range(_MINUTES) and hour in range(_HOURS)) or number == _HOURS * 100


def _weekdays(value: Any) -> frozenset[int] | None:
    """Parse names of weekdays; None: there are none, or one of them is unknown."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not 0 < len(value) <= len(WEEKDAYS):
        return None
    names = [day.lower() if isinstance(day, str) else "" for day in value]
    return frozenset(map(WEEKDAYS.index, names)) if set(names) <= set(WEEKDAYS) else None
