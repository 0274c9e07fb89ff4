"""Conditional prices: when an override applies, and the effect of a malformed one."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.pricing.catalogue import CatalogueModel
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import UnitPrices, price
from godoty_service.pricing.upper_bound import upper_bound

SATURDAY_NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
ONE_AND_ONE = TokenUsage(input_tokens=1, output_tokens=1)
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday"]


def _prices(overrides: Any) -> UnitPrices:
    return UnitPrices.from_listing({"prompt": "1", "completion": "10", "overrides": overrides})


def _price(overrides: Any, at: datetime = SATURDAY_NOON) -> Decimal | None:
    return price(ONE_AND_ONE, _prices(overrides), at=at)


def _bound(overrides: Any) -> Decimal | None:
    model = CatalogueModel(id="x/y", canonical_slug="x/y", prices=_prices(overrides))
    return upper_bound(request_bytes=952, max_output_tokens=100, models=[model])


@pytest.mark.parametrize(
    ("override", "at", "applies"),
    [
        ({"utc_days": ["saturday"]}, SATURDAY_NOON, True),
        ({"utc_days": ["saturday", "sunday"]}, SATURDAY_NOON + timedelta(days=1), True),
        ({"utc_days": WEEKDAYS}, SATURDAY_NOON, False),
        ({"utc_days": WEEKDAYS, "utc_start": 1100, "utc_end": 1300}, SATURDAY_NOON, False),
        ({"utc_days": ["saturday"], "utc_start": 1100, "utc_end": 1200}, SATURDAY_NOON, False),
        ({"utc_days": ["saturday"], "utc_start": 1100, "utc_end": 1201}, SATURDAY_NOON, True),
        ({"utc_days": ["friday"], "utc_start": 2200, "utc_end": 400}, SATURDAY_NOON - timedelta(hours=10), False),
        ({"utc_days": ["saturday"], "min_prompt_tokens": 1}, SATURDAY_NOON, False),
    ],
)
def test_weekdays_narrow_an_override(override: dict[str, Any], at: datetime, *, applies: bool) -> None:
    """`utc_days` names UTC weekdays, evaluated at the call's instant, together with the other conditions."""
    prices = UnitPrices.from_document(_prices([{**override, "prompt": "5"}]).to_document())

    assert price(ONE_AND_ONE, prices, at=at) == (15 if applies else 11)


def test_bound_covers_every_weekday() -> None:
    """An override of one weekday counts in the bound, which is computed without a date."""
    assert _bound([{"utc_days": ["monday"], "completion": "20", "prompt": "2"}]) == 2 * 3000 + 20 * 100


@pytest.mark.parametrize(
    "override",
    [
        {"service_tier": "flex"},
        {"utc_days": ["someday"]},
        {"utc_days": [1]},
        {"utc_days": []},
        {"utc_days": "saturday"},
        {"utc_days": [["saturday"]]},
        {"utc_start": 1100},
        {"utc_start": 1100, "utc_end": 1100},
        {"utc_start": 2500, "utc_end": 2600},
        {"utc_start": 1075, "utc_end": 1100},
        {"utc_start": Decimal("1000.5"), "utc_end": 1100},
        {"min_prompt_tokens": "many"},
        {"min_prompt_tokens": -1},
        {"min_prompt_tokens": {}},
    ],
)
def test_unparsed_condition_makes_the_price_unknown(override: dict[str, Any]) -> None:
    """Neither the base price nor the override's is used, and there is no finite bound, also after storage."""
    overrides = [{**override, "prompt": "5"}]

    assert _price(overrides) is None
    assert _bound(overrides) is None
    stored = UnitPrices.from_document(_prices(overrides).to_document())
    assert price(ONE_AND_ONE, stored, at=SATURDAY_NOON) is None


def test_false_condition_excludes_the_override() -> None:
    """An unknown condition beside one that fails cannot make the override apply."""
    assert _price([{"service_tier": "flex", "min_prompt_tokens": 5, "prompt": "5"}]) == 11


def test_later_override_wins_over_an_unparsed_one() -> None:
    """The price of a key that a later, parsed override sets is known."""
    assert _price([{"service_tier": "flex", "prompt": "5"}, {"prompt": "7"}]) == 17


@pytest.mark.parametrize("overrides", [["x"], [None], [["prompt"]], {"prompt": "5"}, "x", 5, True])
def test_malformed_overrides_make_the_price_unknown(overrides: Any) -> None:
    """A malformed value of `overrides` may change every price."""
    assert _price(overrides) is None
    assert _bound(overrides) is None


def test_too_many_overrides_make_the_price_unknown() -> None:
    """The work for one price is bounded: the largest recorded listing has two overrides for a model."""
    assert _price([{"min_prompt_tokens": 1000 + each, "prompt": "5"} for each in range(1000)]) is None


@pytest.mark.parametrize("listed", ["-1", "-0.5", "1e40", "1000001", "1e-26", "1e-6000", "NaN", [], {}, True, 10**400])
def test_absurd_price_is_unknown(listed: Any) -> None:
    """A price that is negative, above a million dollars a token or finer than 25 decimals is unknown, never 0."""
    prices = UnitPrices.from_listing({"prompt": listed, "completion": "1"})

    assert prices.prompt is None
    assert "prompt" in prices.unpriced_keys
