from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.pricing import money
from godoty_service.pricing.catalogue import Catalogue, CatalogueModel, Endpoint, EndpointPrices
from godoty_service.pricing.token_usage import ProviderCharge, TokenUsage, from_openrouter
from godoty_service.pricing.unit_prices import UnitPrices, price
from godoty_service.pricing.upper_bound import upper_bound

Row = Mapping[str, Any]

VERDICTS = {
    "exact:prompt+completion": 796,
    "exact:cache_formula": 16,
    "exact:gemini_cache_write_surcharge": 1,
    "provider_price_differs": 10,
    "byok_cost0": 6,
    "image_output_tokens": 6,
    "server_tool_nested_model": 4,
    "native_web_search_fee": 3,
    "exa_search_fee": 2,
    "exa_search_fee+provider_price": 1,
    "pdf_ocr_fee": 1,
    "provider_reported_cost": 1,
    "audio_input_tokens": 1,
}

# What the serving provider asks, as the parts of its upstream cost divided by the tokens show: prompt,
# completion, cache read.
PROVIDER_PRICES: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("google/gemma-4-26b-a4b-it-20260403", "Cloudflare"): ("0.0000001", "0.0000003"),
    ("openai/gpt-oss-20b", None): ("0.00000005", "0.0000002"),
    ("moonshotai/kimi-k2.5", "Moonshot AI"): ("0.0000006", "0.000003"),
    ("openai/gpt-oss-120b", "OpenInference"): ("0.00000003", "0.00000015"),
    ("deepseek/deepseek-v3.2-20251201", "DeepInfra"): ("0.00000026", "0.00000038", "0.00000013"),
    ("deepseek/deepseek-v3.2-20251201", "Novita"): ("0.000000269", "0.0000004"),
    ("deepseek/deepseek-v3.2-20251201", "Friendli"): ("0.0000005", "0.0000015"),
    ("deepseek/deepseek-v3.2-20251201", "AtlasCloud"): ("0.00000026", "0.00000038"),
    ("deepseek/deepseek-chat", "Novita"): ("0.0000004", "0.0000013"),
}


def _with(completions: list[Row], verdict: str) -> Iterator[tuple[Row, ProviderCharge]]:
    rows = [row for row in completions if row["verdict"].startswith(verdict)]
    assert rows
    return ((row, from_openrouter(row["usage"])) for row in rows)


def _oracle(row: Row, usage: TokenUsage, **extra: str) -> Decimal | None:
    prices = UnitPrices.from_listing({**row["list_pricing"], **extra})
    return price(usage, prices, at=datetime.fromisoformat(row["recorded_utc"]))


def _provider_prices(row: Row) -> UnitPrices:
    keys = ("prompt", "completion", "input_cache_read")
    listed = dict(zip(keys, PROVIDER_PRICES[row["served_model"], row["provider"]], strict=False))
    body = {
        "data": {"id": row["served_model"], "endpoints": [{"provider_name": str(row["provider"]), "pricing": listed}]}
    }
    prices = EndpointPrices.parse(body).for_provider(str(row["provider"]))
    assert prices is not None
    return prices


def test_every_completion_has_a_verdict(completions: list[Row]) -> None:
    """All recordings are present, and each is explained."""
    assert Counter(row["verdict"] for row in completions) == VERDICTS
    assert sum(VERDICTS.values()) == 848


def test_charge_equals_the_bill(completions: list[Row]) -> None:
    """The charge that is parsed from the usage is the billed one, in all 848, digit for digit."""
    for row in completions:
        assert Decimal(row["cost"]) == from_openrouter(row["usage"]).cost
    assert sum("input_tokens" in row["usage"] for row in completions) == 8


def test_every_usage_is_counted(completions: list[Row]) -> None:
    """Input, output and total are reported in each recording, under either API's names, and agree."""
    for row in completions:
        usage = from_openrouter(row["usage"]).usage
        assert usage.input_tokens is not None
        assert usage.output_tokens is not None
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_oracle_is_exact(completions: list[Row]) -> None:
    """List prices give the charge, digit for digit; one charge needs more digits than JSON's number had."""
    rounded = 0
    for row, billing in _with(completions, "exact"):
        priced = _oracle(row, billing.usage)
        assert priced is not None
        rounded += priced != billing.cost
        assert float(row["cost"]) == float(priced)

    assert rounded == 1


def test_gemini_surcharge_is_the_rounded_one(completions: list[Row]) -> None:
    """The charge that JSON rounded: reads and writes overlap, priced with 23 decimals."""
    ((row, billing),) = _with(completions, "exact:gemini")

    assert _oracle(row, billing.usage) == Decimal("0.00049701333333333334774")
    assert billing.cost == Decimal("0.0004970133333333333")


@pytest.mark.parametrize("verdict", ["audio_input_tokens", "native_web_search_fee"])
def test_audio_and_native_search_are_priced(completions: list[Row], verdict: str) -> None:
    """Audio at its own rate and native searches at their fee give the charge."""
    for row, billing in _with(completions, verdict):
        assert _oracle(row, billing.usage) == billing.cost


def test_byok_costs_the_list_price_upstream(completions: list[Row]) -> None:
    """Under BYOK the charge is 0, and the tenant's own account pays the list price."""
    for row, billing in _with(completions, "byok_cost0"):
        assert billing.is_byok is True
        assert billing.cost == Decimal(0)
        assert _oracle(row, billing.usage) == billing.upstream_cost


def test_image_tokens_need_their_rate(completions: list[Row], listing: Catalogue) -> None:
    """Without the rate of image tokens there is no price; with the one listed later the price is the charge."""
    model = listing.find("google/gemini-2.5-flash-image")
    assert model is not None
    rate = money.format_usd(model.prices.image_output)
    assert rate is not None
    for row, billing in _with(completions, "image_output_tokens"):
        assert _oracle(row, billing.usage) is None
        assert _oracle(row, billing.usage, image_output=rate) == billing.cost


def test_provider_price_replaces_the_list_price(completions: list[Row]) -> None:
    """The prices of the provider that served give the charge; the list price does not."""
    for row, billing in _with(completions, "provider_price_differs"):
        at = datetime.fromisoformat(row["recorded_utc"])
        assert price(billing.usage, _provider_prices(row), at=at) == billing.cost
        assert _oracle(row, billing.usage) != billing.cost


@pytest.mark.parametrize("verdict", ["exa_search_fee", "server_tool_nested_model"])
def test_tools_that_openrouter_ran_have_no_price(completions: list[Row], verdict: str) -> None:
    """The fee of a tool that OpenRouter ran is in no list: the price is unknown instead of too low."""
    counted = [(row, billing) for row, billing in _with(completions, verdict) if billing.usage.server_tool_calls]

    assert len(counted) == VERDICTS[verdict]
    assert [_oracle(row, billing.usage) for row, billing in counted] == [None] * len(counted)


def test_exa_charges_7_dollars_for_1000_searches(completions: list[Row]) -> None:
    """The tokens at list price plus 0.007 are the charge, to the precision of binary sums."""
    for row, billing in _with(completions, "exa_search_fee"):
        usage = replace(billing.usage, server_tool_calls=None, web_search_requests=None)
        at = datetime.fromisoformat(row["recorded_utc"])
        prices = UnitPrices.from_listing(row["list_pricing"])
        tokens = price(usage, _provider_prices(row) if "provider_price" in row["verdict"] else prices, at=at)
        assert tokens is not None
        assert float(row["cost"]) == pytest.approx(float(tokens) + 0.007, rel=1e-15)


def test_plugin_fee_without_a_counter_is_not_priced(completions: list[Row]) -> None:
    """OCR of a PDF cost 0.002 that no counter shows: the price is lower by that."""
    ((row, billing),) = _with(completions, "pdf_ocr_fee")

    assert billing.cost == Decimal("0.00216775")
    assert _oracle(row, billing.usage) == Decimal("0.00016775")


def test_model_that_searches_by_itself_has_no_price(completions: list[Row], listing: Catalogue) -> None:
    """Sonar's own charge is rounded and includes a search; it has neither price nor bound."""
    ((row, billing),) = _with(completions, "provider_reported_cost")
    model = listing.find(row["served_model"])

    assert model is not None
    assert price(billing.usage, model.prices, at=datetime.fromisoformat(row["recorded_utc"])) is None
    assert upper_bound(request_bytes=100, max_output_tokens=236, models=[model]) is None


def test_bounds_hold_for_every_priced_completion(completions: list[Row]) -> None:
    """A bound from the list, or from a dearer provider, is above each charge without plugin fees."""
    checked = 0
    for row in completions:
        billing = from_openrouter(row["usage"])
        differs = "provider_price" in row["verdict"]
        prices = UnitPrices.from_listing(row["list_pricing"])
        model = CatalogueModel(id=row["served_model"], canonical_slug="", prices=prices)
        offers = [Endpoint(provider_name="", tag="", prices=_provider_prices(row))] if differs else []
        bound = upper_bound(
            request_bytes=billing.usage.input_tokens or 0,
            max_output_tokens=billing.usage.output_tokens,
            models=[model],
            endpoint_prices=[EndpointPrices(model_id=model.id, endpoints=tuple(offers))],
            web_searches=(billing.usage.web_search_requests or 0) if row["verdict"] == "native_web_search_fee" else 0,
            audio_input=bool(billing.usage.audio_input_tokens),
        )
        if row["verdict"].startswith(("exact", "byok", "audio", "native", "provider_price")):
            assert bound is not None
            assert billing.cost is not None
            assert billing.cost <= bound
            checked += 1

    assert checked == 833


def test_fees_that_a_recording_does_not_state_are_unknown(completions: list[Row]) -> None:
    """No recording until August 2026 states them, not even those that have a fee: unknown is not 0."""
    assert {from_openrouter(row["usage"]).tool_fees for row in completions} == {None}


@pytest.mark.parametrize(
    ("usage", "fees"),
    [
        ({"cost": Decimal("0.02"), "cost_details": {"server_tool_cost": Decimal("0.007")}}, "0.007"),
        ({"cost": Decimal("0.02"), "cost_details": {"server_tool_cost": 0}}, "0"),
        ({"cost": Decimal("0.02"), "pipeline_cost": Decimal("0.002")}, "0.002"),
        (
            {
                "cost": Decimal("0.02"),
                "cost_details": {"server_tool_cost": Decimal("0.007")},
                "pipeline_cost": Decimal("0.002"),
            },
            "0.009",
        ),
        ({"cost_details": {"server_tool_cost": Decimal("0.007")}}, "0.007"),
        ({"cost": Decimal("0.02"), "cost_details": {"server_tool_cost": None}}, None),
        ({"cost": Decimal("0.02"), "cost_details": {"server_tool_cost": -1}}, None),
        ({"cost": Decimal("0.02"), "cost_details": {"server_tool_cost": "much"}}, None),
        ({"cost": Decimal("0.02"), "cost_details": {"server_tool_cost": Decimal("0.03")}}, None),
        ({"cost": Decimal("0.02"), "cost_details": {"server_tool_cost": 10**7}}, None),
        ({"cost": Decimal("0.02")}, None),
    ],
)
def test_fees_are_read_where_the_provider_reports_them(usage: dict[str, Any], fees: str | None) -> None:
    """Those of server tools and of plugins together; more than the charge is a contradiction, and unknown."""
    assert from_openrouter(usage).tool_fees == (None if fees is None else Decimal(fees))
