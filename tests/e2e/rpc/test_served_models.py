"""The model that served a call is the one that is recorded and priced."""

from decimal import Decimal

from tests.support.caller import Caller
from tests.support.service import format_amount

MINI, HAIKU, DEEPSEEK = "openai/gpt-4o-mini", "anthropic/claude-haiku-4.5", "deepseek/deepseek-v3.2"


async def test_fallback_that_served_is_priced(caller: Caller) -> None:
    """If a fallback serves, entry, price, totals and invoice are the fallback's."""
    turn = await caller.converse("@sandbox fallback", model=MINI, fallback_models=[HAIKU, DEEPSEEK])

    (entry,), (line,) = caller.service.entries("talk"), caller.service.invoice("talk")
    assert (entry.requested_model, entry.served_model, entry.fallback_models) == (MINI, HAIKU, (HAIKU, DEEPSEEK))
    assert entry.provider == "Anthropic"
    assert entry.cost == line.cost == entry.catalogue_cost
    assert line.model == HAIKU
    assert entry.evidence is not None
    assert entry.evidence.prices.prompt == Decimal("0.000001")
    assert (entry.upper_bound or 0) >= line.cost
    (request,) = caller.service.requests("talk")
    assert request["models"] == [MINI, HAIKU, DEEPSEEK]
    metrics = await caller.metrics()
    assert [(each.model, each.totals.cost_usd) for each in metrics.by_model] == [(HAIKU, format_amount(line.cost))]
    assert [run.model for run in metrics.recent_runs] == [HAIKU]
    assert turn.calls[0].served_model == HAIKU
    assert turn.finished.session_totals.cost_usd == format_amount(line.cost)


async def test_another_provider_is_priced_at_its_own_price(caller: Caller) -> None:
    """A provider whose price is not the listed one causes drift, or has its own price; the billed cost counts."""
    turn = await caller.converse("@sandbox plain provider=Azure", model=MINI)

    (entry,), (line,) = caller.service.entries("talk"), caller.service.invoice("talk")
    assert entry.provider == "Azure"
    assert entry.cost == line.cost
    assert turn.finished.session_totals.cost_usd == format_amount(line.cost)


async def test_model_named_by_its_dated_slug_is_priced(caller: Caller) -> None:
    """A response with the dated slug of the model is priced like the model."""
    await caller.converse("@sandbox plain model_name=slug", model=HAIKU)

    (entry,) = caller.service.entries("talk")
    assert entry.served_model is not None
    assert entry.served_model.startswith("anthropic/")
    assert entry.catalogue_cost == entry.cost


async def test_model_may_change_between_turns(caller: Caller) -> None:
    """Totals are per model; a turn without a model uses the last one."""
    for model in (MINI, HAIKU, ""):
        await caller.converse("hi", model=model)

    entries = caller.service.entries("talk")
    assert [entry.served_model for entry in entries] == [MINI, HAIKU, HAIKU]
    metrics = await caller.metrics()
    by_model = {each.model: each.totals for each in metrics.by_model}
    assert set(by_model) == {MINI, HAIKU}
    assert by_model[MINI].cost_usd == format_amount(entries[0].cost or Decimal(0))
    assert by_model[HAIKU].cost_usd == format_amount((entries[1].cost or Decimal(0)) + (entries[2].cost or Decimal(0)))
    assert (by_model[MINI].turns, by_model[HAIKU].turns) == (1, 2)
    first, second, third = (request["messages"] for request in caller.service.requests("talk"))
    assert [len(first), len(second), len(third)] == [2, 4, 6]


async def test_fallbacks_apply_to_one_turn_only(caller: Caller) -> None:
    """A later turn without fallbacks has none."""
    await caller.converse("hi", model=MINI, fallback_models=[HAIKU])
    await caller.converse("hi")

    assert ["models" in request for request in caller.service.requests("talk")] == [True, False]
