"""A call whose insert was given up was never sent: its entry is void, however late it lands."""

from dataclasses import replace
from datetime import timedelta

from godoty_service.clock import utc_now
from godoty_service.ids import new_id
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.documents import entry_to_document
from tests.metering.bookkeeper import Bookkeeper, calls
from tests.metering.conftest import NEVER, Bookkeep, Serve


async def given_up(calling: Serve, bookkeep: Bookkeep) -> tuple[Bookkeeper, ModelCall]:
    """Return a bookkeeper that has given up the insert of a session's second call, and that call."""
    caller = await calling(reconcile_interval=NEVER)
    await caller.converse("hello")
    keeper = await bookkeep(caller.service)
    (first,) = calls(caller)
    pending = replace(
        replace(first, call_id=new_id("call"), number=2, state=CallState.PENDING, owner=keeper.owner),
        cost=None,
        cost_source=None,
        usage=None,
        generation_id=None,
        settle_time=None,
        finish_reason=None,
    )
    keeper.ledger.keep(replace(pending, state=CallState.VOID, settle_time=utc_now(), error="storage_unavailable"))
    return keeper, pending


async def test_entry_that_lands_after_its_insert_was_given_up_is_void(calling: Serve, bookkeep: Bookkeep) -> None:
    """Reconciliation keeps in memory that the call was never sent until the entry is there."""
    keeper, pending = await given_up(calling, bookkeep)
    await keeper.reconciler.tick()
    await keeper.database.collection("ledger").insert_one(entry_to_document(pending))

    await keeper.reconciler.tick()

    entry = await keeper.ledger.find(pending.call_id)
    assert entry is not None
    assert (entry.state, entry.error) == (CallState.VOID, "storage_unavailable")
    assert keeper.ledger.kept == []
    assert await keeper.differences(pending.tenant_id) == []


async def test_insert_that_was_given_up_is_forgotten_after_ten_minutes(calling: Serve, bookkeep: Bookkeep) -> None:
    """An entry that never lands does not stay in memory."""
    keeper, pending = await given_up(calling, bookkeep)
    keeper.ahead = timedelta(minutes=9)
    await keeper.reconciler.tick()
    assert [each.call_id for each in keeper.ledger.kept] == [pending.call_id]

    keeper.ahead = timedelta(minutes=11)
    await keeper.reconciler.tick()

    assert keeper.ledger.kept == []
