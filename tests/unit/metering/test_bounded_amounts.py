"""The bounds of amounts that enter, and prices whose product would exceed them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from godoty_service.pricing import money
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import UnitPrices, price
from godoty_service.pricing.upper_bound import upper_bound

NOW = datetime(2026, 11, 28, tzinfo=UTC)
USAGE = TokenUsage(input_tokens=3, output_tokens=3)


@pytest.mark.parametrize("text", ["0", "-0.5", "1000000", "-1000000", f"0.{'0' * 24}1", f"0.5{'0' * 30}"])
def test_amount_within_bounds_is_parsed_exactly(text: str) -> None:
    """Zero, negative amounts, both limits, and zeros behind the 25th decimal."""
    assert money.read_amount(text) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    [f"0.{'0' * 25}1", str(Decimal(1) / 3), "1000000.01", "-1000001", "1e3", "1E-7", ".5", "1.", "+1", "", "9" * 99],
)
def test_amount_out_of_bounds_is_refused(text: str) -> None:
    """The error states the rule, and repeats at most 60 characters of the text."""
    with pytest.raises(ValueError, match="at most 1,000,000 USD and at most 25 decimals") as refused:
        money.read_amount(text)

    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("listed", [f"0.{'0' * 25}1", "1000001"])
def test_listed_price_out_of_bounds_is_unknown(listed: str) -> None:
    """A price finer or larger than any amount may be is ignored: the oracle never rounds."""
    prices = UnitPrices.from_listing({"prompt": listed, "completion": "0.1"})

    assert prices.prompt is None
    assert prices.unpriced_keys == frozenset({"prompt"})
    assert price(USAGE, prices, at=NOW) is None


def test_priced_cost_above_the_limit_is_unknown() -> None:
    """Three tokens at 400,000 USD exceed the bound of a call: the price is not the call's cost."""
    prices = UnitPrices.from_listing({"prompt": "400000", "completion": "0"})

    assert price(USAGE, prices, at=NOW) is None


def test_override_above_a_million_tokens_applies() -> None:
    """A threshold is a count of tokens and not an amount: 2,000,000 is valid."""
    prices = UnitPrices.from_listing(
        {"prompt": "1", "completion": "0", "overrides": [{"min_prompt_tokens": 2_000_000, "prompt": "0.000001"}]}
    )

    assert price(TokenUsage(input_tokens=2_000_001, output_tokens=0), prices, at=NOW) == Decimal("2.000001")


def test_bound_above_the_limit_is_no_bound() -> None:
    """A call whose bound is above a million dollars counts as one without a finite bound: no sum can include it."""
    listing = {"id": "a/b", "context_length": 10**6, "pricing": {"prompt": "1000", "completion": "1000"}}
    catalogue = Catalogue.parse({"data": [listing]}, fetch_time=NOW)

    assert upper_bound(request_bytes=10, max_output_tokens=None, models=catalogue.offers("a/b")) is None
