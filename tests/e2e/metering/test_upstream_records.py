"""How long a call waits for its record: by whether the catalogue can price it and the upstream keeps records."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.clock import utc_now
from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from openrouter_sandbox.billing.malformed import ABSENT
from openrouter_sandbox.server import Sandbox
from openrouter_sandbox.settings import SandboxSettings
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import calls, cancelled, closed
from tests.support.caller import Caller
from tests.support.service import Service, format_amount, soon

MINUTES_3, HOUR = timedelta(minutes=3), timedelta(minutes=61)
NO_COST = "@sandbox no-cost record_ms=-1"
NOTHING = dict.fromkeys(Outcome, 0)
Connect = Callable[[Service], Caller]


@asynccontextmanager
async def gateway(record_endpoint: str) -> AsyncIterator[Sandbox]:
    """Run an upstream of its own that answers `/generation` this way."""
    async with Sandbox(settings=SandboxSettings(record_endpoint=record_endpoint)) as sandbox:
        yield sandbox


async def test_unpriced_usage_waits_as_long_as_no_usage(
    start_caller: StartCaller, start_harness: StartHarness, connect: Connect
) -> None:
    """Usage that no list can price is pending after three minutes, and unresolved after an hour only."""
    first = await start_caller(reconcile_interval=NEVER)
    reasons: tuple[dict[str, Any], ...] = (
        {"is_byok": True},
        {"served_model": "unknown/lists-this", "served_slug": "unknown/lists-this"},
        {"usage.server_tool_calls": 1},
    )
    for known in reasons:
        caller = connect(first.service.another_tenant())
        await caller.converse(NO_COST)
        caller.service.database["ledger"].update_one({"tenant_id": caller.service.tenant_id}, {"$set": known})
    harness = await start_harness(first.service)
    harness.ahead = MINUTES_3

    assert await harness.reconciler.tick() == {**NOTHING, Outcome.POSTPONED: len(reasons)}
    harness.ahead = HOUR
    assert await harness.reconciler.tick() == {**NOTHING, Outcome.UNRESOLVED: len(reasons)}


async def test_waiting_time_does_not_depend_on_the_clock_of_the_server(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """A server whose clock is three minutes off tries at once, and prices a call two minutes after it was deferred."""
    caller = await start_caller(reconcile_interval=NEVER)
    for clock_ahead in (MINUTES_3, -MINUTES_3):
        await caller.converse(NO_COST)
        harness = await start_harness(caller.service)
        harness.clock_ahead = clock_ahead

        assert await harness.reconciler.tick() == {**NOTHING, Outcome.POSTPONED: 1}
        harness.ahead = timedelta(seconds=121)
        assert await harness.reconciler.tick() == {**NOTHING, Outcome.SETTLED: 1}

        assert calls(caller)[-1].cost_source is CostSource.CATALOGUE


async def test_call_is_deferred_at_the_time_of_the_database(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """Deferring own, forgotten and orphaned calls sets the database's time."""
    caller = await start_caller(reconcile_interval=NEVER)
    entry = await cancelled(caller, "@sandbox slow first_delay_ms=0 delay_ms=10 record_ms=-1")
    harness = await start_harness(caller.service)
    ledger = Ledger(harness.database.collection("ledger"))
    documents = caller.service.database["ledger"]
    forget = {"$unset": {"due": "", "left_time": ""}}

    leaving: tuple[Callable[[], Awaitable[Any]], ...]
    leaving = (
        lambda: ledger.defer(entry),
        lambda: ledger.defer_own(entry.owner),
        lambda: ledger.defer_orphans([entry.owner]),
    )
    for leave in leaving:
        documents.update_one({}, forget)
        await leave()

        (document,) = caller.service.entry_documents("talk")
        assert abs(document["left_time"] - utc_now()) < timedelta(seconds=30)
        assert abs(document["due"] - utc_now()) < timedelta(seconds=30)


@pytest.mark.parametrize("record_endpoint", ABSENT)
async def test_priced_usage_settles_in_the_turn_if_upstream_keeps_no_records(
    start_caller: StartCaller, record_endpoint: str
) -> None:
    """The upstream has no `/generation`: the turn ends with the catalogue's price, and no call is pending."""
    async with gateway(record_endpoint) as upstream:
        caller = await start_caller(openrouter_base_url=upstream.base_url, reconcile_interval=NEVER)

        turn = await caller.converse("@sandbox no-cost")

        cost = format_amount(upstream.invoice.total())
        assert cost != "0"
        assert (turn.finished.turn_totals.cost_usd, turn.finished.turn_totals.pending_calls) == (cost, 0)
        assert turn.calls[0].cost_usd == cost
        assert calls(caller)[0].cost_source is CostSource.CATALOGUE


async def test_priced_usage_settles_in_the_turn_if_no_records_are_configured(start_caller: StartCaller) -> None:
    """With GODOTY_GENERATION_RECORDS=none the turn itself ends with the catalogue's price."""
    async with gateway("") as upstream:
        caller = await start_caller(openrouter_base_url=upstream.base_url, generation_records="none")

        turn = await caller.converse("@sandbox no-cost")

        assert turn.finished.turn_totals.pending_calls == 0
        assert turn.finished.turn_totals.cost_usd == format_amount(upstream.invoice.total())


async def test_call_without_usage_is_unresolved_at_once_if_no_records_are_configured(start_caller: StartCaller) -> None:
    """With GODOTY_GENERATION_RECORDS=none no call waits for a record that cannot come."""
    async with gateway("fastapi") as upstream:
        caller = await start_caller(openrouter_base_url=upstream.base_url, generation_records="none")

        await cancelled(caller, "@sandbox slow first_delay_ms=0 delay_ms=10")

        assert (await closed(caller)).state is CallState.UNRESOLVED


async def test_unpriced_usage_stays_pending_if_upstream_keeps_no_records(start_caller: StartCaller) -> None:
    """A model that searches by itself has fees that no counter shows: the call is deferred."""
    async with gateway("fastapi") as upstream:
        caller = await start_caller(openrouter_base_url=upstream.base_url, reconcile_interval=NEVER)

        turn = await caller.converse("@sandbox no-cost", model="openai/gpt-4o-mini:online")

        assert turn.finished.turn_totals.pending_calls == 1
        assert not turn.calls[0].HasField("cost_usd")


async def test_upstream_with_an_openrouter_answer_keeps_records(start_caller: StartCaller) -> None:
    """A proxy's 404 page after OpenRouter's own answer changes nothing: the call waits for its record."""
    async with gateway("") as upstream:
        caller = await start_caller(openrouter_base_url=upstream.base_url, record_patience_with_usage=600)
        upstream.settings.record_endpoint = "nginx"

        turn = await caller.converse("@sandbox no-cost record_ms=0 fee=0.002")
        assert turn.finished.turn_totals.pending_calls == 1
        await soon(lambda: caller.service.entry_documents("talk")[0].get("tries", 0) > 1)
        upstream.settings.record_endpoint = ""
        entry = await closed(caller)

        assert (entry.cost, entry.cost_source) == (upstream.invoice.total(), CostSource.RECONCILED)


async def test_error_answer_without_output_waits_five_minutes_for_its_record(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """A provider's error with a generation id and no usage is unresolved after five minutes, never 0."""
    caller = await start_caller(reconcile_interval=NEVER)
    turn = await caller.converse("@sandbox error-mid n=0 usage=0 code=400 record_ms=-1")
    assert turn.failure is not None
    harness = await start_harness(caller.service)
    harness.ahead = timedelta(minutes=4)

    assert (await harness.reconciler.tick())[Outcome.POSTPONED] == 1
    harness.ahead = timedelta(minutes=6)
    assert (await harness.reconciler.tick())[Outcome.UNRESOLVED] == 1

    (entry,) = calls(caller)
    assert (entry.cost, entry.generation_id is not None) == (None, True)


async def test_error_answer_is_settled_by_its_record(start_caller: StartCaller, start_harness: StartHarness) -> None:
    """The record of an error answer states a cost of 0: that evidence settles the call at 0."""
    caller = await start_caller(reconcile_interval=NEVER)
    await caller.converse("@sandbox error-mid n=0 usage=0 code=400 record_ms=0")
    harness = await start_harness(caller.service)

    assert (await harness.reconciler.tick())[Outcome.SETTLED] == 1

    (entry,) = calls(caller)
    assert (entry.cost, entry.cost_source) == (Decimal(0), CostSource.RECONCILED)


async def test_broken_connection_without_output_waits_the_hour(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """The connection broke after the headers without an error: its record may still come within the hour."""
    caller = await start_caller(reconcile_interval=NEVER)
    turn = await caller.converse("@sandbox reset n=1 record_ms=-1")
    assert turn.failure is not None
    harness = await start_harness(caller.service)
    harness.ahead = timedelta(minutes=6)

    outcomes = await harness.reconciler.tick()

    assert outcomes[Outcome.POSTPONED] == len([each for each in calls(caller) if each.generation_id]) > 0


async def test_rotated_key_still_reads_the_records_of_its_calls(
    start_caller: StartCaller, capsys: pytest.CaptureFixture[str]
) -> None:
    """After OPENROUTER_API_KEY is changed, the old key in its list settles its own calls; it is not logged."""
    old = await start_caller(reconcile_interval=NEVER, OPENROUTER_API_KEY="sandbox-before-rotation")
    await cancelled(old, "@sandbox slow first_delay_ms=0 delay_ms=10 record_ms=0")

    await start_caller(
        database=old.service.database.name,
        OPENROUTER_API_KEY="sandbox-after-rotation",
        openrouter_old_api_keys="sandbox-earlier, sandbox-before-rotation",
    )

    entry = await closed(old)
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert "before-rotation" not in "".join(capsys.readouterr())
