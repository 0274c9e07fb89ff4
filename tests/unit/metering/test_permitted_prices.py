"""The bound of the prices that a request permits: `max_price` as a pair, and reasoning beyond a small `max_tokens`."""

from decimal import Decimal
from typing import Any

import pytest

from godoty_service.pricing.catalogue import CatalogueModel, Endpoint, EndpointPrices
from godoty_service.pricing.unit_prices import UnitPrices
from godoty_service.pricing.upper_bound import upper_bound


def _prices(prompt: str, completion: str, **more: str) -> UnitPrices:
    return UnitPrices.from_listing({"prompt": prompt, "completion": completion, **more})


def _model(prices: UnitPrices, **more: Any) -> CatalogueModel:
    return CatalogueModel(id="x/y", canonical_slug="x/y", prices=prices, **more)


def _bound(model: CatalogueModel, *offers: UnitPrices, limit: int = 100, **more: Any) -> Decimal | None:
    endpoints = tuple(Endpoint(provider_name="", tag="", prices=prices) for prices in offers)
    listed = [EndpointPrices(model_id="x/y", endpoints=endpoints)]
    return upper_bound(request_bytes=952, max_output_tokens=limit, models=[model], endpoint_prices=listed, **more)


def test_dearest_prompt_and_dearest_completion_count_together() -> None:
    """One provider has the dear prompt, another the dear completion: the request permits a third that has both."""
    model, offers = _model(_prices("1", "1")), (_prices("5", "1"), _prices("1", "20", request="7"))

    assert _bound(model, *offers) == 5 * 3000 + 1 * 100
    permitted = {"prompt": Decimal(5), "completion": Decimal(20)}
    assert _bound(model, *offers, max_price=permitted) == 5 * 3000 + 20 * 100 + 7


def test_permitted_price_above_every_known_offer_counts() -> None:
    """The bound follows the request, not the known offers alone."""
    permitted = {"prompt": Decimal(9), "completion": Decimal(30)}

    assert _bound(_model(_prices("1", "1")), max_price=permitted) == 9 * 3000 + 30 * 100


def test_unpriced_offer_has_no_bound_under_max_price() -> None:
    """A router's price is not known with any permitted price."""
    assert _bound(_model(_prices("-1", "-1")), max_price={"prompt": Decimal(1), "completion": Decimal(1)}) is None


@pytest.mark.parametrize(
    ("limit", "tokens"), [(16, 1040), (100, 1124), (1024, 2048), (1025, 2048), (2048, 2048), (5000, 5000)]
)
def test_minimum_reasoning_is_added_to_a_small_limit(limit: int, tokens: int) -> None:
    """The provider gives reasoning at least 1,024 tokens; a limit with space for them bounds all output."""
    prices = _prices("0", "1")

    assert _bound(_model(prices, reasons=True), limit=limit) == tokens
    assert _bound(_model(prices), limit=limit) == limit
