"""How long a call waits for its record: by what the catalogue can price, and by what the upstream keeps."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.clock import utc_now
from godoty_service.metering.call import CallState, CostSource
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.reconciler import Outcome
from godoty_service.sandbox.malformed import ABSENT
from godoty_service.sandbox.server import Sandbox
from godoty_service.sandbox.settings import SandboxSettings
from tests.metering.bookkeeper import calls, cancelled, closed, eventually
from tests.metering.conftest import NEVER, Bookkeep, Serve
from tests.service.service import plain

MINUTES_3, HOUR = timedelta(minutes=3), timedelta(minutes=61)
NO_COST = "@sandbox no-cost record_ms=-1"


@asynccontextmanager
async def gateway(record_endpoint: str) -> AsyncIterator[Sandbox]:
    """Run an upstream of its own that answers `/generation` in this way."""
    async with Sandbox(settings=SandboxSettings(record_endpoint=record_endpoint)) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    "known",
    [
        {"is_byok": True},
        {"served_model": "nobody/lists-this", "served_slug": "nobody/lists-this"},
        {"usage.server_tool_calls": 1},
    ],
    ids=str,
)
async def test_usage_without_a_price_waits_as_long_as_a_call_without_usage(
    calling: Serve, bookkeep: Bookkeep, known: dict[str, Any]
) -> None:
    """Usage that no list can price is pending after three minutes, and unresolved after an hour only."""
    caller = await calling(reconcile_interval=NEVER)
    await caller.converse(NO_COST)
    caller.service.database["ledger"].update_one({}, {"$set": known})
    keeper = await bookkeep(caller.service)
    keeper.ahead = MINUTES_3

    assert (await keeper.reconciler.tick())[Outcome.POSTPONED] == 1
    keeper.ahead = HOUR
    assert (await keeper.reconciler.tick())[Outcome.UNRESOLVED] == 1


@pytest.mark.parametrize("clock_ahead", [MINUTES_3, -MINUTES_3], ids=["fast", "slow"])
async def test_waiting_time_does_not_depend_on_the_clock_of_the_server(
    calling: Serve, bookkeep: Bookkeep, clock_ahead: timedelta
) -> None:
    """A server whose clock is three minutes off looks at once, and prices a call two minutes after it was left."""
    caller = await calling(reconcile_interval=NEVER)
    await caller.converse(NO_COST)
    keeper = await bookkeep(caller.service)
    keeper.clock_ahead = clock_ahead

    assert (await keeper.reconciler.tick())[Outcome.POSTPONED] == 1
    keeper.ahead = timedelta(seconds=121)
    assert (await keeper.reconciler.tick())[Outcome.SETTLED] == 1

    assert calls(caller)[0].cost_source is CostSource.CATALOGUE


@pytest.mark.parametrize("clock_ahead", [MINUTES_3, -MINUTES_3], ids=["fast", "slow"])
async def test_call_is_left_at_the_time_of_the_database(
    calling: Serve, bookkeep: Bookkeep, clock_ahead: timedelta
) -> None:
    """Leaving and adopting a call stamp it with the database's time, whatever the server's clock says."""
    caller = await calling(reconcile_interval=NEVER)
    entry = await cancelled(caller, "@sandbox slow first_delay_ms=0 delay_ms=10 record_ms=-1")
    keeper = await bookkeep(caller.service)
    ledger = Ledger(keeper.database.collection("ledger"), clock=lambda: utc_now() + clock_ahead)
    documents = caller.service.database["ledger"]
    forget = {"$unset": {"due": "", "left_time": ""}}

    leaving: tuple[Callable[[], Awaitable[Any]], ...]
    leaving = (lambda: ledger.leave(entry), lambda: ledger.adopt([entry.owner]))
    for leave in leaving:
        documents.update_one({}, forget)
        await leave()

        (document,) = caller.service.entry_documents("talk")
        assert abs(document["left_time"] - utc_now()) < timedelta(seconds=30)
        assert abs(document["due"] - utc_now()) < timedelta(seconds=30)


@pytest.mark.parametrize("record_endpoint", ABSENT)
async def test_priceable_usage_settles_in_the_turn_where_no_records_are_kept(
    calling: Serve, record_endpoint: str
) -> None:
    """The upstream has no `/generation`: the turn itself ends with the catalogue's price, and nothing is pending."""
    async with gateway(record_endpoint) as upstream:
        caller = await calling(openrouter_base_url=upstream.base_url, reconcile_interval=NEVER)

        turn = await caller.converse("@sandbox no-cost")

        cost = plain(upstream.invoice.total())
        assert cost != "0"
        assert (turn.finished.turn_totals.cost_usd, turn.finished.turn_totals.pending_calls) == (cost, 0)
        assert turn.calls[0].cost_usd == cost
        assert calls(caller)[0].cost_source is CostSource.CATALOGUE


async def test_priceable_usage_settles_in_the_turn_where_no_records_are_configured(calling: Serve) -> None:
    """With GODOTY_GENERATION_RECORDS=none the turn itself ends with the catalogue's price."""
    async with gateway("") as upstream:
        caller = await calling(openrouter_base_url=upstream.base_url, generation_records="none")

        turn = await caller.converse("@sandbox no-cost")

        assert turn.finished.turn_totals.pending_calls == 0
        assert turn.finished.turn_totals.cost_usd == plain(upstream.invoice.total())


async def test_call_without_usage_is_unresolved_at_once_where_none_are_configured(calling: Serve) -> None:
    """With GODOTY_GENERATION_RECORDS=none nothing waits for a record that cannot come."""
    async with gateway("fastapi") as upstream:
        caller = await calling(openrouter_base_url=upstream.base_url, generation_records="none")

        await cancelled(caller, "@sandbox slow first_delay_ms=0 delay_ms=10")

        assert (await closed(caller)).state is CallState.UNRESOLVED


async def test_unpriceable_usage_is_not_settled_where_no_records_are_kept(calling: Serve) -> None:
    """A model that searches by itself costs what no counter shows: the call is left pending."""
    async with gateway("fastapi") as upstream:
        caller = await calling(openrouter_base_url=upstream.base_url, reconcile_interval=NEVER)

        turn = await caller.converse("@sandbox no-cost", model="openai/gpt-4o-mini:online")

        assert turn.finished.turn_totals.pending_calls == 1
        assert not turn.calls[0].HasField("cost_usd")


async def test_upstream_that_has_answered_as_openrouter_does_keeps_records(calling: Serve) -> None:
    """A proxy's 404 page after OpenRouter's own answer changes nothing: the record is waited for."""
    async with gateway("") as upstream:
        caller = await calling(openrouter_base_url=upstream.base_url, record_patience_with_usage=600)
        upstream.settings.record_endpoint = "nginx"

        turn = await caller.converse("@sandbox no-cost record_ms=0 fee=0.002")
        assert turn.finished.turn_totals.pending_calls == 1
        await eventually(lambda: caller.service.entry_documents("talk")[0].get("tries", 0) > 1)
        upstream.settings.record_endpoint = ""
        entry = await closed(caller)

        assert (entry.cost, entry.cost_source) == (upstream.invoice.total(), CostSource.RECONCILED)


async def test_error_answer_without_output_waits_five_minutes_for_its_record(
    calling: Serve, bookkeep: Bookkeep
) -> None:
    """An error of the provider that carries a generation id and no usage is unresolved after five minutes, never 0."""
    caller = await calling(reconcile_interval=NEVER)
    turn = await caller.converse("@sandbox error-mid n=0 usage=0 code=400 record_ms=-1")
    assert turn.failure is not None
    keeper = await bookkeep(caller.service)
    keeper.ahead = timedelta(minutes=4)

    assert (await keeper.reconciler.tick())[Outcome.POSTPONED] == 1
    keeper.ahead = timedelta(minutes=6)
    assert (await keeper.reconciler.tick())[Outcome.UNRESOLVED] == 1

    (entry,) = calls(caller)
    assert (entry.cost, entry.generation_id is not None) == (None, True)


async def test_error_answer_is_settled_by_its_record(calling: Serve, bookkeep: Bookkeep) -> None:
    """The record of an error answer says that it cost nothing: that is the evidence which settles it at 0."""
    caller = await calling(reconcile_interval=NEVER)
    await caller.converse("@sandbox error-mid n=0 usage=0 code=400 record_ms=0")
    keeper = await bookkeep(caller.service)

    assert (await keeper.reconciler.tick())[Outcome.SETTLED] == 1

    (entry,) = calls(caller)
    assert (entry.cost, entry.cost_source) == (Decimal(0), CostSource.RECONCILED)


async def test_broken_connection_without_output_waits_the_hour(calling: Serve, bookkeep: Bookkeep) -> None:
    """The connection broke after the headers: no error was answered, so its record may still come within the hour."""
    caller = await calling(reconcile_interval=NEVER)
    turn = await caller.converse("@sandbox reset n=1 record_ms=-1")
    assert turn.failure is not None
    keeper = await bookkeep(caller.service)
    keeper.ahead = timedelta(minutes=6)

    outcomes = await keeper.reconciler.tick()

    assert outcomes[Outcome.POSTPONED] == len([each for each in calls(caller) if each.generation_id]) > 0


async def test_rotated_key_still_reads_the_records_of_its_calls(
    calling: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """After OPENROUTER_API_KEY is changed, the old key in its list settles the calls that it made; it is not logged."""
    old = await calling(reconcile_interval=NEVER, OPENROUTER_API_KEY="sandbox-before-rotation")
    await cancelled(old, "@sandbox slow first_delay_ms=0 delay_ms=10 record_ms=0")

    await calling(
        database=old.service.database.name,
        OPENROUTER_API_KEY="sandbox-after-rotation",
        openrouter_old_api_keys="sandbox-earlier, sandbox-before-rotation",
    )

    entry = await closed(old)
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert "before-rotation" not in "".join(capsys.readouterr())
