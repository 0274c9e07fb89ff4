"""The model that served is the one that is recorded and priced."""

from decimal import Decimal

from tests.service.caller import Caller
from tests.service.service import plain

MINI, HAIKU, DEEPSEEK = "openai/gpt-4o-mini", "anthropic/claude-haiku-4.5", "deepseek/deepseek-v3.2"


async def test_a_fallback_that_served_is_what_is_priced(caller: Caller) -> None:
    """When a fallback serves, entry, price, totals and invoice are the fallback's."""
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
    assert [(each.model, each.totals.cost_usd) for each in metrics.by_model] == [(HAIKU, plain(line.cost))]
    assert [run.model for run in metrics.recent_runs] == [HAIKU]
    assert turn.calls[0].served_model == HAIKU
    assert turn.finished.session_totals.cost_usd == plain(line.cost)


async def test_another_provider_is_priced_at_its_own_price(caller: Caller) -> None:
    """A provider that charges another price than the listed one shows as drift, or at its own price: billed is kept."""
    turn = await caller.converse("@sandbox plain provider=Azure", model=MINI)

    (entry,), (line,) = caller.service.entries("talk"), caller.service.invoice("talk")
    assert entry.provider == "Azure"
    assert entry.cost == line.cost
    assert turn.finished.session_totals.cost_usd == plain(line.cost)


async def test_a_model_named_by_its_dated_slug_is_known(caller: Caller) -> None:
    """A response that names the dated slug of the model is priced like the model."""
    await caller.converse("@sandbox plain model_name=slug", model=HAIKU)

    (entry,) = caller.service.entries("talk")
    assert entry.served_model is not None
    assert entry.served_model.startswith("anthropic/")
    assert entry.catalogue_cost == entry.cost


async def test_the_model_may_change_from_turn_to_turn(caller: Caller) -> None:
    """Each model's calls are kept apart; a turn that names none asks the one that was used last."""
    for model in (MINI, HAIKU, ""):
        await caller.converse("hi", model=model)

    entries = caller.service.entries("talk")
    assert [entry.served_model for entry in entries] == [MINI, HAIKU, HAIKU]
    metrics = await caller.metrics()
    by_model = {each.model: each.totals for each in metrics.by_model}
    assert set(by_model) == {MINI, HAIKU}
    assert by_model[MINI].cost_usd == plain(entries[0].cost or Decimal(0))
    assert by_model[HAIKU].cost_usd == plain((entries[1].cost or Decimal(0)) + (entries[2].cost or Decimal(0)))
    assert (by_model[MINI].turns, by_model[HAIKU].turns) == (1, 2)
    first, second, third = (request["messages"] for request in caller.service.requests("talk"))
    assert [len(first), len(second), len(third)] == [2, 4, 6]


async def test_fallbacks_are_asked_for_one_turn_only(caller: Caller) -> None:
    """A later turn that names no fallbacks has none."""
    await caller.converse("hi", model=MINI, fallback_models=[HAIKU])
    await caller.converse("hi")

    assert ["models" in request for request in caller.service.requests("talk")] == [True, False]
