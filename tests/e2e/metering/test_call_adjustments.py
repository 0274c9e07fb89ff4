"""Adjustments of calls whose cost is known: every sum follows, each request counts once, no total is below zero."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.errors import AmountRefused, CallNotAdjustable, CallNotFound, RequestIdReused
from godoty_service.ledger.adjustment_order import AdjustmentOrder
from godoty_service.ledger.codec import entry_from_document
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.ledger.states import CallState
from godoty_service.metering import reconciler
from godoty_service.metering.adjustments import Adjustments
from godoty_service.tenancy.auth import Scope
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, calls, cancelled
from tests.integration.billing.caller import BillingCaller
from tests.support.caller import Caller
from tests.support.service import format_amount, soon

SLOW = "@sandbox slow tokens=30 first_delay_ms=0 delay_ms=10 record_ms=-1"


@pytest.fixture
async def served(start_caller: StartCaller, start_harness: StartHarness) -> tuple[Caller, ReconcilerHarness]:
    """A caller of a server that neither reconciles nor rolls up by itself, and a harness beside it."""
    caller = await start_caller(reconcile_interval=NEVER, rollup_interval=NEVER)
    return caller, await start_harness(caller.service)


def order(call: ModelCall, amount: str, request_id: str = "r1", **changes: Any) -> AdjustmentOrder:
    """Return an order to add an amount to a call's cost."""
    asked = AdjustmentOrder(
        tenant_id=call.tenant_id,
        call_id=call.call_id,
        amount=Decimal(amount),
        is_new_cost=False,
        why="the invoice",
        by="ann",
        request_id=request_id,
    )
    return replace(asked, **changes)


def adjustments(caller: Caller) -> list[Adjustment]:
    """Return the tenant's adjustments by number."""
    query = {"tenant_id": caller.service.tenant_id, "kind": "adjustment"}
    found = caller.service.database["ledger"].find(query).sort("number", 1)
    return [entry for each in found if isinstance(entry := entry_from_document(each), Adjustment)]


async def settled(caller: Caller) -> ModelCall:
    """Run a turn of one call."""
    await caller.converse("hello")
    call = calls(caller)[-1]
    assert call.state is CallState.SETTLED
    return call


async def close(caller: Caller, served: ReconcilerHarness, state: CallState) -> ModelCall:
    """Close a call in a state without a cost."""
    entry = await cancelled(caller, SLOW)
    closed = replace(entry, state=state, settle_time=datetime.now(UTC))
    assert await served.ledger.close(closed)
    await served.totals_updater.refresh(entry.tenant_id, entry.session_uid)
    return closed


async def test_every_sum_follows_an_adjustment(
    served: tuple[Caller, ReconcilerHarness], issue: Callable[..., str]
) -> None:
    """Session totals, models, runs, usage and the export: up by an amount, then to a new total cost."""
    caller, harness = served
    call = await settled(caller)
    assert call.cost is not None
    tokens = (await caller.metrics()).totals.usage
    biller = BillingCaller(caller.service, caller.channel, issue(caller.service, scopes=frozenset({Scope.BILLING})))
    now = datetime.now(UTC)
    for amount, is_new_cost, cost in (
        ("0.001", False, call.cost + Decimal("0.001")),
        ("0.002", True, Decimal("0.002")),
    ):
        await harness.adjustments.adjust(order(call, amount, amount, is_new_cost=is_new_cost))

        metrics = await caller.metrics()
        assert metrics.totals.cost_usd == format_amount(cost)
        assert metrics.totals.usage == tokens
        assert [(each.model, each.totals.cost_usd) for each in metrics.by_model] == [(call.model, format_amount(cost))]
        assert [each.cost_usd for each in metrics.recent_runs] == [format_amount(cost)]
        answer = await biller.usage(now - timedelta(hours=1), now + timedelta(hours=1), "model")
        assert [row.totals for row in answer.rows] == [answer.totals] == [metrics.totals]
        assert await harness.differences() == []
    exported = [each.adjustment for each in await biller.all_entries() if each.HasField("adjustment")]
    assert [(each.call_id, each.by, each.why, each.request_id, each.resolves) for each in exported] == [
        (call.call_id, "ann", "the invoice", name, False) for name in ("0.001", "0.002")
    ]
    assert sum((Decimal(each.cost_usd) for each in exported), call.cost) == Decimal("0.002")
    assert calls(caller) == [call]
    turn = await caller.converse("and on")
    assert turn.calls[0].number == 4


async def test_usage_as_of_an_earlier_time_is_unchanged(
    served: tuple[Caller, ReconcilerHarness], issue: Callable[..., str]
) -> None:
    """GetUsage with an `as_of` before the adjustment is unchanged; the later amount is reported beside it."""
    caller, harness = served
    call = await settled(caller)
    biller = BillingCaller(caller.service, caller.channel, issue(caller.service, scopes=frozenset({Scope.BILLING})))
    start, end = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    before = await biller.usage(start, end, "model")

    await harness.adjustments.adjust(order(call, "0.005"))
    after = await biller.usage(start, end, "model")
    then = await biller.usage(start, end, "model", as_of=before.as_of)
    await harness.adjustments.adjust(order(call, "-0.001", "r2"))
    still = await biller.usage(start, end, "model", as_of=before.as_of)
    between = await biller.usage(start, end, "model", as_of=after.as_of)

    assert (then.totals, list(then.rows)) == (before.totals, list(before.rows))
    assert (still.totals, list(still.rows)) == (before.totals, list(before.rows))
    assert (then.adjusted_later_usd, still.adjusted_later_usd) == ("0.005", "0.004")
    assert between.totals == after.totals
    assert Decimal(after.totals.cost_usd) - Decimal(before.totals.cost_usd) == Decimal("0.005")
    assert (await biller.usage(start, end)).totals.cost_usd == (await caller.metrics()).totals.cost_usd


async def test_same_request_is_the_same_adjustment(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Repeated later, concurrently, and after other adjustments: one entry; with other content it is rejected."""
    caller, harness = served
    call = await settled(caller)
    asked = order(call, "0.005")

    made = await asyncio.gather(*(harness.adjustments.adjust(asked) for _ in range(4)))
    await harness.adjustments.adjust(order(call, "-0.005", "r2"))
    again = await harness.adjustments.adjust(asked)

    assert {each.entry_id for each in (*made, again)} == {asked.entry_id}
    assert [each.cost for each in adjustments(caller)] == [Decimal("0.005"), Decimal("-0.005")]
    others: list[dict[str, Any]] = [
        {"amount": Decimal("0.006")},
        {"is_new_cost": True},
        {"why": "another"},
        {"by": "bob"},
        {"call_id": "call_other"},
    ]
    for changes in others:
        with pytest.raises(RequestIdReused):
            await harness.adjustments.adjust(replace(asked, **changes))
    assert len(adjustments(caller)) == 2
    assert await harness.differences() == []


async def test_concurrent_new_costs_end_in_the_last_one(
    served: tuple[Caller, ReconcilerHarness], start_harness: StartHarness
) -> None:
    """Six on two servers, while a turn writes to the session: the call costs what its last adjustment states."""
    caller, harness = served
    other = await start_harness(caller.service)
    call = await settled(caller)
    orders = [order(call, f"0.00{number}", f"r{number}", is_new_cost=True) for number in range(1, 7)]

    await asyncio.gather(
        caller.converse("@sandbox tool-loop calls=3"),
        *((harness, other)[place % 2].adjustments.adjust(each) for place, each in enumerate(orders)),
    )

    made = adjustments(caller)
    assert len(made) == 6
    assert await harness.adjustments.total(call.tenant_id, call.call_id) == made[-1].new_cost
    expected = sum((each.cost or Decimal(0) for each in calls(caller)[1:]), made[-1].new_cost or Decimal(0))
    assert (await caller.metrics()).totals.cost_usd == format_amount(expected)
    assert await harness.differences() == []


async def test_amounts_out_of_bounds_are_rejected(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Below zero, above the bound without the flag, above a million or too fine: rejected, with the resulting total."""
    caller, harness = served
    call = await settled(caller)
    assert call.cost is not None
    assert call.upper_bound is not None
    above = format_amount(call.upper_bound + Decimal("0.001"))
    refused = [
        order(call, format_amount(-call.cost - Decimal("1E-25"))),
        order(call, above, is_new_cost=True),
        order(call, "1000000", above_bound=True),
        order(call, "0.00000000000000000000000001"),
        order(call, "-1", is_new_cost=True),
    ]

    for each in refused:
        with pytest.raises(AmountRefused):
            await harness.adjustments.adjust(each)
    assert adjustments(caller) == []
    await harness.adjustments.adjust(order(call, above, is_new_cost=True, above_bound=True))
    await harness.adjustments.adjust(order(call, "0", "r2", is_new_cost=True))

    assert (await caller.metrics()).totals.cost_usd == "0"
    assert await harness.differences() == []


async def test_only_final_calls_with_known_cost_are_adjusted(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Pending and unresolved calls are rejected, the latter with advice; void and resolved ones are adjusted."""
    caller, harness = served
    pending = await cancelled(caller, SLOW)
    unresolved = await close(caller, harness, CallState.UNRESOLVED)
    void = await close(caller, harness, CallState.VOID)

    with pytest.raises(CallNotAdjustable, match="pending"):
        await harness.adjustments.adjust(order(pending, "0.001"))
    with pytest.raises(CallNotAdjustable, match="godoty ledger resolve"):
        await harness.adjustments.adjust(order(unresolved, "0.001"))
    with pytest.raises(CallNotFound):
        await harness.adjustments.adjust(order(replace(void, tenant_id="tnt_other"), "0.001"))
    assert adjustments(caller) == []
    await harness.adjustments.resolve(unresolved, cost=Decimal("0.009"), why="a slip", by="ann")
    await harness.adjustments.adjust(order(unresolved, "0.0009", is_new_cost=True))
    await harness.adjustments.adjust(order(void, "0.0001", "r2"))

    totals = (await caller.metrics()).totals
    assert (totals.cost_usd, totals.pending_calls, totals.unresolved_calls) == ("0.001", 1, 0)
    assert totals.unresolved_bound_usd == "0"
    assert await harness.differences() == []


class InterruptedTotalsUpdater(SessionTotalsUpdater):
    """The updater of a server that dies between the ledger's insert and the update of the totals."""

    async def refresh(self, tenant_id: str, session_uid: str) -> None:
        """Stop here."""
        raise ConnectionError("a test ended the server")


async def test_sweep_applies_adjustment_of_a_dead_server(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Readers count the entry at once; a repeated request and a sweep change nothing more."""
    caller, harness = served
    call = await settled(caller)
    assert call.cost is not None
    dying = Adjustments(harness.ledger, InterruptedTotalsUpdater(harness.sessions, harness.ledger))
    with pytest.raises(ConnectionError):
        await dying.adjust(order(call, "0.005"))

    seen = (await caller.metrics()).totals.cost_usd
    assert seen == format_amount(call.cost + Decimal("0.005"))
    assert await harness.differences() == []
    await harness.adjustments.apply_pending()
    await harness.adjustments.adjust(order(call, "0.005"))

    session = caller.service.session("talk")
    assert session is not None
    assert (session["totals"]["last_number"], session["totals_stale"]) == (2, False)
    assert (await caller.metrics()).totals.cost_usd == seen
    assert await harness.differences() == []


async def test_running_server_applies_pending_adjustment(
    start_caller: StartCaller, start_harness: StartHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of an unapplied adjustment is gone within a sweep of any server."""
    monkeypatch.setattr(reconciler, "_SWEEP_INTERVAL", timedelta(seconds=0.2))
    caller = await start_caller(reconcile_interval=0.1)
    harness = await start_harness(caller.service)
    call = await settled(caller)
    dying = Adjustments(harness.ledger, InterruptedTotalsUpdater(harness.sessions, harness.ledger))
    with pytest.raises(ConnectionError):
        await dying.adjust(order(call, "0.005"))

    await soon(lambda: not caller.service.database["ledger"].find_one({"unapplied": True}))

    session = caller.service.session("talk")
    assert session is not None
    assert session["totals"]["last_number"] == 2
