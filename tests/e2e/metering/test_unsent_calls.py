"""A call whose insert was abandoned was never sent: its entry is void, at any time that it is inserted."""

from dataclasses import replace
from datetime import timedelta

from godoty_service.clock import utc_now
from godoty_service.ids import new_id
from godoty_service.ledger.codec import entry_to_document
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, calls


async def abandon_insert(start_caller: StartCaller, start_harness: StartHarness) -> tuple[ReconcilerHarness, ModelCall]:
    """Return a harness that abandoned the insert of a session's second call, and that call."""
    caller = await start_caller(reconcile_interval=NEVER)
    await caller.converse("hello")
    harness = await start_harness(caller.service)
    (first,) = calls(caller)
    pending = replace(
        replace(first, call_id=new_id("call"), number=2, state=CallState.PENDING, owner=harness.owner),
        cost=None,
        cost_source=None,
        usage=None,
        generation_id=None,
        settle_time=None,
        finish_reason=None,
    )
    harness.ledger.retain(replace(pending, state=CallState.VOID, settle_time=utc_now(), error="storage_unavailable"))
    return harness, pending


async def test_entry_inserted_after_its_insert_was_abandoned_is_void(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """Reconciliation retains in memory that the call was never sent until the entry is there."""
    harness, pending = await abandon_insert(start_caller, start_harness)
    await harness.reconciler.tick()
    await harness.database.collection("ledger").insert_one(entry_to_document(pending))

    await harness.reconciler.tick()

    entry = await harness.ledger.find(pending.call_id)
    assert entry is not None
    assert (entry.state, entry.error) == (CallState.VOID, "storage_unavailable")
    assert harness.ledger.unwritten == []
    assert await harness.differences(pending.tenant_id) == []


async def test_abandoned_insert_is_discarded_after_ten_minutes(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """An entry that is never inserted does not stay in memory."""
    harness, pending = await abandon_insert(start_caller, start_harness)
    harness.ahead = timedelta(minutes=9)
    await harness.reconciler.tick()
    assert [each.call_id for each in harness.ledger.unwritten] == [pending.call_id]

    harness.ahead = timedelta(minutes=11)
    await harness.reconciler.tick()

    assert harness.ledger.unwritten == []
