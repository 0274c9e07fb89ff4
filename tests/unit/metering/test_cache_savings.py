"""What prompt caches saved: exact where the prices of a call are known to be those of its charge, else unknown."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.ledger.cache_savings import CacheSavings, saved_by
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.session_totals import session_totals_from_document, session_totals_to_document
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import SessionTotals
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import PriceEvidence, UnitPrices, cache_savings, price
from godoty_service.rpc.metering_codec import cache_savings_message, call_message

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
PRICES = UnitPrices.from_listing(
    {
        "prompt": "0.000003",
        "completion": "0.000015",
        "audio": "0.000007",
        "input_cache_read": "0.0000003",
        "input_cache_write": "0.00000375",
        "input_audio_cache": "0.000001",
    }
)
GEMINI = replace(PRICES, input_cache_write=Decimal("0.0000005"))  # rent, beside the price of the tokens


def used(read: int | None = None, write: int | None = None, **more: Any) -> TokenUsage:
    """Return the usage of a call with a prompt of 10,000 tokens."""
    return TokenUsage(input_tokens=10_000, output_tokens=5, cache_read_tokens=read, cache_write_tokens=write, **more)


@pytest.mark.parametrize(
    ("usage", "prices", "saved"),
    [
        (used(9_000), PRICES, "0.0243"),  # 9,000 * (0.000003 - 0.0000003)
        (used(None, 9_000), PRICES, "-0.00675"),  # 9,000 * (0.000003 - 0.00000375)
        (used(4_000, 5_000), PRICES, "0.00705"),  # 0.0108 - 0.00375
        (used(0, 0), PRICES, "0"),
        (used(9_000, 9_000), GEMINI, "0.0198"),  # 0.0243 - 9,000 * 0.0000005
        (used(9_000), replace(PRICES, input_cache_read=None), "0"),  # read at the price of the prompt
        (used(1_000, audio_input_tokens=2_000, audio_cache_read_tokens=1_000), PRICES, "0.006"),
        (used(1_000, audio_input_tokens=2_000), PRICES, None),  # how much of it was audio?
        (used(9_000), replace(PRICES, prompt=None), None),
        (used(None, 9_000), replace(PRICES, input_cache_write=None), None),
        (used(11_000), PRICES, None),
        (replace(used(9_000), input_tokens=None), PRICES, None),
    ],
)
def test_savings_of_a_usage(usage: TokenUsage, prices: UnitPrices, saved: str | None) -> None:
    """The difference to the same prompt without a cache, computed by hand; unknown with a price or a counter."""
    assert cache_savings(usage, prices, at=NOON) == (None if saved is None else Decimal(saved))


def test_savings_are_by_the_prices_of_the_prompts_length() -> None:
    """A long prompt has prices of its own."""
    prices = UnitPrices.from_listing(
        {"prompt": "1", "overrides": [{"min_prompt_tokens": 5_000, "prompt": "2"}], "input_cache_read": "0.5"}
    )

    assert cache_savings(used(10), prices, at=NOON) == Decimal(15)


@given(st.integers(0, 5_000), st.integers(0, 5_000), st.sampled_from([PRICES, GEMINI]))
def test_cost_and_savings_are_the_cost_without_a_cache(read: int, write: int, prices: UnitPrices) -> None:
    """To the last digit."""
    usage = used(read, write)
    cost, saved = price(usage, prices, at=NOON), cache_savings(usage, prices, at=NOON)

    assert cost is not None
    assert saved is not None
    assert cost + saved == price(used(0, 0), prices, at=NOON)


def call(number: int = 1, usage: TokenUsage | None = None, **changes: Any) -> ModelCall:
    """Return a call that was charged by its prices."""
    usage = usage or used(9_000)
    cost = price(usage, PRICES, at=NOON)
    made = ModelCall(
        call_id=f"call{number}",
        tenant_id="tenant",
        session_uid="ses",
        session_id="talk",
        turn_id=f"turn{number}",
        number=number,
        state=CallState.SETTLED,
        requested_model="a/b",
        usage=usage,
        cost=cost,
        cost_source=CostSource.BILLED,
        catalogue_cost=cost,
        evidence=PriceEvidence(prices=PRICES, catalogue_hash="c0ffee", catalogue_time=NOON),
        provider_key_id="key",
        start_time=NOON,
        agent="assistant",
        owner="server",
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"cost": Decimal("0.01")},  # of a provider with prices of its own
        {"catalogue_cost": None},
        {"evidence": None},
        {"is_byok": True},
        {"state": CallState.UNRESOLVED, "cost": None, "cost_source": None},
        {"state": CallState.PENDING, "cost": None, "cost_source": None},
    ],
)
def test_savings_of_a_call_are_unknown(changes: dict[str, Any]) -> None:
    """Where its prices are not known to be those of its charge: unset, never zero."""
    made = call(**changes)

    assert saved_by(made) is None
    assert not call_message(made).HasField("cache_savings_usd")
    assert CacheSavings().plus(made) == CacheSavings(unknown_calls=1)


def test_savings_of_a_call_are_shown() -> None:
    """Unset if it used no cache, as far as is known."""
    assert call_message(call()).cache_savings_usd == "0.0243"
    assert call_message(call(usage=used(None, 9_000))).cache_savings_usd == "-0.00675"
    for usage in (used(), used(0, 0)):
        made = call(usage=usage)
        assert not call_message(made).HasField("cache_savings_usd")
        assert CacheSavings().plus(made) == CacheSavings()


def test_savings_of_a_session_are_summed() -> None:
    """Call by call as they close, through documents in between; unknown ones are counted."""
    made = [call(1), call(2, usage=used(None, 9_000)), call(3, cost=Decimal(1)), call(4, usage=used())]
    pending = replace(made[1], state=CallState.PENDING, cost=None, cost_source=None, usage=None)
    totals = SessionTotals().apply([made[0], pending, made[2]])
    totals = session_totals_from_document(session_totals_to_document(totals)).apply([made[1], made[3]])

    savings = CacheSavings(saved=Decimal("0.01755"), calls=2, unknown_calls=1)
    assert totals.cache_savings == savings == SessionTotals().apply([*made]).cache_savings
    message = cache_savings_message(savings)
    assert (message.saved_usd, message.model_calls, message.unknown_model_calls) == ("0.01755", 2, 1)


def test_sum_is_unset_if_no_saving_is_known() -> None:
    """Zero is what is saved without a cache."""
    assert not cache_savings_message(CacheSavings(unknown_calls=2)).HasField("saved_usd")
    assert cache_savings_message(CacheSavings()).saved_usd == "0"


def test_totals_of_an_earlier_build_have_no_savings() -> None:
    """It adds calls without them, so that the sum would lack some."""
    document = session_totals_to_document(SessionTotals().apply([call(1)]))
    del document["cache_savings"]
    totals = session_totals_from_document(document).apply([call(2)])

    assert totals.cache_savings is None
    assert session_totals_from_document(session_totals_to_document(totals)) == totals
    assert session_totals_from_document(None).cache_savings == CacheSavings()
