"""What the ledger keeps of a call is what its message says: every counter, and the prices that it was priced with."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import admin_service_pb2, agent_service_pb2, billing_service_pb2, metering_pb2

from godoty_service.metering.call import CallState, ModelCall, PriceEvidence
from godoty_service.metering.prices import UnitPrices, price
from godoty_service.metering.usage import TokenUsage
from godoty_service.rpc.metering_messages import call_message, timestamp, usage_message

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
SEEN = datetime(2026, 8, 22, 11, 55, tzinfo=UTC)
LISTED = {
    "prompt": "0.000003",
    "completion": "0.000015",
    "request": "0.001",
    "audio": "0.000007",
    "input_audio_cache": "0.0000011",
    "audio_output": "0.000017",
    "image_output": "0.00003",
    "web_search": "0.01",
    "input_cache_read": "0.0000003",
    "input_cache_write": "0.00000375",
}


def make(listed: dict[str, Any], usage: TokenUsage | None = None, **changes: Any) -> ModelCall:
    """Make a call that was priced with these prices."""
    prices = UnitPrices.from_listing(listed)
    call = ModelCall(
        call_id="call",
        tenant_id="tenant",
        session_uid="ses",
        session_id="talk",
        turn_id="turn",
        number=1,
        state=CallState.PENDING,
        requested_model="a/b",
        usage=usage,
        evidence=PriceEvidence(prices=prices, catalogue_hash="c0ffee", catalogue_time=SEEN),
        provider_key_id="key",
        start_time=NOON,
        agent="assistant",
        owner="server",
    )
    return replace(call, **changes)


def test_every_counter_is_told() -> None:
    """Each kind of token that the ledger counts has a field of its name; those that nobody told are unset."""
    counters = {field.name: number for number, field in enumerate(fields(TokenUsage), 1)}

    message = usage_message(TokenUsage(**counters))

    assert counters == {field.name: value for field, value in message.ListFields()}
    assert usage_message(TokenUsage(output_tokens=0)).ListFields() == [
        (metering_pb2.TokenUsage.DESCRIPTOR.fields_by_name["output_tokens"], 0)
    ]


def test_the_prices_of_a_call_explain_its_cost() -> None:
    """Whoever multiplies what is told gets the catalogue's cost: no price that was used is missing."""
    usage = TokenUsage(
        input_tokens=1000,
        output_tokens=500,
        cache_read_tokens=300,
        cache_write_tokens=100,
        audio_input_tokens=80,
        audio_cache_read_tokens=30,
        audio_output_tokens=40,
        image_output_tokens=60,
        web_search_requests=2,
    )
    call = make(LISTED, usage)

    told = {field.name: value for field, value in call_message(call).unit_prices.ListFields()}

    lines = {
        "input_usd": 1000 - 300 - 100 - 50,
        "cache_read_usd": 300 - 30,
        "cache_write_usd": 100,
        "audio_input_usd": 50,
        "audio_cache_read_usd": 30,
        "output_usd": 500 - 40 - 60,
        "audio_output_usd": 40,
        "image_output_usd": 60,
        "web_search_usd": 2,
        "request_usd": 1,
    }
    assert {name for name in told if name.endswith("_usd")} == set(lines)
    amount = sum((Decimal(told[name]) * quantity for name, quantity in lines.items()), Decimal(0))
    assert amount == price(usage, UnitPrices.from_listing(LISTED), at=NOON)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, ("0.000003", "0.000015")),
        (TokenUsage(output_tokens=5), ("0.000003", "0.000015")),
        (TokenUsage(input_tokens=200_000, output_tokens=5), ("0.000003", "0.000015")),
        (TokenUsage(input_tokens=200_001, output_tokens=5), ("0.000006", "0.000015")),
    ],
)
def test_the_price_of_a_long_prompt_is_told_where_it_was_used(
    usage: TokenUsage | None, expected: tuple[str, str]
) -> None:
    """Above the threshold the override's, key by key; until the prompt is counted, those of a short one."""
    listed = {**LISTED, "overrides": [{"min_prompt_tokens": 200_000, "prompt": "0.000006"}]}

    prices = call_message(make(listed, usage)).unit_prices

    assert (prices.input_usd, prices.output_usd) == expected


@pytest.mark.parametrize(("hour", "expected"), [(12, "0.000001"), (18, "0.000003")])
def test_the_price_of_an_hour_is_told_where_it_was_used(hour: int, expected: str) -> None:
    """It is the hour at which the call started that counts."""
    listed = {**LISTED, "overrides": [{"utc_start": 1130, "utc_end": 1800, "prompt": "0.000001"}]}

    assert call_message(make(listed, start_time=NOON.replace(hour=hour))).unit_prices.input_usd == expected


def test_a_price_that_is_not_known_is_unset() -> None:
    """A missing price is not "0"; what is read from a cache without a price of its own costs what the prompt does."""
    prices = call_message(make({"prompt": "0.000003", "completion": "-1", "input_cache_write": "0"})).unit_prices

    told = {field.name: value for field, value in prices.ListFields() if field.name.endswith("_usd")}
    assert told == {"input_usd": "0.000003", "cache_read_usd": "0.000003", "cache_write_usd": "0"}


def test_the_evidence_is_told() -> None:
    """The catalogue, and where a provider's own list held the prices, that list."""
    evidence = PriceEvidence(
        prices=UnitPrices.from_listing(LISTED),
        catalogue_hash="c0ffee",
        catalogue_time=SEEN,
        provider_prices_hash="facade",
        provider_prices_time=NOON,
    )

    listed, own = call_message(make(LISTED)).unit_prices, call_message(make(LISTED, evidence=evidence)).unit_prices

    assert (listed.catalogue_hash, listed.catalogue_time, listed.provider_prices_hash) == (
        "c0ffee",
        timestamp(SEEN),
        "",
    )
    assert not listed.HasField("provider_prices_time")
    assert (own.catalogue_hash, own.catalogue_time) == ("c0ffee", timestamp(SEEN))
    assert (own.provider_prices_hash, own.provider_prices_time) == ("facade", timestamp(NOON))


@pytest.mark.parametrize(
    "file", [metering_pb2, agent_service_pb2, billing_service_pb2, admin_service_pb2], ids=lambda file: file.__name__
)
def test_an_amount_can_be_unknown(file: Any) -> None:
    """Each field that ends in `_usd`, and no other money, is an optional string: unset is not "0"."""
    found = [
        field
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.name.endswith("_usd")
    ]

    assert found
    for field in found:
        assert field.type == field.TYPE_STRING, field.full_name
        assert field.has_presence, field.full_name
