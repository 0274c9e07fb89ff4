"""Calls that their stream did not settle are settled by the server itself, at the amount that the provider billed."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from tests.e2e.metering.conftest import StartCaller
from tests.e2e.metering.reconciler_harness import (
    billed,
    calls,
    cancelled,
    closed,
    last_call_after_turn,
    serve_record,
)
from tests.support.caller import Caller
from tests.support.service import Service, format_amount, soon

Connect = Callable[[Service], Caller]
LISTED = {"openai/gpt-4o-mini": "0.00000015", "deepseek/deepseek-v3.2": "0.00000026"}  # USD for a prompt token


async def assert_totals(caller: Caller, *, cost: Decimal | None, pending: int = 0, unresolved: int = 0) -> None:
    """Check the totals that a reader sees; an unresolved session has no cost in place of its 0."""
    totals = (await caller.metrics()).totals
    assert totals.cost_usd == format_amount(cost or Decimal(0))
    assert (totals.pending_calls, totals.unresolved_calls) == (pending, unresolved)


@pytest.mark.parametrize(
    ("model", "provider", "tokens"),
    [("openai/gpt-4o-mini", "OpenAI", range(1, 40)), ("google/gemini-2.5-flash", "Google", range(40, 41))],
)
async def test_cancelled_call_is_settled_at_its_bill(
    start_caller: StartCaller, model: str, provider: str, tokens: range
) -> None:
    """If closing stops billing, it is the streamed part; if not, the whole answer. Both to the digit."""
    caller = await start_caller()

    entry = await cancelled(caller, "@sandbox slow tokens=40 first_delay_ms=0 delay_ms=20 record_ms=-1", model=model)
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    await assert_totals(caller, cost=None, pending=1)

    await serve_record(caller, entry)
    entry = await closed(caller)
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert entry.cost == billed(caller, entry) == caller.service.invoiced("talk") > 0
    assert entry.provider == provider
    assert entry.usage is not None
    assert entry.usage.output_tokens in tokens
    assert entry.catalogue_cost == entry.cost
    await assert_totals(caller, cost=entry.cost)


async def test_call_waits_until_its_record_is_there(start_caller: StartCaller) -> None:
    """The provider answers 404 to each of three tries: the call stays pending, and settles once the record is there."""
    caller = await start_caller()
    entry = await cancelled(caller, "@sandbox slow first_delay_ms=0 delay_ms=20 record_ms=-1")

    await soon(lambda: caller.service.entry_documents("talk")[0].get("tries", 0) > 3)
    assert calls(caller) == [entry]
    await assert_totals(caller, cost=None, pending=1)
    await serve_record(caller, entry)
    settled = await closed(caller)

    assert (settled.cost, settled.cost_source) == (billed(caller, settled), CostSource.RECONCILED)
    assert caller.service.entry_documents("talk")[0].keys() & {"due", "tries"} == set()


async def test_usage_without_cost_is_settled_by_the_record(start_caller: StartCaller) -> None:
    """The stream reported tokens and no cost; its record comes, and outranks the catalogue."""
    caller = await start_caller()

    turn = await caller.converse("@sandbox no-cost record_ms=-1 fee=0.002")
    assert turn.finished.session_totals.pending_calls == 1
    assert not turn.calls[0].HasField("cost_usd")
    await soon(lambda: caller.service.entry_documents("talk")[0].get("tries", 0) > 1)
    await serve_record(caller, calls(caller)[0])
    entry = await closed(caller)

    assert (entry.cost, entry.cost_source) == (billed(caller, entry), CostSource.RECONCILED)
    assert entry.catalogue_cost is not None
    assert entry.cost is not None
    assert entry.cost - entry.catalogue_cost == Decimal("0.002")
    await assert_totals(caller, cost=entry.cost)


async def test_usage_without_cost_or_record_is_priced_by_the_catalogue(
    start_caller: StartCaller, connect: Connect
) -> None:
    """After the timeout the service prices the tokens itself, by the prices of the provider that served."""
    first = await start_caller(record_patience_with_usage=0.6)

    async def priced(model: str, provider: str, factor: str) -> None:
        caller = connect(first.service.another_tenant())
        turn = await caller.converse(f"@sandbox no-cost record_ms=-1 provider={provider}", model=model)
        entry = await closed(caller)

        assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.CATALOGUE)
        assert (entry.provider, turn.calls[0].provider) == (provider, provider)
        assert entry.cost == entry.catalogue_cost == billed(caller, entry)
        assert entry.settle_time is not None
        assert entry.settle_time - entry.start_time >= timedelta(seconds=0.6)
        (line,) = caller.service.invoice("talk")
        assert line.provider == provider
        assert entry.evidence is not None
        assert entry.evidence.prices.prompt == Decimal(LISTED[model]) * Decimal(factor)
        await assert_totals(caller, cost=entry.cost)

    await asyncio.gather(
        priced("openai/gpt-4o-mini", "OpenAI", "1"),
        priced("openai/gpt-4o-mini", "Azure", "1.1"),
        priced("deepseek/deepseek-v3.2", "Groq", "2"),
    )


async def test_call_without_generation_id_is_unresolved_with_its_bound(
    start_caller: StartCaller, connect: Connect
) -> None:
    """The connection broke before any header: no record can be requested, and each attempt has its bound.

    The provider bills the attempts, or it does not.
    """
    first = await start_caller()

    async def unresolved(billing: str, lines_of: int) -> None:
        caller = connect(first.service.another_tenant())
        turn = await caller.converse(f"@sandbox reset n=0{billing}")
        assert turn.failure is not None
        await closed(caller)

        entries = caller.service.entries("talk")
        assert [(each.state, each.generation_id, each.cost) for each in entries] == [
            (CallState.UNRESOLVED, None, None)
        ] * 3
        bounds = [each.upper_bound for each in entries if each.upper_bound is not None]
        lines = [line.cost for line in caller.service.invoice("talk")]
        assert len(lines) == lines_of
        assert all(bound > cost for bound, cost in zip(bounds, lines, strict=False))
        totals = (await caller.metrics()).totals
        assert (totals.unresolved_calls, totals.pending_calls, totals.cost_usd) == (3, 0, "0")
        assert totals.unresolved_bound_usd == format_amount(sum(bounds, Decimal(0)))

    await asyncio.gather(unresolved("", 0), unresolved(" bill=full", 3))


async def test_call_without_a_record_is_unresolved_after_the_timeout(start_caller: StartCaller) -> None:
    """The id is known and the record never comes: pending until the timeout, then unresolved."""
    caller = await start_caller(record_patience=1.2)
    entry = await cancelled(caller, "@sandbox slow first_delay_ms=0 delay_ms=20 record_ms=-1")
    assert entry.generation_id is not None

    closed_entry = await closed(caller)

    assert (closed_entry.state, closed_entry.cost) == (CallState.UNRESOLVED, None)
    assert closed_entry.settle_time is not None
    assert closed_entry.settle_time - entry.start_time >= timedelta(seconds=1.2)
    assert closed_entry.upper_bound is not None
    assert closed_entry.upper_bound > billed(caller, closed_entry) > 0
    await assert_totals(caller, cost=None, unresolved=1)


async def test_call_in_the_middle_of_a_tool_loop_is_settled_in_place(start_caller: StartCaller) -> None:
    """The second of three calls is deferred: later ones have the next numbers, and it is settled under its own."""
    caller = await start_caller()
    await caller.converse("@sandbox no-cost record_ms=-1")
    turn = await caller.converse("@sandbox tool-loop calls=3")

    assert turn.started.totals.pending_calls == turn.finished.session_totals.pending_calls == 1
    assert [each.number for each in turn.calls] == [2, 3, 4]
    first = caller.service.entries("talk")[0]
    assert first.state is CallState.PENDING
    await last_call_after_turn(caller)
    await serve_record(caller, first)
    await closed(caller)
    assert [each.state for each in caller.service.entries("talk")] == [CallState.SETTLED] * 4
    await assert_totals(caller, cost=caller.service.invoiced("talk"))
