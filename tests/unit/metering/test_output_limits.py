"""The largest output limit that an amount of money covers."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.clock import utc_now
from godoty_service.pricing.catalogue import CatalogueModel
from godoty_service.pricing.planned_call import LEAST_OUTPUT_TOKENS, PlannedCall
from godoty_service.pricing.unit_prices import UnitPrices
from godoty_service.pricing.upper_bound import upper_bound

PRICES = UnitPrices.from_listing({"prompt": "0.00000015", "completion": "0.0000006"})
PLAIN = CatalogueModel(id="x/y", canonical_slug="x/y", prices=PRICES, context_length=128_000)
REASONING = CatalogueModel(id="x/z", canonical_slug="x/z", prices=PRICES, context_length=128_000, reasons=True)
UNLIMITED = CatalogueModel(
    id="x/u", canonical_slug="x/u", prices=PRICES, context_length=128_000, supports_max_tokens=False
)


def planned(*models: CatalogueModel, asked: int | None) -> PlannedCall:
    """Return a planned call of a short request."""

    def bound(limit: int | None) -> Decimal | None:
        return upper_bound(request_bytes=952, max_output_tokens=limit, models=models)

    return PlannedCall(tenant_id="tenant", start_time=utc_now(), asked=asked, bound=bound)


@given(
    st.sampled_from([(PLAIN,), (REASONING,), (PLAIN, REASONING)]),
    st.integers(min_value=1, max_value=20_000),
    st.integers(min_value=0, max_value=20_000),
)
def test_limit_is_the_largest_whose_bound_fits(models: tuple[CatalogueModel, ...], asked: int, millionths: int) -> None:
    """It is between the minimum and the requested limit, and one more token would not fit; else there is none."""
    call, amount = planned(*models, asked=asked), Decimal(millionths).scaleb(-6)
    limit = call.limit_within(amount)

    if limit is None:
        least = call.bound(call.least)
        assert least is not None
        assert least > amount
        return
    bound, more = call.bound(limit), call.bound(limit + 1)
    assert bound is not None
    assert more is not None
    assert min(asked, LEAST_OUTPUT_TOKENS) <= limit <= asked
    assert bound <= amount
    assert limit == asked or more > amount


@pytest.mark.parametrize(
    ("model", "asked"), [(UNLIMITED, 1000), (PLAIN, None)], ids=["the model ignores limits", "no limit is known"]
)
def test_limit_that_does_not_lower_the_bound_is_none(model: CatalogueModel, asked: int | None) -> None:
    """If a limit does not change the bound, there is nothing to clamp."""
    assert planned(model, asked=asked).limit_within(Decimal("0.001")) is None
