"""How long to wait for a record: from when the call was deferred, independent of how long it streamed before."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from tests.conftest import StartProcess
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, billed, calls, cancelled, serve_record
from tests.support.caller import Caller, read
from tests.support.leases import LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.service import PATIENCE, Service
from tests.support.waiting import identified

LONG = timedelta(minutes=61)
CANCELLED = "@sandbox slow first_delay_ms=0 delay_ms=10"


def start_earlier(service: Service, by: timedelta) -> None:
    """Move the starts of the session's calls back."""
    ledger = service.database["ledger"]
    for document in service.entry_documents("talk"):
        ledger.update_one({"_id": document["_id"]}, {"$set": {"start_time": document["start_time"] - by}})


async def settled_by_record(caller: Caller, harness: ReconcilerHarness) -> ModelCall:
    """Reconcile before the provider has the record of the session's call, and after it has; return the entry."""
    assert await harness.reconciler.tick() == {Outcome.SETTLED: 0, Outcome.UNRESOLVED: 0, Outcome.POSTPONED: 1}
    await serve_record(caller, calls(caller)[0])
    harness.ahead = timedelta(seconds=1)
    assert await harness.reconciler.tick() == {Outcome.SETTLED: 1, Outcome.UNRESOLVED: 0, Outcome.POSTPONED: 0}
    (entry,) = calls(caller)
    return entry


async def test_cancelled_long_stream_waits_for_its_record(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """It ran for 61 minutes and its record is on its way: it stays pending, and is settled by the record."""
    caller = await start_caller(reconcile_interval=NEVER)
    await cancelled(caller, f"{CANCELLED} record_ms=-1")
    start_earlier(caller.service, LONG)

    entry = await settled_by_record(caller, await start_harness(caller.service))
    assert (entry.cost, entry.cost_source) == (billed(caller, entry), CostSource.RECONCILED)


async def test_long_answer_without_cost_waits_for_its_record(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """It ran for three minutes: the catalogue does not price it before its record has had its two."""
    caller = await start_caller(reconcile_interval=NEVER)
    await caller.converse("@sandbox no-cost fee=0.002 record_ms=-1")
    start_earlier(caller.service, timedelta(minutes=3))

    entry = await settled_by_record(caller, await start_harness(caller.service))
    assert (entry.cost, entry.cost_source) == (billed(caller, entry), CostSource.RECONCILED)


async def test_long_stream_of_another_key_waits_for_that_key(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """A server without the key closes it as unresolved an hour after it was deferred, and not before."""
    caller = await start_caller(reconcile_interval=NEVER, OPENROUTER_API_KEY="sandbox-one")
    await cancelled(caller, f"{CANCELLED} record_ms=-1")
    start_earlier(caller.service, LONG)
    with_other_key = await start_harness(caller.service, OPENROUTER_API_KEY="sandbox-two")

    assert await with_other_key.reconciler.tick() == dict.fromkeys(Outcome, 0)
    with_other_key.ahead = LONG
    assert (await with_other_key.reconciler.tick())[Outcome.UNRESOLVED] == 1


async def test_long_stream_of_dead_server_waits_for_its_record(
    serve_process: StartProcess, start_harness: StartHarness, connect: Callable[[Service], Caller]
) -> None:
    """The hour begins when its server is found dead."""
    process, service = await serve_process(**LONG_LEASE_ENVIRONMENT, GODOTY_RECONCILE_INTERVAL=str(NEVER))
    caller = connect(service)
    call = caller.start(f"{CANCELLED} tokens=400 hold_after=10 record_ms=-1")
    await identified(service)
    await process.kill()
    await read(call)
    start_earlier(service, LONG)
    end_leases(service.database, process.replica_id)
    harness = await start_harness(service)

    found = dict.fromkeys(Outcome, 0)
    async with asyncio.timeout(PATIENCE):
        while not any(found.values()):
            await asyncio.sleep(0.1)
            found = await harness.reconciler.tick()
    assert found[Outcome.POSTPONED] == 1
    harness.ahead = LONG
    assert (await harness.reconciler.tick())[Outcome.UNRESOLVED] == 1


async def test_byok_call_without_cost_is_unresolved(
    start_caller: StartCaller, start_harness: StartHarness, connect: Callable[[Service], Caller]
) -> None:
    """With a provider key of one's own the account pays nothing or an unlisted fee: the bound counts."""
    first = await start_caller(reconcile_interval=NEVER)
    callers: dict[bool | None, Caller] = {}
    for byok in (True, False, None):
        caller = callers[byok] = connect(first.service.another_tenant())
        await caller.converse("@sandbox no-cost record_ms=-1")
        if byok is not None:
            own = {"tenant_id": caller.service.tenant_id}
            caller.service.database["ledger"].update_one(own, {"$set": {"is_byok": byok}})
    harness = await start_harness(first.service)
    harness.ahead = timedelta(minutes=3)
    priced = await harness.reconciler.tick()
    harness.ahead = LONG
    given_up = await harness.reconciler.tick()

    assert priced == {Outcome.SETTLED: 2, Outcome.UNRESOLVED: 0, Outcome.POSTPONED: 1}
    assert given_up == {Outcome.SETTLED: 0, Outcome.UNRESOLVED: 1, Outcome.POSTPONED: 0}
    for byok, caller in callers.items():
        (entry,) = calls(caller)
        assert (entry.state, entry.is_byok) == (CallState.UNRESOLVED if byok else CallState.SETTLED, byok)
        assert (entry.cost is None) is bool(byok)
        assert entry.upper_bound is not None
        assert entry.usage is not None
