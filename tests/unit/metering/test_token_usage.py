from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.pricing import money
from godoty_service.pricing.token_usage import ProviderCharge, TokenUsage, from_generation, from_openrouter

counts = st.none() | st.integers(min_value=0, max_value=10**9)
usages = st.builds(TokenUsage, **{field.name: counts for field in fields(TokenUsage)})


def test_chat_usage() -> None:
    """Every counter of a chat completion is parsed by its name."""
    usage = money.loads("""{
        "prompt_tokens": 2000, "completion_tokens": 100, "total_tokens": 2100, "cost": 0.0133176, "is_byok": false,
        "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 40, "audio_tokens": 50,
                                  "video_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 70, "image_tokens": 8, "audio_tokens": 9},
        "cost_details": {"upstream_inference_cost": 0.5, "input_audio_cache_read_tokens": 11},
        "server_tool_use_details": {"web_search_requests": 2, "tool_calls_requested": 4, "tool_calls_executed": 3}}""")

    expected = ProviderCharge(
        usage=TokenUsage(
            input_tokens=2000,
            output_tokens=100,
            total_tokens=2100,
            cache_read_tokens=300,
            cache_write_tokens=40,
            reasoning_tokens=70,
            audio_input_tokens=50,
            audio_cache_read_tokens=11,
            audio_output_tokens=9,
            image_output_tokens=8,
            video_input_tokens=6,
            web_search_requests=2,
            server_tool_calls=3,
        ),
        cost=Decimal("0.0133176"),
        upstream_cost=Decimal("0.5"),
        is_byok=False,
    )
    assert expected == from_openrouter(usage)


def test_responses_usage() -> None:
    """The Responses API has other names for the same counters."""
    usage = money.loads("""{
        "input_tokens": 78, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 6}, "output_tokens": 37,
        "output_tokens_details": {"reasoning_tokens": 22}, "total_tokens": 115, "cost": 0.0000113, "is_byok": true,
        "cost_details": {"upstream_inference_cost": null, "upstream_inference_input_cost": 0.0000039,
                         "upstream_inference_output_cost": 0.0000074},
        "server_tool_use": {"web_search_requests": 0}}""")

    expected = ProviderCharge(
        usage=TokenUsage(
            input_tokens=78,
            output_tokens=37,
            total_tokens=115,
            cache_read_tokens=5,
            cache_write_tokens=6,
            reasoning_tokens=22,
            web_search_requests=0,
        ),
        cost=Decimal("0.0000113"),
        upstream_cost=Decimal("0.0000113"),
        is_byok=True,
    )
    assert expected == from_openrouter(usage)


@pytest.mark.parametrize("usage", [{}, dict.fromkeys(["prompt_tokens", "cost", "is_byok", "cost_details"])])
def test_unreported_usage_is_unknown(usage: dict[str, Any]) -> None:
    """Missing and null are the same: unknown, not zero."""
    assert ProviderCharge(usage=TokenUsage()) == from_openrouter(usage)


@pytest.mark.parametrize(
    "count", [-1, True, "12", Decimal("1.5"), Decimal("NaN"), [1], 10**12 + 1, 10**20, Decimal("1E+999999999")]
)
def test_malformed_counter_is_unknown(count: Any) -> None:
    """A value that cannot be a number of tokens is ignored; the others are not."""
    billing = from_openrouter({"prompt_tokens": count, "completion_tokens": 3, "cost": Decimal("0.01")})

    assert ProviderCharge(usage=TokenUsage(output_tokens=3), cost=Decimal("0.01")) == billing


def test_whole_decimals_are_counts() -> None:
    """Some providers write counts as 12.0."""
    assert from_openrouter(money.loads('{"prompt_tokens": 12.0}')).usage.input_tokens == 12


@pytest.mark.parametrize(
    ("cost", "expected"), [(0, 0), (2, 2), ("0.5", Decimal("0.5")), (Decimal("1E-7"), Decimal("1E-7"))]
)
def test_cost(cost: Any, expected: Any) -> None:
    """A charge of zero is known; any exact number is accepted."""
    assert expected == from_openrouter({"cost": cost}).cost


@pytest.mark.parametrize(
    "cost", [-1, Decimal("-0.5"), "NaN", Decimal("NaN"), None, "much", "1000000.1", "1e30", "1e-26"]
)
def test_malformed_cost_is_unknown(cost: Any) -> None:
    """A negative cost or NaN is not zero but unknown; so is one that would not fit into a sum."""
    assert from_openrouter({"cost": cost, "prompt_tokens": 7}) == ProviderCharge(usage=TokenUsage(input_tokens=7))
    assert from_generation({"total_cost": cost, "upstream_inference_cost": cost}) == ProviderCharge(usage=TokenUsage())


@given(st.lists(st.integers(min_value=0, max_value=10**31).map(lambda digits: Decimal(f"{digits}E-25")), max_size=20))
def test_accepted_charges_can_be_summed(costs: list[Decimal]) -> None:
    """The sum of any accepted amounts is exact: no provider's number can spoil a session's totals."""
    believed = [cost for each in costs if (cost := from_openrouter({"cost": each}).cost) is not None]

    assert len(believed) == len(costs)
    assert money.total(believed) == sum(map(Fraction, costs))


@pytest.mark.parametrize(
    "usage", [{"cost": 0.1}, {"cost_details": {"upstream_inference_cost": 0.1}}, {"cost": float("nan")}]
)
def test_float_is_rejected(usage: dict[str, Any]) -> None:
    """Money never passes through a float, not even through a harmless one."""
    with pytest.raises(TypeError, match="float"):
        from_openrouter(usage)
    with pytest.raises(TypeError, match="float"):
        from_generation({"total_cost": 0.1})


def test_more_reasoning_than_output_is_stored_as_reported() -> None:
    """11 reasoning tokens of 10 were recorded; the counters stay as reported."""
    usage = {"completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 11}}

    assert TokenUsage(output_tokens=10, reasoning_tokens=11) == from_openrouter(usage).usage


@pytest.mark.parametrize("tools", [{"web_search_requests": 1}, {"tool_calls_executed": 1}])
def test_upstream_cost_with_tool_fees_is_not_the_sum_of_its_parts(tools: dict[str, int]) -> None:
    """The two parts are added up only if no other fee can apply."""
    details = {"upstream_inference_prompt_cost": Decimal(1), "upstream_inference_completions_cost": Decimal(2)}

    assert from_openrouter({"cost_details": details}).upstream_cost == 3
    assert from_openrouter({"cost_details": details, "server_tool_use_details": tools}).upstream_cost is None
    assert from_openrouter({"cost_details": {"upstream_inference_prompt_cost": 1}}).upstream_cost is None


def test_generation_record() -> None:
    """A generation record reports native counts and the same charge."""
    record = money.loads("""{
        "total_cost": 0.0015, "usage": 0.0016, "upstream_inference_cost": 0.0012, "is_byok": true, "tokens_prompt": 99,
        "native_tokens_prompt": 10, "native_tokens_completion": 25, "native_tokens_reasoning": 5,
        "native_tokens_cached": 3, "native_tokens_completion_images": 0, "num_search_results": 5}""")

    expected = ProviderCharge(
        usage=TokenUsage(
            input_tokens=10,
            output_tokens=25,
            total_tokens=35,
            cache_read_tokens=3,
            reasoning_tokens=5,
            image_output_tokens=0,
        ),
        cost=Decimal("0.0015"),
        upstream_cost=Decimal("0.0012"),
        is_byok=True,
    )
    assert expected == from_generation(record)
    assert from_generation({"usage": 0}).cost == 0
    assert ProviderCharge(usage=TokenUsage()) == from_generation({})


@given(usages, usages, usages)
def test_sum_is_independent_of_order(first: TokenUsage, second: TokenUsage, third: TokenUsage) -> None:
    """Sums are the same in any order of the calls; unreported usage adds nothing."""
    assert (first + second) + third == third + (second + first)
    assert first == first + TokenUsage()


def test_unknown_plus_unknown_is_unknown() -> None:
    """Only reported counters are added."""
    total = TokenUsage(input_tokens=1) + TokenUsage(input_tokens=2, output_tokens=3)

    assert TokenUsage(input_tokens=3, output_tokens=3) == total
    assert replace(total, output_tokens=None) + TokenUsage() == TokenUsage(input_tokens=3)
