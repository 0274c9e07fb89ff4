"""Several servers, one ledger: each call is settled by one of them, once, and by none before its time."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from godoty_service.metering.settlement import RecordTimeouts
from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import StartProcess
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, billed, cancelled, last_call_after_turn
from tests.support.caller import Caller, read
from tests.support.leases import LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.service import PATIENCE, Service, format_amount, soon
from tests.support.waiting import identified

CANCELLED = "@sandbox slow first_delay_ms=0 delay_ms=10 record_ms=0"


async def test_two_concurrent_reconcilers_settle_each_call_once(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """Each of eight open calls is closed by one of the two, and counted once in the session's totals."""
    caller = await start_caller(reconcile_interval=NEVER)
    for _ in range(8):
        await cancelled(caller, CANCELLED)
    one, other = await start_harness(caller.service), await start_harness(caller.service)

    outcomes = await asyncio.gather(*(each.reconciler.tick() for each in (one, other, one, other)))

    assert sum(each[Outcome.SETTLED] for each in outcomes) == 8
    closed = [call.call_id for call in (*one.closed, *other.closed)]
    entries = caller.service.entries("talk")
    assert sorted(closed) == sorted(entry.call_id for entry in entries)
    assert [entry.cost for entry in entries] == [billed(caller, entry) for entry in entries]
    totals = (await caller.metrics()).totals
    assert (totals.cost_usd, totals.model_calls) == (format_amount(caller.service.invoiced("talk")), 8)
    assert (totals.pending_calls, totals.unresolved_calls) == (0, 0)


async def test_call_that_closed_meanwhile_is_not_closed_again(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """A slow reconciler finds the call settled: its write changes nothing."""
    caller = await start_caller(reconcile_interval=NEVER)
    entry = await cancelled(caller, CANCELLED)
    one = await start_harness(caller.service)
    await one.reconciler.tick()
    settled = caller.service.entries("talk")

    assert not await one.ledger.close(entry)
    assert not await one.ledger.defer(entry)

    assert caller.service.entries("talk") == settled
    assert [call.call_id for call in one.closed] == [entry.call_id]


async def test_calls_of_a_killed_server_are_reconciled(
    serve_process: StartProcess, start_harness: StartHarness, connect: Callable[[Service], Caller]
) -> None:
    """With a fresh heartbeat no server reconciles the call; with a stale one any server settles it, to the digit."""
    process, service = await serve_process(**LONG_LEASE_ENVIRONMENT, GODOTY_RECONCILE_INTERVAL=str(NEVER))
    caller = connect(service)
    call = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 hold_after=10 record_ms=0")
    await _first_text(call)
    await identified(service)
    await process.kill()
    await read(call)
    harness = await start_harness(service)

    assert await harness.reconciler.tick() == dict.fromkeys(Outcome, 0)
    (pending,) = service.entries("talk")
    assert (pending.state, pending.generation_id is not None) == (CallState.PENDING, True)
    end_leases(service.database, process.replica_id)
    await _tick_until_closed(harness)

    (entry,) = service.entries("talk")
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert entry.cost == billed(caller, entry)
    assert entry.cost


async def test_calls_of_a_live_server_are_not_reconciled(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """During a turn's stream its own reconciler and others tick, and the turn settles its call itself."""
    caller = await start_caller(reconcile_interval=0.05)
    harness = await start_harness(caller.service)
    call = caller.start("@sandbox plain tokens=9 hold_after=3 hold=live record_ms=0")
    await _first_text(call)
    for number in range(3):
        await _own_tick(caller, f"tick-{number}")

    assert await harness.reconciler.tick() == dict.fromkeys(Outcome, 0)
    (document,) = caller.service.entry_documents("talk")
    assert (document["state"], document.get("due")) == ("pending", None)
    caller.service.backends.allow("live")
    turn = await read(call)

    assert turn.finished.turn_totals.pending_calls == 0
    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)
    assert harness.closed == []


async def test_call_of_another_key_waits_for_that_key(start_caller: StartCaller, start_harness: StartHarness) -> None:
    """Only the key that made it can read its record; without that key it is unresolved after the timeout."""
    caller = await start_caller(reconcile_interval=NEVER, OPENROUTER_API_KEY="sandbox-one")
    first = await cancelled(caller, CANCELLED)
    with_other_key = await start_harness(caller.service, OPENROUTER_API_KEY="sandbox-two")
    owner = await start_harness(caller.service, OPENROUTER_API_KEY="sandbox-one")

    assert await with_other_key.reconciler.tick() == dict.fromkeys(Outcome, 0)
    assert caller.service.entries("talk")[0] == first
    assert (await owner.reconciler.tick())[Outcome.SETTLED] == 1
    second = await cancelled(caller, CANCELLED)
    with_other_key.ahead = timedelta(hours=1)
    assert (await with_other_key.reconciler.tick())[Outcome.UNRESOLVED] == 1

    settled, given_up = caller.service.entries("talk")
    assert (settled.cost, settled.cost_source) == (billed(caller, first), CostSource.RECONCILED)
    assert (given_up.call_id, given_up.state, given_up.cost) == (second.call_id, CallState.UNRESOLVED, None)
    assert given_up.upper_bound is not None
    assert given_up.upper_bound > billed(caller, second)


async def test_unreachable_provider_postpones_calls(start_caller: StartCaller, start_harness: StartHarness) -> None:
    """For hours the provider does not answer: the call stays pending, and settles when it is back."""
    caller = await start_caller(reconcile_interval=NEVER)
    entry = await cancelled(caller, CANCELLED)
    lost = await start_harness(caller.service, openrouter_base_url=f"http://127.0.0.1:{free_port()}/api/v1")
    found = await start_harness(caller.service)

    for hours in (0, 2, 20):
        lost.ahead = timedelta(hours=hours)
        assert (await lost.reconciler.tick())[Outcome.POSTPONED] == 1
        assert caller.service.entries("talk")[0] == entry
    found.ahead = timedelta(hours=21)
    assert (await found.reconciler.tick())[Outcome.SETTLED] == 1

    (settled,) = caller.service.entries("talk")
    assert (settled.cost, settled.cost_source) == (billed(caller, settled), CostSource.RECONCILED)


async def test_call_of_an_unreachable_provider_is_unresolved_after_a_day(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """After a day without an answer the call is unresolved with its bound."""
    caller = await start_caller(reconcile_interval=NEVER)
    await cancelled(caller, CANCELLED)
    lost = await start_harness(caller.service, openrouter_base_url=f"http://127.0.0.1:{free_port()}/api/v1")

    lost.ahead = timedelta(hours=25)
    assert (await lost.reconciler.tick())[Outcome.UNRESOLVED] == 1

    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.cost) == (CallState.UNRESOLVED, None)
    assert (await caller.metrics()).totals.unresolved_bound_usd == format_amount(entry.upper_bound or Decimal(0))


async def test_tries_for_a_record_become_rarer(start_caller: StartCaller, start_harness: StartHarness) -> None:
    """The first tries are a quarter of a second apart, later ones up to a minute."""
    caller = await start_caller(reconcile_interval=NEVER)
    await cancelled(caller, CANCELLED.replace("record_ms=0", "record_ms=-1"))
    harness = await start_harness(caller.service, timeouts=RecordTimeouts(without_usage=timedelta(hours=9)))
    stopped = await harness.stop_clock()

    waits: list[float] = []  # seconds from a try to the next
    for _ in range(20):
        assert (await harness.reconciler.tick())[Outcome.POSTPONED] == 1
        wait = caller.service.entry_documents("talk")[0]["due"] - (stopped + harness.ahead)
        waits.append(wait.total_seconds())
        harness.ahead += wait

    assert (waits[0], waits[-1]) == (0.25, 60)
    assert waits == sorted(waits)
    assert sum(waits) < 60 * len(waits) / 2


async def test_claim_of_a_dead_reconciler_expires(start_caller: StartCaller, start_harness: StartHarness) -> None:
    """A claim lasts for half a minute; then any server may claim the call."""
    caller = await start_caller(reconcile_interval=NEVER)
    await cancelled(caller, CANCELLED)
    dying, other = await start_harness(caller.service), await start_harness(caller.service)
    key = caller.service.entries("talk")[0].provider_key_id

    taken = await dying.ledger.claim_due(
        due_by=dying._now(),
        claimed_until=dying._now() + timedelta(seconds=30),
        provider_key_ids=[key],
        any_before=dying._now() - timedelta(hours=1),
    )
    assert taken is not None
    assert await other.reconciler.tick() == dict.fromkeys(Outcome, 0)
    other.ahead = timedelta(seconds=31)

    assert (await other.reconciler.tick())[Outcome.SETTLED] == 1


async def test_call_that_was_never_sent_stays_void(start_caller: StartCaller) -> None:
    """The provider refuses connections: the entries are void, cost nothing, and no record is requested."""
    caller = await start_caller(reconcile_interval=NEVER, openrouter_base_url=f"http://127.0.0.1:{free_port()}/api/v1")

    turn = await caller.converse("hello", timeout=60)
    assert turn.failure is not None
    await last_call_after_turn(caller)

    entries = caller.service.entries("talk")
    assert [(each.state, each.cost) for each in entries] == [(CallState.VOID, None)] * 3
    totals = (await caller.metrics()).totals
    assert (totals.model_calls, totals.pending_calls, totals.cost_usd, totals.turns) == (0, 0, "0", 0)


async def _first_text(call: Any) -> None:
    async for response in call:
        if response.HasField("text_delta"):
            return


async def _own_tick(caller: Caller, session_id: str) -> None:
    """Wait for a tick of the server's own reconciler, which settles a call that was cancelled for it."""
    call = caller.start(f"{CANCELLED} hold_after=10", session_id=session_id)
    await _first_text(call)
    call.cancel()
    await soon(lambda: caller.service.entries(session_id)[0].state is CallState.SETTLED)


async def _tick_until_closed(harness: ReconcilerHarness) -> None:
    async with asyncio.timeout(PATIENCE):
        while not harness.closed:
            await harness.reconciler.tick()
            await asyncio.sleep(0.1)
