"""How long a record is waited for: from when the call was left, however long it had streamed before."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from godoty_service.metering.call import CallState, CostSource
from godoty_service.metering.reconciler import Outcome
from tests.conftest import StartProcess
from tests.metering.bookkeeper import billed, calls, cancelled, eventually
from tests.metering.conftest import NEVER, Bookkeep, Serve
from tests.service.caller import Caller, read
from tests.service.leases import SHORT_LEASE, SHORT_LEASE_ENVIRONMENT
from tests.service.service import Service

LONG = timedelta(minutes=61)
CANCELLED = "@sandbox slow first_delay_ms=0 delay_ms=10"


def begun_earlier(service: Service, by: timedelta) -> None:
    """Let the session's calls have begun so much earlier than they did."""
    ledger = service.database["ledger"]
    for document in service.entry_documents("talk"):
        ledger.update_one({"_id": document["_id"]}, {"$set": {"start_time": document["start_time"] - by}})


async def test_a_long_stream_that_is_cancelled_waits_for_its_record(calling: Serve, bookkeep: Bookkeep) -> None:
    """It ran for 61 minutes and its record is on its way: it stays pending, and is settled by the record."""
    caller = await calling(reconcile_interval=NEVER)
    await cancelled(caller, f"{CANCELLED} record_ms=1500")
    begun_earlier(caller.service, LONG)
    keeper = await bookkeep(caller.service)

    assert (await keeper.reconciler.tick())[Outcome.POSTPONED] == 1
    await asyncio.sleep(1.5)
    assert (await keeper.reconciler.tick())[Outcome.SETTLED] == 1

    (entry,) = calls(caller)
    assert (entry.cost, entry.cost_source) == (billed(caller, entry), CostSource.RECONCILED)


async def test_a_long_answer_without_cost_waits_for_its_record(calling: Serve, bookkeep: Bookkeep) -> None:
    """It ran for three minutes: the catalogue does not price it before its record has had its two."""
    caller = await calling(reconcile_interval=NEVER)
    await caller.converse("@sandbox no-cost fee=0.002 record_ms=1500")
    begun_earlier(caller.service, timedelta(minutes=3))
    keeper = await bookkeep(caller.service)

    assert (await keeper.reconciler.tick())[Outcome.POSTPONED] == 1
    await asyncio.sleep(1.5)
    assert (await keeper.reconciler.tick())[Outcome.SETTLED] == 1

    (entry,) = calls(caller)
    assert (entry.cost, entry.cost_source) == (billed(caller, entry), CostSource.RECONCILED)


async def test_a_long_stream_of_another_provider_key_is_left_to_whoever_has_it(
    calling: Serve, bookkeep: Bookkeep
) -> None:
    """Who cannot read its record gives it up an hour after it was left, and not before."""
    caller = await calling(reconcile_interval=NEVER, OPENROUTER_API_KEY="sandbox-one")
    await cancelled(caller, f"{CANCELLED} record_ms=-1")
    begun_earlier(caller.service, LONG)
    stranger = await bookkeep(caller.service, OPENROUTER_API_KEY="sandbox-two")

    assert await stranger.reconciler.tick() == dict.fromkeys(Outcome, 0)
    stranger.ahead = LONG
    assert (await stranger.reconciler.tick())[Outcome.UNRESOLVED] == 1


async def test_a_long_stream_whose_server_died_waits_for_its_record(
    serve_process: StartProcess, bookkeep: Bookkeep, connect: Callable[[Service], Caller]
) -> None:
    """The hour begins when somebody finds the server dead."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT, GODOTY_RECONCILE_INTERVAL=str(NEVER))
    caller = connect(service)
    call = caller.start(f"{CANCELLED} tokens=400 record_ms=-1")
    await eventually(lambda: any(each.generation_id for each in service.entries("talk")))
    await process.kill()
    await read(call)
    begun_earlier(service, LONG)
    keeper = await bookkeep(service, **SHORT_LEASE)

    found = dict.fromkeys(Outcome, 0)
    async with asyncio.timeout(10):
        while not any(found.values()):
            await asyncio.sleep(0.1)
            found = await keeper.reconciler.tick()
    assert found[Outcome.POSTPONED] == 1
    keeper.ahead = LONG
    assert (await keeper.reconciler.tick())[Outcome.UNRESOLVED] == 1


@pytest.mark.parametrize(
    ("told", "state"), [(True, CallState.UNRESOLVED), (False, CallState.SETTLED), (None, CallState.SETTLED)]
)
async def test_under_byok_no_list_tells_the_charge(
    calling: Serve, bookkeep: Bookkeep, *, told: bool | None, state: CallState
) -> None:
    """With a provider key of one's own the account pays nothing or a fee: without a word of it, its bound must do."""
    caller = await calling(reconcile_interval=NEVER)
    await caller.converse("@sandbox no-cost record_ms=-1")
    caller.service.database["ledger"].update_one({}, {"$set": {"is_byok": told}} if told is not None else {"$set": {}})
    keeper = await bookkeep(caller.service)
    keeper.ahead = LONG if told else timedelta(minutes=3)

    await keeper.reconciler.tick()

    (entry,) = calls(caller)
    assert (entry.state, entry.is_byok) == (state, told)
    assert (entry.cost is None) is (state is CallState.UNRESOLVED)
    assert entry.upper_bound is not None
    assert entry.usage is not None
