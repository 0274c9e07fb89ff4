"""Usage beyond plain tokens is in a call's counters and in its cost."""

from decimal import Decimal

import pytest
from godoty.v1 import metering_pb2

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from tests.support.caller import Caller
from tests.support.service import format_amount
from tests.support.waiting import settled


async def test_byok_call_has_the_upstream_cost_beside_the_charge(caller: Caller) -> None:
    """With BYOK, OpenRouter charges nothing, and the provider's charge is separate."""
    turn = await caller.converse("@sandbox byok")

    (call,), (line,) = turn.calls, caller.service.invoice("talk")
    assert call.byok
    assert line.upstream_cost is not None
    assert call.upstream_cost_usd == format_amount(line.upstream_cost) != "0"
    assert call.cost_usd == format_amount(line.cost)
    assert turn.finished.session_totals.cost_usd == format_amount(line.cost)
    assert call.cost_source == metering_pb2.COST_SOURCE_BILLED


@pytest.mark.parametrize("directive", ["cached", "plain cached_tokens=40 write_tokens=16"])
async def test_cached_tokens_are_counted_and_priced(caller: Caller, directive: str) -> None:
    """Tokens read from and written to the cache are in the usage, and the catalogue prices them as billed."""
    turn = await caller.converse(f"@sandbox {directive}", model="anthropic/claude-haiku-4.5")

    (call,), (line,) = turn.calls, caller.service.invoice("talk")
    details = line.usage["prompt_tokens_details"]
    assert call.usage.cache_read_tokens == details["cached_tokens"] > 0
    assert call.usage.cache_write_tokens == details.get("cache_write_tokens", 0)
    assert call.usage.input_tokens == line.usage["prompt_tokens"] > call.usage.cache_read_tokens
    assert call.cost_usd == call.catalogue_cost_usd == format_amount(line.cost)
    assert turn.finished.session_totals.usage.cache_read_tokens == call.usage.cache_read_tokens


async def test_savings_of_prompt_caches_are_in_the_metrics(caller: Caller) -> None:
    """By call, and summed for the session; a call whose charge is not its list's is counted apart from the sum."""
    model = "anthropic/claude-haiku-4.5"
    plain = await caller.converse("hello", model=model)
    none = (await caller.metrics()).cache_savings
    turn = await caller.converse("@sandbox plain cached_tokens=40 write_tokens=16", model=model)
    odd = await caller.converse("@sandbox cached fee=0.001", model=model)
    savings = (await caller.metrics()).cache_savings

    (call,), prices = turn.calls, turn.calls[0].unit_prices
    saved = 40 * (Decimal(prices.input_usd) - Decimal(prices.cache_read_usd))
    surcharge = 16 * (Decimal(prices.cache_write_usd) - Decimal(prices.input_usd))
    assert Decimal(call.cache_savings_usd) == saved - surcharge > 0
    assert not any(each.HasField("cache_savings_usd") for each in (*plain.calls, *odd.calls))
    assert (none.saved_usd, none.model_calls, none.unknown_model_calls) == ("0", 0, 0)
    assert (savings.saved_usd, savings.model_calls, savings.unknown_model_calls) == (call.cache_savings_usd, 1, 1)


async def test_savings_are_unset_after_an_earlier_build_has_counted_calls(caller: Caller) -> None:
    """It writes totals without them: the sum would lack the savings of its calls."""
    await caller.converse("@sandbox cached", model="anthropic/claude-haiku-4.5")
    own = {"tenant_id": caller.service.tenant_id, "session_id": "talk"}
    caller.service.database["sessions"].update_one(
        own, {"$unset": {"totals.cache_savings": ""}, "$inc": {"totals_revision": 1}}
    )
    await caller.converse("@sandbox cached", model="anthropic/claude-haiku-4.5")

    assert not (await caller.metrics()).HasField("cache_savings")


@pytest.mark.parametrize(("tokens", "price"), [(32_000, "0.00000003"), (32_001, "0.0000001")])
async def test_long_prompt_has_the_price_above_the_threshold(caller: Caller, tokens: int, price: str) -> None:
    """Above the model's threshold all its tokens cost more: charge, catalogue and unit prices agree."""
    turn = await caller.converse(f"@sandbox plain prompt_tokens={tokens}", model="qwen/qwen3.7-flash")

    (call,), (line,) = turn.calls, caller.service.invoice("talk")
    assert call.cost_usd == call.catalogue_cost_usd == format_amount(line.cost)
    assert (call.usage.input_tokens, call.unit_prices.input_usd) == (tokens, price)
    output = call.usage.output_tokens * Decimal(call.unit_prices.output_usd)
    assert Decimal(call.cost_usd) == tokens * Decimal(price) + output


async def test_web_search_is_counted_and_its_fee_is_in_the_cost(caller: Caller) -> None:
    """Searches that the provider ran are counted, and their fee is in the charge and below the bound."""
    turn = await caller.converse("@sandbox websearch n=2")

    (call,), (line,) = turn.calls, caller.service.invoice("talk")
    assert call.usage.web_search_requests == 2
    assert call.cost_usd == format_amount(line.cost)
    assert turn.finished.session_totals.usage.web_search_requests == 2
    assert turn.finished.session_totals.cost_usd == format_amount(line.cost)


async def test_fee_without_a_counter_is_charged_as_billed(caller: Caller) -> None:
    """The charge is the billed amount, even if the catalogue cannot explain it: the difference is drift."""
    turn = await caller.converse("@sandbox plain fee=0.0123456789012345678901")

    (call,), (line,) = turn.calls, caller.service.invoice("talk")
    assert call.cost_usd == format_amount(line.cost)
    assert call.cost_usd.endswith("45678901")
    assert call.catalogue_cost_usd != call.cost_usd
    assert turn.finished.session_totals.cost_usd == call.cost_usd


async def test_reasoning_is_streamed_counted_and_returned_unchanged(caller: Caller) -> None:
    """Reasoning is streamed as `reasoning_delta`; its details, also encrypted, are returned to the model unchanged."""
    turn = await caller.converse("@sandbox tool-loop calls=3 reasoning=4 encrypted=1")

    assert turn.reasoning == "thought 0 thought 1 thought 2 thought 3 " * 3
    assert turn.text
    assert "thought" not in turn.text
    assert turn.finished.turn_totals.usage.reasoning_tokens == 5 * 3
    _, second, third = (request["messages"] for request in caller.service.requests("talk"))
    (details,) = [message["reasoning_details"] for message in second if "reasoning_details" in message]
    assert [each["type"] for each in details] == ["reasoning.text", "reasoning.encrypted"]
    assert details[0]["text"] == "thought 0 thought 1 thought 2 thought 3 "
    assert sum("reasoning_details" in message for message in third) == 2
    entries = caller.service.backends.ask(caller.service.backends.sandbox.request_log.entries)
    name = caller.service.provider_session_id("talk")
    trails = [each["reasoning"] for each in entries if each["body"].get("session_id") == name]
    assert trails == [{"unchanged": number, "changed": 0, "missing": 0} for number in range(3)]
    reasoned = [block.reasoning for message in await caller.messages() for block in message.content if block.reasoning]
    assert reasoned == ["thought 0 thought 1 thought 2 thought 3 "] * 3
    assert "reasoning.encrypted" not in str(await caller.messages())


async def test_answer_without_cost_is_pending(caller: Caller) -> None:
    """Usage without a cost leaves the entry pending for reconciliation: its tokens are known, its cost is not."""
    turn = await caller.converse("@sandbox no-cost record_ms=-1")

    (call,), (entry,) = turn.calls, caller.service.entries("talk")
    assert call.state == metering_pb2.CALL_STATE_PENDING
    assert not call.HasField("cost_usd")
    assert call.cost_source == metering_pb2.COST_SOURCE_UNSPECIFIED
    assert call.usage.total_tokens > 0
    assert entry.catalogue_cost is not None
    totals = turn.finished.session_totals
    assert (totals.cost_usd, totals.pending_calls, totals.model_calls, totals.turns) == ("0", 1, 1, 1)
    assert (await caller.metrics()).totals == totals


async def test_later_generation_record_settles_the_call(caller: Caller) -> None:
    """Reconciliation adds the provider's amount, and the totals equal the invoice again."""
    await caller.converse("@sandbox no-cost record_ms=0")

    await settled(caller)
    (entry,), (line,) = caller.service.entries("talk"), caller.service.invoice("talk")
    assert (entry.state, entry.cost_source, entry.cost) == (CallState.SETTLED, CostSource.RECONCILED, line.cost)
    second = await caller.converse("hi")
    assert second.started.totals.cost_usd == format_amount(line.cost)
    assert second.finished.session_totals.pending_calls == 0
