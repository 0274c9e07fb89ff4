from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.pricing.catalogue import Catalogue, CatalogueModel, Endpoint, EndpointPrices
from godoty_service.pricing.price_overrides import PRICE_KEYS
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import UnitPrices, price
from godoty_service.pricing.upper_bound import LEAST_OUTPUT_LIMIT, TEMPLATE_TOKENS, output_limit, upper_bound

MIDNIGHT = datetime(2026, 8, 22, tzinfo=UTC)

rates = st.none() | st.integers(min_value=0, max_value=10**6).map(lambda digits: Decimal(digits).scaleb(-12))
clocks = st.integers(min_value=0, max_value=23).map(lambda hour: hour * 100)


def _model(**listed: Any) -> CatalogueModel:
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "10", **listed})
    return CatalogueModel(id="x/y", canonical_slug="x/y", prices=prices)


def _bound(*models: CatalogueModel, **more: Any) -> Decimal | None:
    return upper_bound(**{"request_bytes": 952, "max_output_tokens": 100, "models": models, **more})


@st.composite
def listings(draw: st.DrawFn) -> UnitPrices:
    """Prices of every kind, with contradicting overrides by length and by time of day."""
    base = {key: rate for key in PRICE_KEYS if (rate := draw(rates)) is not None}
    overrides = []
    for _ in range(draw(st.integers(min_value=0, max_value=3))):
        entry: dict[str, Any] = {
            key: rate for key in PRICE_KEYS if draw(st.booleans()) and (rate := draw(rates)) is not None
        }
        if draw(st.booleans()):
            entry["min_prompt_tokens"] = draw(st.integers(min_value=0, max_value=6000))
        if draw(st.booleans()):
            entry |= {"utc_start": draw(clocks), "utc_end": draw(clocks)}
        overrides.append(entry)
    return UnitPrices.from_listing({**base, "overrides": overrides})


@given(st.data(), listings(), st.integers(min_value=0, max_value=4000), st.integers(min_value=0, max_value=5000))
def test_no_usage_that_fits_the_request_costs_more(
    data: st.DataObject, prices: UnitPrices, request_bytes: int, limit: int
) -> None:
    """For any split into kinds of tokens, and at any time of day, the bound is not below the price."""
    count = data.draw(st.integers(min_value=0, max_value=request_bytes + TEMPLATE_TOKENS))
    output = data.draw(st.integers(min_value=0, max_value=limit))
    some, few = st.integers(min_value=0, max_value=count), st.integers(min_value=0, max_value=output)
    usage = TokenUsage(
        input_tokens=count,
        output_tokens=output,
        cache_read_tokens=data.draw(some),
        cache_write_tokens=data.draw(some),
        audio_input_tokens=data.draw(st.just(0) | some),
        audio_cache_read_tokens=data.draw(st.just(0) | some),
        image_output_tokens=data.draw(st.just(0) | few),
        audio_output_tokens=data.draw(st.just(0) | few),
        web_search_requests=data.draw(st.integers(min_value=0, max_value=3)),
    )
    at = MIDNIGHT + timedelta(minutes=data.draw(st.integers(min_value=0, max_value=1439)))
    charged = price(usage, prices, at=at)
    bound = upper_bound(
        request_bytes=request_bytes,
        max_output_tokens=limit,
        models=[CatalogueModel(id="x/y", canonical_slug="x/y", prices=prices)],
        web_searches=3,
        audio_input=True,
    )

    assert charged is None or bound is None or charged <= bound


def test_bound() -> None:
    """Each byte of the request counts as a token, with a margin for templates; output counts up to its limit."""
    assert TEMPLATE_TOKENS == 2048
    assert _bound(_model()) == 3000 * 1 + 100 * 10


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"input_cache_read": "0.1"}, 4000),
        ({"input_cache_read": "3"}, 10000),
        ({"input_cache_write": "2"}, 7000),
        ({"input_cache_write": "2", "input_cache_write_1h": "3"}, 10000),
        ({"input_cache_write": "0.5"}, 5500),
        ({"image_output": "30"}, 6000),
        ({"audio_output": "30"}, 6000),
        ({"internal_reasoning": "30"}, 6000),
        ({"request": "7"}, 4007),
        ({"image": "1000", "discount": "0.5"}, 4000),
        ({"overrides": [{"min_prompt_tokens": 2999, "prompt": "2"}]}, 7000),
        ({"overrides": [{"min_prompt_tokens": 3000, "prompt": "2"}]}, 4000),
        ({"overrides": [{"utc_start": 100, "utc_end": 200, "completion": "20"}]}, 5000),
        ({"overrides": [{"utc_start": 2300, "utc_end": 100, "completion": "20"}]}, 5000),
        ({"overrides": [{"utc_start": 0, "utc_end": 100, "completion": "5"}]}, 4000),
    ],
)
def test_dearest_rate_counts(listed: dict[str, Any], expected: int) -> None:
    """Any rate that can apply counts, at any time; those that cannot, do not."""
    assert _bound(_model(**listed)) == expected


def test_searches_and_audio_count_if_requested() -> None:
    """Fees of native searches and the rate of audio count if the request allows them."""
    model = _model(web_search="5", audio="4", input_audio_cache="2")

    assert _bound(model) == 4000
    assert _bound(model, web_searches=2) == 4010
    assert _bound(model, audio_input=True) == 13000
    assert _bound(_model(), web_searches=1) is None


def test_dearest_of_fallbacks_and_providers_counts() -> None:
    """The bound covers every model and provider that may serve."""
    dear = Endpoint(provider_name="Dear", tag="dear", prices=UnitPrices(prompt=Decimal(5), completion=Decimal(1)))
    listed = EndpointPrices(model_id="x/y", endpoints=(dear,))

    assert _bound(_model(), _model(prompt="3"), _model(prompt="2")) == 10000
    assert _bound(_model(), endpoint_prices=[listed]) == 15100


@pytest.mark.parametrize(
    "listed",
    [
        {"prompt": "-1"},
        {"completion": None},
        {"request": "-1"},
        {"input_cache_write": "-1"},
        {"overrides": [{"min_prompt_tokens": 10, "prompt": "-1"}]},
        {"overrides": [{"weekday": 6, "completion": "1"}]},
        {"prompt": "1e30", "completion": "1e-10"},
    ],
)
def test_unknown_price_has_no_bound(listed: dict[str, Any]) -> None:
    """One unknown price among the offers is enough, or one beyond 34 digits: there is no finite bound."""
    assert _bound(_model(), _model(**listed)) is None


def test_unlisted_model_has_no_bound() -> None:
    """A model that is not in the catalogue is not free."""
    assert _bound() is None


def test_uncounted_fees_have_no_bound() -> None:
    """Fees that no counter shows are not bounded by tokens."""
    model = _model()

    assert _bound(replace(model, prices=replace(model.prices, uncounted_fees=True))) is None


@pytest.mark.parametrize(
    ("limits", "max_output_tokens", "expected"),
    [
        ({"max_completion_tokens": 50, "context_length": 400}, None, 3500),
        ({"context_length": 400}, None, 7000),
        ({}, None, None),
        ({"max_completion_tokens": 50}, 100, 4000),
        ({"max_completion_tokens": 50, "supports_max_tokens": False}, 10, 3500),
        ({"supports_max_tokens": False}, 10, None),
        ({}, 1, 3000 + 10 * LEAST_OUTPUT_LIMIT),
        ({}, 0, 3000 + 10 * LEAST_OUTPUT_LIMIT),
    ],
)
def test_output_is_bounded_by_the_first_known_limit(
    limits: dict[str, Any], max_output_tokens: int | None, expected: int | None
) -> None:
    """The request's limit if it is honoured; else the model's; else its context; else none."""
    assert _bound(replace(_model(), **limits), max_output_tokens=max_output_tokens) == expected


@pytest.mark.parametrize("size", [{"request_bytes": -1}, {"max_output_tokens": -1}, {"web_searches": -1}])
def test_negative_sizes_are_rejected(size: dict[str, int]) -> None:
    """A negative size would lower the bound."""
    with pytest.raises(ValueError, match="negative"):
        _bound(_model(), **size)


def test_listed_models_have_bounds(listing: Catalogue) -> None:
    """Every listed model has a bound, except routers, whose price depends, and those that search unasked."""
    unbounded = {name for name in listing.models if _bound(*listing.offers(name), request_bytes=10**6) is None}

    assert unbounded == {
        "openrouter/auto",
        "openrouter/bodybuilder",
        "perplexity/sonar",
        "perplexity/sonar-deep-research",
    }
    assert _bound(*listing.offers("openrouter/free")) == 0


@pytest.mark.parametrize(
    ("context", "most", "request_bytes", "limit"),
    [
        (100_000, 4096, 1000, 4096),
        (100_000, None, 1000, 100_000 - 1000 - TEMPLATE_TOKENS),
        (100_000, 100_000, 1000, 100_000 - 1000 - TEMPLATE_TOKENS),
        (100_000, 100_000, 99_000, 25_000),
        (None, 4096, 1000, 4096),
        (None, None, 1000, None),
    ],
    ids=["own", "context", "all-of-the-context", "long-input", "no-context", "unknown"],
)
def test_output_limit_fits_the_model(
    context: int | None, most: int | None, request_bytes: int, limit: int | None
) -> None:
    """Its own limit, within the context beside the input: a provider refuses a larger one."""
    model = replace(_model(), context_length=context, max_completion_tokens=most)

    assert output_limit(request_bytes=request_bytes, models=[model]) == limit


def test_output_limit_fits_every_model() -> None:
    """The smallest of the models' limits; an unknown one bounds nothing."""
    models = [replace(_model(), max_completion_tokens=most) for most in (4096, None, 1024)]

    assert output_limit(request_bytes=1000, models=models) == 1024
