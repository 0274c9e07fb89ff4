"""One name for a model: the listing's id, for any name that the provider or the request used."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.telemetry.metrics import Metrics
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.billing.generation import Generation
from tests.e2e.metering.conftest import NEVER, StartCaller
from tests.e2e.metering.reconciler_harness import calls, cancelled, closed
from tests.integration.billing.caller import BillingCaller, keys_of
from tests.support.caller import Caller

HAIKU, SLUG = "anthropic/claude-haiku-4.5", "anthropic/claude-4.5-haiku-20251001"
FREE, GLM_SLUG = "z-ai/glm-5.2:free", "z-ai/glm-5.2-20260616"


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> list[CollectorRegistry]:
    """The registries of the servers that start from now on."""
    found: list[CollectorRegistry] = []
    define = Metrics._define_calls

    def note(metrics: Metrics) -> None:
        found.append(metrics.registry)
        define(metrics)

    monkeypatch.setattr(Metrics, "_define_calls", note)
    return found


def labels(registries: list[CollectorRegistry]) -> set[str]:
    """Return every `model` label in the servers' metrics."""
    return {
        sample.labels["model"]
        for registry in registries
        for metric in registry.collect()
        for sample in metric.samples
        if "model" in sample.labels
    }


async def named_in_three_ways(caller: Caller) -> None:
    """Run turns that the provider names by the id, by the dated slug, and in a record only."""
    await caller.converse("@sandbox plain", model=HAIKU)
    await caller.converse("@sandbox plain model_name=slug")
    await caller.converse("@sandbox plain model_name=slug", model=SLUG)
    await cancelled(caller, "@sandbox slow tokens=40 first_delay_ms=0 delay_ms=20 record_ms=100", model=HAIKU)
    await closed(caller)


@pytest.mark.parametrize("rollup_interval", [0.1, NEVER], ids=["rolled up", "entries"])
async def test_every_sum_and_label_has_the_listed_id(
    start_caller: StartCaller,
    registries: list[CollectorRegistry],
    issue: Callable[..., str],
    rollup_interval: float,
) -> None:
    """Billed under the id, billed under the slug and reconciled by a record: one row, one run name, one label."""
    caller = await start_caller(rollup_interval=rollup_interval)
    await named_in_three_ways(caller)

    entries = calls(caller)
    assert [entry.served_model for entry in entries] == [HAIKU] * 4
    assert [entry.served_slug for entry in entries] == [HAIKU, SLUG, SLUG, SLUG]
    assert entries[-1].cost_source is CostSource.RECONCILED
    assert all(entry.cost == entry.catalogue_cost for entry in entries)
    metrics = await caller.metrics()
    (row,) = metrics.by_model
    assert (row.model, row.totals.model_calls, row.totals.turns) == (HAIKU, 4, 4)
    assert {run.model for run in metrics.recent_runs} == {HAIKU}
    assert labels(registries) == {HAIKU}
    biller = BillingCaller(caller.service, caller.channel, issue(caller.service, scopes=frozenset({Scope.BILLING})))
    now = datetime.now(UTC)
    for groups in (("model",), ("model", "user")):  # of roll-ups, and of entries
        usage = await biller.usage(now - timedelta(hours=1), now + timedelta(hours=1), *groups)
        assert [(keys[0], row.totals.model_calls) for keys, row in zip(keys_of(usage), usage.rows, strict=True)] == [
            (HAIKU, 4)
        ]


async def test_reply_has_the_listed_id_and_the_provider_name(start_caller: StartCaller) -> None:
    """`model_call_finished` has both."""
    caller = await start_caller()
    turn = await caller.converse("@sandbox plain model_name=slug", model=HAIKU)

    assert [(call.served_model, call.served_slug) for call in turn.calls] == [(HAIKU, SLUG)]


async def test_unserved_call_counts_under_the_listed_id(start_caller: StartCaller) -> None:
    """A request may name a slug, an alias or a routing variant: failed calls count beside served ones."""
    caller = await start_caller()
    for name in (HAIKU, SLUG, f"{HAIKU}:nitro"):
        await caller.converse("@sandbox error-before status=400", model=name)

    assert [(entry.served_model, entry.requested_model) for entry in calls(caller)] == [
        (None, HAIKU),
        (None, SLUG),
        (None, f"{HAIKU}:nitro"),
    ]
    assert [each.model for each in (await caller.metrics()).by_model] == [HAIKU]


async def test_requested_variant_decides_between_ids_of_one_slug(start_caller: StartCaller) -> None:
    """The free model and the paid one have one slug: the free request is free, by the provider's cost alone."""
    caller = await start_caller()
    await caller.converse("@sandbox plain model_name=slug", model=FREE)
    await caller.converse("@sandbox plain model_name=slug", model=FREE.removesuffix(":free"))

    free, paid = calls(caller)
    assert (free.served_model, free.served_slug) == (FREE, GLM_SLUG)
    assert (paid.served_model, paid.served_slug) == (FREE.removesuffix(":free"), GLM_SLUG)
    assert (free.cost, free.catalogue_cost) == (Decimal(0), None)
    assert paid.cost == paid.catalogue_cost
    assert {each.model for each in (await caller.metrics()).by_model} == {free.served_model, paid.served_model}


async def test_free_request_without_a_stated_cost_is_not_free(start_caller: StartCaller) -> None:
    """With only the slug and no cost, the free or the paid model may have served: the cost is unknown."""
    caller = await start_caller(record_patience=0.2)
    await caller.converse("@sandbox no-cost record_ms=-1 model_name=slug", model=FREE)
    entry = await closed(caller)

    assert (entry.state, entry.cost, entry.catalogue_cost) == (CallState.UNRESOLVED, None, None)


async def test_unlisted_model_has_the_provider_name(start_caller: StartCaller, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown name is shown as sent; a long one is cut."""
    names = iter(["unknown/new-model-20270101", "x" * 10_000])
    monkeypatch.setattr(Generation, "served_name", property(lambda _: next(names)))
    caller = await start_caller()
    await caller.converse("@sandbox plain")
    await caller.converse("@sandbox plain")

    first, second = calls(caller)
    assert (first.served_model, first.served_slug) == ("unknown/new-model-20270101",) * 2
    assert second.served_model == second.served_slug == "x" * 256


async def test_entries_are_found_by_either_name(start_caller: StartCaller, issue: Callable[..., str]) -> None:
    """The id and the slug give the same entries, including those of older versions and of unserved requests."""
    caller = await start_caller()
    await named_in_three_ways(caller)
    await caller.converse("@sandbox error-before status=400", model=f"{HAIKU}:nitro")
    await caller.converse("@sandbox plain", model="openai/gpt-4o-mini")
    ledger = caller.service.database["ledger"]
    old = {"tenant_id": caller.service.tenant_id, "number": 1}
    ledger.update_one(old, {"$set": {"served_model": SLUG}, "$unset": {"served_slug": ""}})
    biller = BillingCaller(caller.service, caller.channel, issue(caller.service, scopes=frozenset({Scope.BILLING})))

    for name in (HAIKU, SLUG):
        found = await biller.all_entries(model=name, page_size=2)
        assert [each.call.number for each in found] == [1, 2, 3, 4, 5]
    assert [each.call.number for each in await biller.all_entries(model=f"{HAIKU}:batch")] == []
    assert [each.call.number for each in await biller.all_entries(model="openai/gpt-4o-mini")] == [6]
