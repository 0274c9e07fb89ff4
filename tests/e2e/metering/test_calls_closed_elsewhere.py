"""A call that another server closed as unresolved is resolved with what its own server knows of it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from godoty_service.pricing.token_usage import TokenUsage
from tests.e2e.metering.conftest import StartHarness
from tests.e2e.metering.failing_server import (
    DOUBTFUL,
    REFUSED,
    FailingServer,
    assert_unavailable,
)
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, calls
from tests.support.caller import Caller
from tests.support.service import PATIENCE, soon


async def close_elsewhere(caller: Caller, other: ReconcilerHarness) -> ModelCall:
    """Close the session's call as unresolved on another server; return its entry."""
    await other.ledger.defer_orphans([calls(caller)[0].owner])
    await other.reconciler.tick()
    await soon(lambda: calls(caller)[0].state is CallState.UNRESOLVED)  # a server that reconciles may be faster
    (entry,) = calls(caller)
    return entry


async def resolution(other: ReconcilerHarness) -> Adjustment:
    """Return the one adjustment, once it is there."""
    async with asyncio.timeout(PATIENCE):
        while not (made := [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)]):
            await asyncio.sleep(0.05)
    (adjustment,) = made
    assert (adjustment.resolves, adjustment.by) == (True, "godoty")
    assert await other.differences() == []
    return adjustment


async def lose_closing_write(
    server: FailingServer, start_harness: StartHarness, *, record_ms: int
) -> tuple[ReconcilerHarness, ModelCall]:
    """Run a turn whose call cannot be closed, and close the call as unresolved on another server.

    Args:
        server: The server of the turn; it retains the call in memory.
        start_harness: Starts the other server.
        record_ms: When the provider has the call's record; -1: never.

    Returns:
        The other server, and the call's entry.
    """
    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await server.caller.converse(f"@sandbox no-cost record_ms={record_ms}"))
    other = await start_harness(server.caller.service)
    return other, await close_elsewhere(server.caller, other)


async def test_unsent_call_that_another_server_closed_is_resolved_at_zero(
    idle_server: FailingServer, start_harness: StartHarness
) -> None:
    """Another server closes the inserted entry as unresolved; the server that never sent it then resolves it at 0."""
    caller = idle_server.caller
    with idle_server.failing("insert", "ledger", DOUBTFUL):
        assert_unavailable(await caller.converse("hello"))
    (entry,) = await soon(lambda: calls(caller))  # a majority has the uncertain insert a moment later
    other = await start_harness(caller.service)
    await other.ledger.defer_orphans([entry.owner])
    assert (await other.reconciler.tick())[Outcome.UNRESOLVED] == 1
    assert [each.state for each in calls(caller)] == [CallState.UNRESOLVED]

    await idle_server.stop()  # at shutdown it writes the retained calls

    (adjustment,) = [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)]
    assert (adjustment.corrects, adjustment.resolves, adjustment.cost) == (entry.call_id, True, Decimal(0))
    assert (adjustment.by, adjustment.why) == ("godoty", "provably never sent")
    assert await other.differences() == []
    assert caller.service.requests("talk") == []


async def test_generation_id_in_memory_resolves_call_closed_elsewhere(
    idle_server: FailingServer, start_harness: StartHarness
) -> None:
    """One server has the id in memory, another closes the call as unresolved: the first one reads the record."""
    caller = idle_server.caller
    other, entry = await lose_closing_write(idle_server, start_harness, record_ms=0)
    assert entry.generation_id is None

    await idle_server.stop()  # at shutdown it writes the retained calls

    adjustment = await resolution(other)
    assert adjustment.corrects == entry.call_id
    assert adjustment.cost == caller.service.invoiced("talk") > 0
    assert adjustment.why == "reconciled"


async def test_call_deferred_after_another_server_closed_it_is_resolved(
    server: FailingServer, start_harness: StartHarness
) -> None:
    """A streaming call is closed by another server and then cancelled: its own server reads the record."""
    caller = server.caller
    call = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 hold_after=10 record_ms=0")
    async for response in call:
        if response.HasField("text_delta"):
            break
    other = await start_harness(caller.service)
    await soon(lambda: calls(caller)[0].generation_id)  # it is written beside the stream
    caller.service.database["ledger"].update_one({}, {"$unset": {"generation_id": ""}})
    entry = await close_elsewhere(caller, other)

    call.cancel()

    adjustment = await resolution(other)
    assert adjustment.corrects == entry.call_id
    assert adjustment.cost == caller.service.invoiced("talk") > 0


async def test_usage_in_memory_prices_call_closed_elsewhere(
    idle_server: FailingServer, start_harness: StartHarness
) -> None:
    """The answer reported its usage, no cost and no id: the call that another server closed is priced."""
    other, entry = await lose_closing_write(idle_server, start_harness, record_ms=-1)
    usage = TokenUsage(input_tokens=1000, output_tokens=10)
    other.ledger.retain(replace(entry, state=CallState.PENDING, settle_time=None, usage=usage, finish_reason="stop"))

    await other.reconciler.tick()

    adjustment = await resolution(other)
    assert (adjustment.why, adjustment.usage) == ("priced by the catalogue", usage)
    assert adjustment.cost > 0
    assert other.ledger.unwritten == []


async def test_record_of_call_closed_elsewhere_is_awaited(
    idle_server: FailingServer, start_harness: StartHarness
) -> None:
    """It is requested again while it may come, and no longer: the number of tries is bounded."""
    other, entry = await lose_closing_write(idle_server, start_harness, record_ms=-1)
    asked = []

    async def read(_: str, generation_id: str) -> bytes | None:
        asked.append(generation_id)
        return None

    other.read_generation = read
    await other.stop_clock()
    other.ledger.retain(replace(entry, state=CallState.PENDING, settle_time=None, generation_id="gen-1"))
    for minutes in (0, 1, 1, 30, 59, 61, 90):
        other.ahead = timedelta(minutes=minutes)
        await other.reconciler.tick()

    assert asked == ["gen-1"] * 5  # not twice at one time, and not after an hour is over
    assert [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)] == []
    assert await other.differences() == []
