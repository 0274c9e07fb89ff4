"""Amounts that a person enters: one that sums cannot hold, or no call can cost, is rejected before any write."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from godoty.v1 import metering_pb2

from godoty_service.errors import AmountRefused
from godoty_service.ledger.codec import entry_from_document
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.tenancy.auth import Scope
from tests.e2e.metering.conftest import NEVER, Godoty, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, cancelled
from tests.integration.billing.caller import BillingCaller
from tests.support.caller import Caller
from tests.support.service import format_amount

SLOW = "@sandbox slow tokens=30 first_delay_ms=0 delay_ms=10 record_ms=-1"
KNOWN = TokenUsage(input_tokens=300, output_tokens=10, total_tokens=310)


async def _unresolved(caller: Caller, harness: ReconcilerHarness, usage: TokenUsage | None = None) -> ModelCall:
    """Return an unresolved call, with the usage that its stream reported."""
    entry = await cancelled(caller, SLOW)
    closed = replace(entry, state=CallState.UNRESOLVED, usage=usage, settle_time=datetime.now(UTC))
    assert await harness.ledger.close(closed)
    await harness.totals_updater.refresh(entry.tenant_id, entry.session_uid)
    return closed


def _adjustments(caller: Caller) -> list[Adjustment]:
    found = caller.service.database["ledger"].find({"tenant_id": caller.service.tenant_id, "kind": "adjustment"})
    return [entry for each in found if isinstance(entry := entry_from_document(each), Adjustment)]


async def test_resolve_rejects_amounts_out_of_bounds(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """37 decimals, a quotient of 28, a million dollars and a cent: each is named, and the session goes on."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    await caller.converse("hello")
    call = await _unresolved(caller, harness)
    refused = {
        f"0.{'0' * 36}1": "at most 25 decimals",
        str(Decimal("0.001") / 3): "at most 25 decimals",
        "1000000.01": "at most 1,000,000 USD",
        "1e-3": "write a plain decimal",
    }

    result = await asyncio.gather(
        *(
            godoty(caller.service, "ledger", "resolve", call.call_id, "--why", "x", "--above-bound", "--cost", amount)
            for amount in refused
        )
    )

    for each, text in zip(result, refused.values(), strict=True):
        assert (each.status, each.out) == (1, "")
        assert text in each.err
        assert "Traceback" not in each.err
    assert _adjustments(caller) == []
    assert (await caller.converse("and on")).failure is None
    assert (await caller.metrics()).totals.unresolved_calls == 1


async def test_resolve_above_the_bound_needs_a_flag(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """A slip of the decimal point is rejected with the bound in the message; `--above-bound` confirms it."""
    caller = await start_caller(reconcile_interval=NEVER)
    call = await _unresolved(caller, await start_harness(caller.service))
    assert call.upper_bound is not None
    above = format_amount(call.upper_bound + Decimal("0.01"))
    arguments = ("ledger", "resolve", call.call_id, "--why", "the invoice", "--cost", above)

    refused = await godoty(caller.service, *arguments)
    assert _adjustments(caller) == []
    meant = await godoty(caller.service, *arguments, "--above-bound")

    assert refused.status == 1
    assert format_amount(call.upper_bound) in refused.err
    assert "--above-bound" in refused.err
    assert meant.status == 0, meant.err
    assert [format_amount(each.cost) for each in _adjustments(caller)] == [above]
    assert (await caller.metrics()).totals.cost_usd == above


async def test_resolve_validates_amounts_of_every_caller(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """The bound is checked where the entry is written, not only at the command line."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    call = await _unresolved(caller, harness)

    for cost in ("0.0000000000000000000000000001", "1000000.1", "-1", "NaN"):
        with pytest.raises(AmountRefused):
            await harness.adjustments.resolve(call, cost=Decimal(cost), why="x", by="ann", above_bound=True)

    assert _adjustments(caller) == []


async def test_known_tokens_stay_when_call_is_resolved(
    start_caller: StartCaller, start_harness: StartHarness, issue: Callable[..., str]
) -> None:
    """310 tokens were known before the call was resolved; session totals and usage roll-ups still have them."""
    caller = await start_caller(reconcile_interval=NEVER, rollup_interval=NEVER)
    harness = await start_harness(caller.service)
    call = await _unresolved(caller, harness, KNOWN)

    await harness.adjustments.resolve(call, cost=Decimal("0.0001"), why="the invoice", by="ann")

    metrics = await caller.metrics()
    assert metrics.totals.usage.total_tokens == 310
    assert [each.totals.usage.total_tokens for each in metrics.by_model] == [310]
    assert (await _usage(caller, issue)).usage.total_tokens == 310
    assert await harness.differences() == []


async def test_stated_tokens_count_once_beside_the_known_ones(
    start_caller: StartCaller, start_harness: StartHarness, issue: Callable[..., str]
) -> None:
    """The entry knows 310 tokens, the invoice states 350 and 20 from a cache: the sums have the invoice's, once."""
    caller = await start_caller(reconcile_interval=NEVER, rollup_interval=NEVER)
    harness = await start_harness(caller.service)
    call = await _unresolved(caller, harness, KNOWN)
    stated = TokenUsage(input_tokens=340, total_tokens=350, cache_read_tokens=20)

    await harness.adjustments.resolve(call, cost=Decimal("0.0001"), usage=stated, why="the invoice", by="ann")

    for sums in ((await caller.metrics()).totals, await _usage(caller, issue)):
        usage = sums.usage
        reported = (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cache_read_tokens)
        assert reported == (340, 10, 350, 20)
    assert await harness.differences() == []


async def _usage(caller: Caller, issue: Callable[..., str]) -> metering_pb2.Totals:
    """Return the totals of GetUsage for the tenant's last hours."""
    biller = BillingCaller(caller.service, caller.channel, issue(caller.service, scopes=frozenset({Scope.BILLING})))
    now = datetime.now(UTC)
    return (await biller.usage(now - timedelta(hours=1), now + timedelta(hours=1))).totals
