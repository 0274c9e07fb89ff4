"""A call's message has all that the ledger stores: every counter and the unit prices."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import (
    admin_service_pb2,
    billing_service_pb2,
    budget_pb2,
    ledger_pb2,
    metering_pb2,
    model_pb2,
    session_pb2,
    turn_pb2,
)

from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import PriceEvidence, UnitPrices, price
from godoty_service.rpc.metering_codec import STATES, call_message, timestamp, usage_message

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
    """Return a call that was priced with these prices."""
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


def test_every_counter_has_a_field() -> None:
    """Each kind of token that the ledger counts has a field of its name; unknown counters are unset."""
    counters = {field.name: number for number, field in enumerate(fields(TokenUsage), 1)}

    message = usage_message(TokenUsage(**counters))

    assert counters == {field.name: value for field, value in message.ListFields()}
    assert usage_message(TokenUsage(output_tokens=0)).ListFields() == [
        (metering_pb2.TokenUsage.DESCRIPTOR.fields_by_name["output_tokens"], 0)
    ]


def test_states_and_their_numbers_in_the_contract_are_one_to_one() -> None:
    """Each state has a number, and each number but the unspecified one is a state."""
    numbers = {number for _, number in metering_pb2.CallState.items() if number}

    assert set(STATES) == numbers
    assert set(STATES.values()) == set(CallState)
    assert {call_message(make(LISTED, state=state)).state: state for state in CallState} == STATES


def test_unit_prices_of_a_call_explain_its_cost() -> None:
    """The counters times the unit prices give the catalogue's cost: no price is missing."""
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

    unit_prices = {field.name: value for field, value in call_message(call).unit_prices.ListFields()}

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
    assert {name for name in unit_prices if name.endswith("_usd")} == set(lines)
    amount = sum((Decimal(unit_prices[name]) * quantity for name, quantity in lines.items()), Decimal(0))
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
def test_call_with_long_prompt_has_the_override_prices(usage: TokenUsage | None, expected: tuple[str, str]) -> None:
    """Above the threshold the override's prices, key by key; until the prompt is counted, those of a short one."""
    listed = {**LISTED, "overrides": [{"min_prompt_tokens": 200_000, "prompt": "0.000006"}]}

    prices = call_message(make(listed, usage)).unit_prices

    assert (prices.input_usd, prices.output_usd) == expected


@pytest.mark.parametrize(("hour", "expected"), [(12, "0.000001"), (18, "0.000003")])
def test_call_has_the_prices_of_its_start_hour(hour: int, expected: str) -> None:
    """The hour at which the call started decides."""
    listed = {**LISTED, "overrides": [{"utc_start": 1130, "utc_end": 1800, "prompt": "0.000001"}]}

    assert call_message(make(listed, start_time=NOON.replace(hour=hour))).unit_prices.input_usd == expected


def test_unknown_price_is_unset() -> None:
    """A missing price is not "0"; a cache read without a price of its own costs as much as the prompt."""
    prices = call_message(make({"prompt": "0.000003", "completion": "-1", "input_cache_write": "0"})).unit_prices

    amounts = {field.name: value for field, value in prices.ListFields() if field.name.endswith("_usd")}
    assert amounts == {"input_usd": "0.000003", "cache_read_usd": "0.000003", "cache_write_usd": "0"}


def test_message_has_the_price_evidence() -> None:
    """The catalogue, and the provider's price list if the prices came from it."""
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
    "file",
    [
        *(metering_pb2, ledger_pb2, budget_pb2, model_pb2, session_pb2, turn_pb2),
        *(billing_service_pb2, admin_service_pb2),
    ],
    ids=lambda file: file.__name__,
)
def test_every_amount_is_optional(file: Any) -> None:
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
