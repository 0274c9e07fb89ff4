"""Unresolved calls whose cost becomes known: one new entry, and every sum is exact before and after."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import metering_pb2

from godoty_service.ledger.codec import entry_from_document
from godoty_service.ledger.entries import Adjustment, CostSource, ModelCall
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.ledger.states import CallState
from godoty_service.metering.adjustments import Adjustments, AlreadyResolved, NotUnresolved
from godoty_service.pricing.token_usage import TokenUsage
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, billed, calls, cancelled
from tests.support.caller import Caller, read
from tests.support.service import format_amount

NO_RECORD = "@sandbox slow tokens=30 first_delay_ms=0 delay_ms=10 record_ms=-1"


class InterruptedTotalsUpdater(SessionTotalsUpdater):
    """The updater of a server that dies between an entry's insert and the update of the totals."""

    async def refresh(self, tenant_id: str, session_uid: str) -> None:
        """Stop here."""


@pytest.fixture
async def served(start_caller: StartCaller, start_harness: StartHarness) -> tuple[Caller, ReconcilerHarness]:
    """A caller of a server that never reconciles, and a harness beside it that waits an hour."""
    caller = await start_caller(reconcile_interval=NEVER)
    return caller, await start_harness(caller.service)


async def unresolved(caller: Caller, served: ReconcilerHarness) -> ModelCall:
    """Cancel a call whose record never comes, and close it as unresolved."""
    entry = await cancelled(caller, NO_RECORD)
    served.ahead = timedelta(hours=2)
    await served.reconciler.tick()
    served.ahead = timedelta()
    (given_up,) = [each for each in calls(caller) if each.call_id == entry.call_id]
    assert given_up.state is CallState.UNRESOLVED
    return given_up


async def totals(caller: Caller) -> metering_pb2.Totals:
    """Return the session's totals, on which both RPCs agree."""
    metrics = await caller.metrics()
    session = (await caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))).session
    assert session.cost_usd == metrics.totals.cost_usd
    assert metrics.totals.cost_usd == format_amount(
        sum((Decimal(each.totals.cost_usd) for each in metrics.by_model), Decimal(0))
    )
    return metrics.totals


def adjustments(caller: Caller) -> list[Adjustment]:
    """Return the session's adjustments."""
    found = caller.service.database["ledger"].find({"tenant_id": caller.service.tenant_id, "kind": "adjustment"})
    return [entry for each in found if isinstance(entry := entry_from_document(each), Adjustment)]


async def test_resolved_call_changes_every_sum_by_exactly_its_cost(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Cost, tokens, open calls and bounds before and after; the call's entry is unchanged, the next turn goes on."""
    caller, harness = served
    await caller.converse("hello")
    call = await unresolved(caller, harness)
    other = await unresolved(caller, harness)
    before = await totals(caller)
    assert before.unresolved_calls == 2
    assert call.upper_bound is not None
    assert other.upper_bound is not None
    assert before.unresolved_bound_usd == format_amount(call.upper_bound + other.upper_bound)

    cost = billed(caller, call)
    usage = TokenUsage(input_tokens=100, output_tokens=20, total_tokens=120)
    written = await harness.adjustments.resolve(call, cost=cost, usage=usage, why="the invoice", by="ann")

    after = await totals(caller)
    assert Decimal(after.cost_usd) - Decimal(before.cost_usd) == cost > 0
    assert after.usage.total_tokens - before.usage.total_tokens == 120
    assert (after.unresolved_calls, after.pending_calls, after.model_calls) == (1, 0, 3)
    assert after.unresolved_bound_usd == format_amount(other.upper_bound)
    assert calls(caller)[1] == call
    assert adjustments(caller) == [written]
    assert (written.number, written.corrects, written.why, written.by) == (4, call.call_id, "the invoice", "ann")
    assert await harness.differences() == []
    turn = await caller.converse("and on")
    assert turn.started.totals == after
    assert turn.calls[0].number == 5


@pytest.mark.parametrize("more", [0, 30])
async def test_tokens_of_unresolved_call_count_once(served: tuple[Caller, ReconcilerHarness], more: int) -> None:
    """They are in the session's totals when it closes as unresolved; a resolution adds only the difference."""
    caller, harness = served
    await caller.converse("@sandbox no-cost record_ms=-1")
    caller.service.database["ledger"].update_one({}, {"$set": {"is_byok": True}})
    open_then = await totals(caller)
    harness.ahead = timedelta(hours=2)
    await harness.reconciler.tick()
    (call,) = calls(caller)
    assert (call.state, call.usage is not None) == (CallState.UNRESOLVED, True)
    unresolved_then = await totals(caller)
    known = call.usage or TokenUsage()
    stated = replace(known, output_tokens=(known.output_tokens or 0) + more, total_tokens=None)
    await harness.adjustments.resolve(call, cost=Decimal("0.001"), usage=stated, why="the invoice", by="ann")
    resolved_then = await totals(caller)

    assert not open_then.usage.HasField("total_tokens")
    assert unresolved_then.usage.total_tokens == known.total_tokens == resolved_then.usage.total_tokens
    assert resolved_then.usage.output_tokens - unresolved_then.usage.output_tokens == more
    assert resolved_then.usage.input_tokens == known.input_tokens
    assert await harness.differences() == []


async def test_call_is_resolved_once(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Of several concurrent resolutions one succeeds; a later one is rejected; no other changes a sum."""
    caller, harness = served
    call = await unresolved(caller, harness)

    outcomes = await asyncio.gather(
        *(harness.adjustments.resolve(call, cost=Decimal(n).scaleb(-3), why="at once", by=f"p{n}") for n in (1, 2, 3)),
        return_exceptions=True,
    )

    (written,) = [each for each in outcomes if isinstance(each, Adjustment)]
    assert sum(isinstance(each, AlreadyResolved) for each in outcomes) == 2
    with pytest.raises(AlreadyResolved):
        await harness.adjustments.resolve(call, cost=Decimal("0.009"), why="again", by="late")
    assert adjustments(caller) == [written]
    assert (await totals(caller)).cost_usd == format_amount(written.cost)
    assert await harness.differences() == []


async def test_only_unresolved_call_can_be_resolved(served: tuple[Caller, ReconcilerHarness]) -> None:
    """A settled and a pending call are rejected, and nothing is written."""
    caller, harness = served
    await caller.converse("hello")
    await cancelled(caller, NO_RECORD)
    settled, pending = calls(caller)

    for call in (settled, pending):
        with pytest.raises(NotUnresolved):
            await harness.adjustments.resolve(call, cost=Decimal(1), why="no", by="ann")

    assert adjustments(caller) == []


async def test_stream_that_outlives_its_entry_settles_late(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """Another server closed the call while its own server still streamed: the billed cost comes as one adjustment."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    call = caller.start("@sandbox plain tokens=30 hold_after=5 hold=outlived")
    async for response in call:
        if response.HasField("text_delta"):
            break
    (entry,) = calls(caller)
    assert await harness.ledger.close(replace(entry, state=CallState.UNRESOLVED, settle_time=entry.start_time))
    await harness.totals_updater.refresh(entry.tenant_id, entry.session_uid)
    seen = await totals(caller)
    assert (seen.unresolved_calls, seen.cost_usd) == (1, "0")

    caller.service.backends.allow("outlived")
    turn = await read(call)
    assert turn.failure is None

    (given_up,) = calls(caller)
    (late,) = adjustments(caller)
    (line,) = caller.service.invoice("talk")
    assert (given_up.state, given_up.cost) == (CallState.UNRESOLVED, None)
    assert (late.cost, late.corrects, late.number) == (line.cost, entry.call_id, 2)
    assert (late.why, late.by) == ("reported by its own stream", "godoty")
    after = await totals(caller)
    assert (after.cost_usd, after.unresolved_calls) == (format_amount(late.cost), 0)
    assert after.unresolved_bound_usd == "0"
    assert after.usage.output_tokens == 30
    assert await harness.differences() == []


async def test_late_settlement_happens_at_most_once(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Two concurrent ones are one adjustment; a call that is settled, or has no cost, gets none."""
    caller, harness = served
    await caller.converse("hello")
    call = await unresolved(caller, harness)
    (settled, _) = calls(caller)
    known = replace(call, state=CallState.SETTLED, cost=Decimal("0.25"), cost_source=CostSource.BILLED)

    await harness.adjustments.settle_late(replace(known, cost=None))
    await harness.adjustments.settle_late(replace(settled, cost=Decimal(7)))
    await harness.adjustments.settle_late(replace(known, call_id="call_unknown"))
    assert adjustments(caller) == []
    await asyncio.gather(*(harness.adjustments.settle_late(known) for _ in range(3)))

    assert [each.cost for each in adjustments(caller)] == [Decimal("0.25")]
    assert Decimal((await totals(caller)).cost_usd) == Decimal("0.25") + (settled.cost or 0)


async def test_readers_see_adjustment_before_totals_are_updated(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Its server died between the insert and the update: every reader counts it, and the next update includes it."""
    caller, harness = served
    call = await unresolved(caller, harness)
    halfway = Adjustments(harness.ledger, InterruptedTotalsUpdater(harness.sessions, harness.ledger))

    await halfway.resolve(call, cost=Decimal("0.005"), why="the invoice", by="ann")

    session = caller.service.session("talk")
    assert session is not None
    assert session["totals"]["last_number"] == 1
    seen = await totals(caller)
    assert (seen.cost_usd, seen.unresolved_calls, seen.unresolved_bound_usd) == ("0.005", 0, "0")
    assert await harness.differences() == []
    turn = await caller.converse("hello")
    assert turn.started.totals == seen
    assert (await totals(caller)).unresolved_calls == 0
    assert await harness.differences() == []


async def test_readers_see_settlement_before_totals_are_updated(served: tuple[Caller, ReconcilerHarness]) -> None:
    """The same for a pending call that is settled and not in the stored totals yet."""
    caller, harness = served
    entry = await cancelled(caller, NO_RECORD)
    cost = billed(caller, entry)

    settled = replace(entry, state=CallState.SETTLED, cost=cost, cost_source=CostSource.RECONCILED)
    assert await harness.ledger.close(settled)

    session = caller.service.session("talk")
    assert session is not None
    assert session["totals"]["open"] == [1]
    seen = await totals(caller)
    assert (seen.cost_usd, seen.pending_calls) == (format_amount(cost), 0)
    assert await harness.differences() == []


async def test_stale_mark_without_an_entry_changes_nothing(served: tuple[Caller, ReconcilerHarness]) -> None:
    """Its server died after it had marked the totals stale: the sums are unchanged, and the next turn clears it."""
    caller, harness = served
    await caller.converse("hello")
    before = await totals(caller)
    session = caller.service.session("talk")
    assert session is not None

    await harness.totals_updater.mark_stale(caller.service.tenant_id, session["_id"])

    assert await totals(caller) == before
    await caller.converse("and on")
    marked = caller.service.session("talk")
    assert marked is not None
    assert marked["totals_stale"] is False
    assert await harness.differences() == []


async def test_call_of_deleted_session_can_be_resolved(served: tuple[Caller, ReconcilerHarness]) -> None:
    """The entries outlive the session: the adjustment is one of them, and verification passes."""
    caller, harness = served
    call = await unresolved(caller, harness)
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))

    written = await harness.adjustments.resolve(call, cost=Decimal("0.00125"), why="the invoice", by="ann")

    assert adjustments(caller) == [written]
    assert await harness.differences() == []
