from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.pricing import money
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.price_overrides import PRICE_KEYS
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import UnitPrices, price

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
PLAIN = UnitPrices.from_listing({"prompt": "0.000003", "completion": "0.000015"})
CACHING = replace(PLAIN, input_cache_read=Decimal("0.0000003"), input_cache_write=Decimal("0.00000375"))
GEMINI = replace(CACHING, input_cache_write=Decimal("0.0000005"))

tokens = st.integers(min_value=0, max_value=10**7)
rates = st.integers(min_value=0, max_value=10**18).map(lambda digits: Decimal(digits).scaleb(-22))


@st.composite
def priced(draw: st.DrawFn, *, calls: int) -> tuple[UnitPrices, list[TokenUsage]]:
    """Prices without overrides or fees, and calls whose counters agree with each other."""
    named = {key: draw(rates) for key in PRICE_KEYS if key not in {"request", "discount", "input_audio_cache"}}
    usages = []
    for _ in range(calls):
        read, write, plain, text, image = (draw(tokens) for _ in range(5))
        usages.append(
            TokenUsage(
                input_tokens=read + write + plain,
                output_tokens=text + image,
                cache_read_tokens=read,
                cache_write_tokens=write,
                image_output_tokens=image,
                web_search_requests=draw(st.integers(min_value=0, max_value=9)),
            )
        )
    return UnitPrices.from_listing(named), usages


@given(priced(calls=2))
def test_price_is_additive(case: tuple[UnitPrices, list[TokenUsage]]) -> None:
    """Two calls cost as much as one call with both usages, to the last digit."""
    prices, (one, other) = case
    apart = [price(usage, prices, at=NOON) for usage in (one, other)]

    assert price(one + other, prices, at=NOON) == money.total([amount for amount in apart if amount is not None])


@given(priced(calls=1), tokens, tokens)
def test_price_is_monotone(case: tuple[UnitPrices, list[TokenUsage]], more_in: int, more_out: int) -> None:
    """More tokens never cost less."""
    prices, (usage,) = case
    more = usage + TokenUsage(input_tokens=more_in, output_tokens=more_out)
    less, dearer = price(usage, prices, at=NOON), price(more, prices, at=NOON)

    assert less is not None
    assert dearer is not None
    assert less <= dearer


@pytest.mark.parametrize(
    ("prices", "usage", "expected"),
    [
        (PLAIN, {}, "0.018"),
        (CACHING, {"cache_read_tokens": 900}, "0.01557"),
        (CACHING, {"cache_write_tokens": 600, "cache_read_tokens": 400}, "0.01737"),
        (PLAIN, {"cache_read_tokens": 900}, "0.018"),
        (PLAIN, {"reasoning_tokens": 1100}, "0.018"),
        (replace(PLAIN, internal_reasoning=Decimal(1)), {"reasoning_tokens": 900}, "0.018"),
        (PLAIN, {"video_input_tokens": 500}, "0.018"),
        (replace(PLAIN, audio=Decimal("0.00001")), {"audio_input_tokens": 100}, "0.0187"),
        (replace(PLAIN, audio_output=Decimal("0.0001")), {"audio_output_tokens": 100}, "0.0265"),
        (replace(PLAIN, image_output=Decimal("0.00003")), {"image_output_tokens": 400}, "0.024"),
        (replace(PLAIN, web_search=Decimal("0.01")), {"web_search_requests": 3}, "0.048"),
        (replace(PLAIN, request=Decimal("0.005")), {}, "0.023"),
        (replace(PLAIN, request=Decimal(0)), {}, "0.018"),
    ],
)
def test_formula(prices: UnitPrices, usage: dict[str, int], expected: str) -> None:
    """Each kind of token has its own rate; 1,000 tokens in and out throughout."""
    counted = TokenUsage(input_tokens=1000, output_tokens=1000, **usage)

    assert price(counted, prices, at=NOON) == Decimal(expected)


def test_cached_audio_has_its_own_rate() -> None:
    """Of 100 audio tokens 40 are read from the cache, beside 60 of text."""
    prices = replace(CACHING, audio=Decimal("0.00001"), input_audio_cache=Decimal("0.000001"))
    usage = TokenUsage(input_tokens=1000, output_tokens=0, cache_read_tokens=100, audio_input_tokens=100)

    expected = (
        840 * Decimal("0.000003") + 60 * Decimal("0.0000003") + 60 * Decimal("0.00001") + 40 * Decimal("0.000001")
    )
    assert price(replace(usage, audio_cache_read_tokens=40), prices, at=NOON) == expected
    assert price(usage, prices, at=NOON) is None


def test_gemini_charges_a_written_token_twice() -> None:
    """Gemini's write price is rent: a written token is also read, or paid as prompt."""
    both = TokenUsage(input_tokens=1000, output_tokens=0, cache_read_tokens=900, cache_write_tokens=900)
    write = replace(both, cache_read_tokens=0)

    assert price(both, GEMINI, at=NOON) == Decimal("0.00102")
    assert price(write, GEMINI, at=NOON) == Decimal("0.00345")
    assert price(both, CACHING, at=NOON) is None


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": None},
        {"output_tokens": None},
        {"cache_write_tokens": 1},
        {"audio_input_tokens": 1},
        {"audio_output_tokens": 1},
        {"image_output_tokens": 1},
        {"web_search_requests": 1},
        {"server_tool_calls": 1},
        {"cache_read_tokens": 101},
        {"image_output_tokens": 101},
    ],
)
def test_unknown_part_makes_the_price_unknown(usage: dict[str, int | None]) -> None:
    """An uncounted or unpriced token, or contradicting counters, give no price, not a lower one."""
    counted = TokenUsage(**{"input_tokens": 100, "output_tokens": 100, **usage})

    assert price(counted, PLAIN, at=NOON) is None


@pytest.mark.parametrize("usage", [{"cache_write_tokens": 101, "cache_read_tokens": 0}])
def test_more_cache_writes_than_input_have_no_price(usage: dict[str, int]) -> None:
    """Such counters are wrong under any provider's rules."""
    assert price(TokenUsage(input_tokens=100, output_tokens=0, **usage), GEMINI, at=NOON) is None


@pytest.mark.parametrize("key", ["prompt", "completion", "request", "input_cache_read"])
@pytest.mark.parametrize("word", ["-1", "", "free", "NaN"])
def test_unpriced_key_is_unknown(key: str, word: str) -> None:
    """'-1' means that the price depends: not free, not minus one dollar, and not as if it were not listed."""
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "1", key: word})
    usage = TokenUsage(input_tokens=2, output_tokens=1, cache_read_tokens=1)

    assert price(usage, prices, at=NOON) is None
    assert prices == UnitPrices.from_document(prices.to_document())


def test_unknown_price_of_unused_kind_is_ignored() -> None:
    """Only the used kinds must be priced."""
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "1", "web_search": "-1", "audio": "-1"})

    assert price(TokenUsage(input_tokens=1, output_tokens=1, web_search_requests=0), prices, at=NOON) == 2


def test_amount_of_more_than_34_digits_is_unknown() -> None:
    """A price of 26 digits times many tokens, or one of 10^30 USD beside a small one: not rounded, and no error."""
    long = UnitPrices.from_listing({"prompt": f"1.{'1' * 25}", "completion": "0"})
    wide = UnitPrices.from_listing({"prompt": "1e30", "completion": "1e-10"})

    assert price(TokenUsage(input_tokens=7, output_tokens=0), long, at=NOON) is not None
    assert price(TokenUsage(input_tokens=10**12 - 1, output_tokens=0), long, at=NOON) is None
    assert price(TokenUsage(input_tokens=1, output_tokens=1), wide, at=NOON) is None


def test_free_is_zero() -> None:
    """A price of '0' is known: the call costs 0, and that is not None."""
    prices = UnitPrices.from_listing({"prompt": "0", "completion": "0"})

    assert price(TokenUsage(input_tokens=9, output_tokens=9), prices, at=NOON) == Decimal(0)


def test_uncounted_fees_make_the_price_unknown() -> None:
    """A model that searches by itself costs more than its counters show."""
    assert price(TokenUsage(input_tokens=1, output_tokens=1), replace(PLAIN, uncounted_fees=True), at=NOON) is None


def test_float_price_is_rejected() -> None:
    """A listing must be parsed with money.loads."""
    with pytest.raises(TypeError, match="float"):
        UnitPrices.from_listing({"prompt": 0.1})


@pytest.mark.parametrize(("prompt_tokens", "expected"), [(999, 999), (1000, 1000), (1001, 2002), (5001, 15003)])
def test_long_prompts_cost_more_only_above_the_threshold(prompt_tokens: int, expected: int) -> None:
    """The threshold must be exceeded, and the later of two entries that apply wins."""
    overrides = [{"min_prompt_tokens": 1000, "prompt": "2"}, {"min_prompt_tokens": 5000, "prompt": "3"}]
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "1", "overrides": overrides})

    assert price(TokenUsage(input_tokens=prompt_tokens, output_tokens=0), prices, at=NOON) == expected


def test_later_overrides_win_key_by_key() -> None:
    """A later entry replaces the keys it names and no others."""
    overrides = [{"min_prompt_tokens": 1, "prompt": "5", "completion": "7"}, {"min_prompt_tokens": 1, "prompt": "3"}]
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "1", "overrides": overrides})

    assert price(TokenUsage(input_tokens=2, output_tokens=1), prices, at=NOON) == 2 * 3 + 7


@pytest.mark.parametrize(
    ("start", "end", "clock", "inside"),
    [
        (1630, 30, "16:29", False),
        (1630, 30, "16:30", True),
        (1630, 30, "23:59", True),
        (1630, 30, "00:00", True),
        (1630, 30, "00:29", True),
        (1630, 30, "00:30", False),
        (100, 400, "00:59", False),
        (100, 400, "01:00", True),
        (100, 400, "03:59", True),
        (100, 400, "04:00", False),
        (0, 2400, "23:59", True),
    ],
)
def test_windows(start: int, end: int, clock: str, *, inside: bool) -> None:
    """A window applies from its start to just before its end, in UTC, also across midnight."""
    override = {"utc_start": start, "utc_end": end, "prompt": "2"}
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "1", "overrides": [override]})
    at = datetime.fromisoformat(f"2026-08-22T{clock}:00+00:00")
    usage = TokenUsage(input_tokens=1, output_tokens=0)
    expected = 2 if inside else 1

    assert price(usage, prices, at=at) == expected
    assert price(usage, prices, at=at.astimezone(timezone(timedelta(hours=5, minutes=30)))) == expected


def test_all_conditions_must_hold() -> None:
    """An entry with a window and a threshold applies inside the window and above the threshold only."""
    override = {"min_prompt_tokens": 10, "utc_start": 1200, "utc_end": 1300, "prompt": "2"}
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "1", "overrides": [override]})
    cases = [(10, NOON), (11, NOON), (11, NOON + timedelta(hours=1))]

    charges = [price(TokenUsage(input_tokens=count, output_tokens=0), prices, at=at) for count, at in cases]
    assert charges == [10, 22, 11]


def test_time_without_a_zone_raises() -> None:
    """A clock time without a zone is ambiguous."""
    with pytest.raises(ValueError, match="time zone"):
        price(TokenUsage(input_tokens=1, output_tokens=1), PLAIN, at=NOON.replace(tzinfo=None))


@pytest.mark.parametrize(
    "condition",
    [{"region": "eu"}, {"min_prompt_tokens": "many"}, {"utc_start": 100}, {"min_prompt_tokens": 0, "weekday": 6}],
)
def test_unknown_condition_makes_its_prices_unknown(condition: dict[str, Any]) -> None:
    """It is unknown whether a new kind of condition holds, and so are its prices; the others stay known."""
    listed = {"prompt": "1", "completion": "1", "overrides": [{"prompt": "2", **condition}]}
    prices = UnitPrices.from_listing(listed)

    assert price(TokenUsage(input_tokens=1, output_tokens=1), prices, at=NOON) is None
    assert price(TokenUsage(input_tokens=0, output_tokens=1), prices, at=NOON) == 1
    assert prices == UnitPrices.from_document(prices.to_document())


@pytest.mark.parametrize("key", ["prompt", "request"])
def test_unpriced_override_hides_the_base_price(key: str) -> None:
    """'-1' in an entry that applies is unknown: not the base price, nor as if it were not listed."""
    overrides = [{"min_prompt_tokens": 10, key: "-1"}]
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "1", "overrides": overrides})

    assert price(TokenUsage(input_tokens=10, output_tokens=0), prices, at=NOON) == 10
    assert price(TokenUsage(input_tokens=11, output_tokens=0), prices, at=NOON) is None
    assert prices == UnitPrices.from_document(prices.to_document())


def test_prices_are_stored_as_listed() -> None:
    """An entry's evidence is a plain dict of decimal strings, with every digit and condition."""
    listed = {
        "prompt": "0.0000000208333333333333",
        "completion": "-1",
        "request": "0",
        "overrides": [
            {"prompt": "0.5", "min_prompt_tokens": "200000"},
            {"audio": "2", "utc_start": "0", "utc_end": "30"},
        ],
    }

    assert listed == UnitPrices.from_listing(listed).to_document()


def test_listed_prices_round_trip(any_listing: Catalogue) -> None:
    """Stored evidence decodes to equal prices, for every model of every listing."""
    for model in any_listing.models.values():
        assert model.prices == UnitPrices.from_document(model.prices.to_document())


def test_every_price_key_is_a_field() -> None:
    """The keys of a listing and the fields of the prices have the same names."""
    names = {field.name for field in fields(UnitPrices)} - {"overrides", "unpriced_keys", "uncounted_fees"}

    assert names == set(PRICE_KEYS)
