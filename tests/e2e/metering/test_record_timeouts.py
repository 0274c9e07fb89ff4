"""How long to wait for a record: from when the call was deferred, independent of how long it streamed before."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from tests.conftest import StartProcess
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, billed, calls, cancelled
from tests.support.caller import Caller, read
from tests.support.leases import SHORT_LEASE, SHORT_LEASE_ENVIRONMENT
from tests.support.service import Service, soon

LONG = timedelta(minutes=61)
CANCELLED = "@sandbox slow first_delay_ms=0 delay_ms=10"


def start_earlier(service: Service, by: timedelta) -> None:
    """Move the starts of the session's calls back."""
    ledger = service.database["ledger"]
    for document in service.entry_documents("talk"):
        ledger.update_one({"_id": document["_id"]}, {"$set": {"start_time": document["start_time"] - by}})


async def until_settled(harness: ReconcilerHarness) -> None:
    """Reconcile until a call is settled; none may be unresolved before."""
    async with asyncio.timeout(60):
        while not (found := await harness.reconciler.tick())[Outcome.SETTLED]:
            assert not found[Outcome.UNRESOLVED]
            await asyncio.sleep(0.1)


async def test_cancelled_long_stream_waits_for_its_record(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """It ran for 61 minutes and its record is on its way: it stays pending, and is settled by the record."""
    caller = await start_caller(reconcile_interval=NEVER)
    await cancelled(caller, f"{CANCELLED} record_ms=5000")
    start_earlier(caller.service, LONG)
    harness = await start_harness(caller.service)

    assert (await harness.reconciler.tick())[Outcome.POSTPONED] == 1
    await until_settled(harness)

    (entry,) = calls(caller)
    assert (entry.cost, entry.cost_source) == (billed(caller, entry), CostSource.RECONCILED)


async def test_long_answer_without_cost_waits_for_its_record(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """It ran for three minutes: the catalogue does not price it before its record has had its two."""
    caller = await start_caller(reconcile_interval=NEVER)
    await caller.converse("@sandbox no-cost fee=0.002 record_ms=5000")
    start_earlier(caller.service, timedelta(minutes=3))
    harness = await start_harness(caller.service)

    assert (await harness.reconciler.tick())[Outcome.POSTPONED] == 1
    await until_settled(harness)

    (entry,) = calls(caller)
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
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT, GODOTY_RECONCILE_INTERVAL=str(NEVER))
    caller = connect(service)
    call = caller.start(f"{CANCELLED} tokens=400 hold_after=10 record_ms=-1")
    await soon(lambda: any(each.generation_id for each in service.entries("talk")))
    await process.kill()
    await read(call)
    start_earlier(service, LONG)
    harness = await start_harness(service, **SHORT_LEASE)

    found = dict.fromkeys(Outcome, 0)
    async with asyncio.timeout(60):
        while not any(found.values()):
            await asyncio.sleep(0.1)
            found = await harness.reconciler.tick()
    assert found[Outcome.POSTPONED] == 1
    harness.ahead = LONG
    assert (await harness.reconciler.tick())[Outcome.UNRESOLVED] == 1


@pytest.mark.parametrize(
    ("byok", "state"), [(True, CallState.UNRESOLVED), (False, CallState.SETTLED), (None, CallState.SETTLED)]
)
async def test_byok_call_without_cost_is_unresolved(
    start_caller: StartCaller, start_harness: StartHarness, *, byok: bool | None, state: CallState
) -> None:
    """With a provider key of one's own the account pays nothing or an unlisted fee: the bound counts."""
    caller = await start_caller(reconcile_interval=NEVER)
    await caller.converse("@sandbox no-cost record_ms=-1")
    caller.service.database["ledger"].update_one({}, {"$set": {"is_byok": byok}} if byok is not None else {"$set": {}})
    harness = await start_harness(caller.service)
    harness.ahead = LONG if byok else timedelta(minutes=3)

    await harness.reconciler.tick()

    (entry,) = calls(caller)
    assert (entry.state, entry.is_byok) == (state, byok)
    assert (entry.cost is None) is (state is CallState.UNRESOLVED)
    assert entry.upper_bound is not None
    assert entry.usage is not None
