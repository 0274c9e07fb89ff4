"""The database rejects writes: no request without an entry is sent, and known data of a call is written later."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest

from godoty_service.bootstrap import open_components
from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.entries import Adjustment, CostSource, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from godoty_service.mongo.client import open_database
from godoty_service.mongo.collection import Index
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.server import running
from tests.e2e.metering.conftest import NEVER, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, billed, calls, closed, last_call_after_turn
from tests.support.caller import Caller, Turn, read
from tests.support.environment import Surroundings
from tests.support.history import assert_whole
from tests.support.service import Service, plain, soon

REFUSED = {"errorCode": 91}  # the server is shutting down: the driver tries again until its time is over
CUT_OFF = {"closeConnection": True}
DOUBTFUL = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}  # written all the same


class Server:
    """A server on a database whose operations can be made to fail.

    Attributes:
        caller: A tenant of it.
    """

    def __init__(self, caller: Caller, stack: AsyncExitStack) -> None:
        self.caller = caller
        self._stack = stack

    async def stop(self) -> None:
        """Stop it gracefully."""
        await self._stack.aclose()

    @contextmanager
    def failing(self, command: str, collection: str, how: dict[str, Any]) -> Iterator[None]:
        """Make each such command of the server on a collection fail."""
        service = self.caller.service
        admin = service.surroundings.mongo.admin
        data = {
            "failCommands": [command],
            "namespace": f"{service.database.name}.{collection}",
            "appName": "godoty",
            **how,
        }
        admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
        try:
            yield
        finally:
            admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.fixture
async def start(fragile: Surroundings, connect: Callable[[Service], Caller]) -> AsyncIterator[Callable[..., Any]]:
    """Starts servers with a database timeout of a second, but not for its indexes, which take longer on busy cores."""
    async with AsyncExitStack() as servers:

        async def begin(**settings: Any) -> Server:
            name = fragile.new_database()
            async with open_components(fragile.settings(name)):
                pass
            chosen = {"storage_timeout": 1.0, "reconcile_interval": 0.1, **settings}
            stack = await servers.enter_async_context(AsyncExitStack())
            server = await stack.enter_async_context(running(fragile.settings(name, **chosen)))
            return Server(connect(fragile.service(server.address, name)), stack)

        yield begin


def assert_unavailable(turn: Turn) -> None:
    """Check that the caller may retry."""
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert turn.failure.retry_after


async def assert_sums_agree(caller: Caller) -> None:
    """Check that the session's cost equals its invoice, and that no call is open."""
    totals = (await caller.metrics()).totals
    assert totals.cost_usd == plain(caller.service.invoiced("talk"))
    assert (totals.pending_calls, totals.unresolved_calls) == (0, 0)


async def next_turn(caller: Caller) -> Turn:
    """Run a turn as soon as the session is free."""
    async with asyncio.timeout(10):
        while True:
            turn = await caller.converse("Are you there?")
            if turn.failure is None:
                return turn
            assert turn.failure.reason == "SESSION_BUSY"
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", [REFUSED, CUT_OFF], ids=["refused", "cut off"])
async def test_no_request_is_sent_without_its_entry(start: Callable[..., Any], how: dict[str, Any]) -> None:
    """The insert fails: the turn fails as UNAVAILABLE, and the provider received no request."""
    server: Server = await start()
    caller = server.caller

    with server.failing("insert", "ledger", how):
        turn = await caller.converse("hello")

    assert_unavailable(turn)
    assert "text_delta" not in turn.kinds
    assert caller.service.requests("talk") == []
    assert calls(caller) == []
    after = await next_turn(caller)
    assert after.started.totals.model_calls == 0
    assert len(caller.service.requests("talk")) == 1
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


async def test_entry_of_an_uncertain_insert_is_void(start: Callable[..., Any]) -> None:
    """It is in the database although the insert failed: its request was not sent, so it is void, and not open."""
    server: Server = await start()
    caller = server.caller

    with server.failing("insert", "ledger", DOUBTFUL):
        turn = await caller.converse("hello")
        assert_unavailable(turn)
        assert caller.service.requests("talk") == []
    entry = await closed(caller)

    assert (entry.state, entry.cost, entry.error) == (CallState.VOID, None, "storage_unavailable")
    await next_turn(caller)
    assert [each.state for each in calls(caller)] == [CallState.VOID, CallState.SETTLED]
    await assert_sums_agree(caller)


async def test_unsent_call_that_another_server_closed_is_resolved_at_zero(
    start: Callable[..., Any], start_harness: StartHarness
) -> None:
    """Another server closes the inserted entry as unresolved; the server that never sent it then resolves it at 0."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("insert", "ledger", DOUBTFUL):
        assert_unavailable(await caller.converse("hello"))
    (entry,) = calls(caller)
    other = await start_harness(caller.service)
    await other.ledger.defer_orphans([entry.owner])
    assert (await other.reconciler.tick())[Outcome.UNRESOLVED] == 1
    assert [each.state for each in calls(caller)] == [CallState.UNRESOLVED]

    await server.stop()  # at shutdown it writes the retained calls

    (adjustment,) = [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)]
    assert (adjustment.corrects, adjustment.resolves, adjustment.cost) == (entry.call_id, True, Decimal(0))
    assert (adjustment.by, adjustment.why) == ("godoty", "provably never sent")
    assert await other.differences() == []
    assert caller.service.requests("talk") == []


async def close_elsewhere(caller: Caller, other: ReconcilerHarness, *, ahead: timedelta = timedelta()) -> ModelCall:
    """Close the session's call as unresolved on another server; return its entry."""
    other.ahead = ahead
    await other.ledger.defer_orphans([calls(caller)[0].owner])
    await other.reconciler.tick()
    await soon(lambda: calls(caller)[0].state is CallState.UNRESOLVED)  # a server that reconciles may be faster
    other.ahead = timedelta()
    (entry,) = calls(caller)
    return entry


async def resolution(other: ReconcilerHarness) -> Adjustment:
    """Return the one adjustment, once it is there."""
    async with asyncio.timeout(10):
        while not (made := [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)]):
            await asyncio.sleep(0.05)
    (adjustment,) = made
    assert (adjustment.resolves, adjustment.by) == (True, "godoty")
    assert await other.differences() == []
    return adjustment


async def test_generation_id_in_memory_resolves_call_closed_elsewhere(
    start: Callable[..., Any], start_harness: StartHarness
) -> None:
    """One server has the id in memory, another closes the call as unresolved: the first one reads the record."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox no-cost record_ms=0"))
    other = await start_harness(caller.service)
    entry = await close_elsewhere(caller, other)
    assert entry.generation_id is None

    await server.stop()  # at shutdown it writes the retained calls

    adjustment = await resolution(other)
    assert adjustment.corrects == entry.call_id
    assert adjustment.cost == caller.service.invoiced("talk") > 0
    assert adjustment.why == "reconciled"


async def test_call_deferred_after_another_server_closed_it_is_resolved(
    start: Callable[..., Any], start_harness: StartHarness
) -> None:
    """A streaming call is closed by another server and then cancelled: its own server reads the record."""
    server: Server = await start()
    caller = server.caller
    call = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 record_ms=0")
    async for response in call:
        if response.HasField("text_delta"):
            break
    other = await start_harness(caller.service)
    caller.service.database["ledger"].update_one({}, {"$unset": {"generation_id": ""}})
    entry = await close_elsewhere(caller, other)

    call.cancel()

    adjustment = await resolution(other)
    assert adjustment.corrects == entry.call_id
    assert adjustment.cost == caller.service.invoiced("talk") > 0


async def test_usage_in_memory_prices_call_closed_elsewhere(
    start: Callable[..., Any], start_harness: StartHarness
) -> None:
    """The answer reported its usage, no cost and no id: the call that another server closed is priced."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox no-cost record_ms=-1"))
    other = await start_harness(caller.service)
    entry = await close_elsewhere(caller, other)
    usage = TokenUsage(input_tokens=1000, output_tokens=10)
    other.ledger.retain(replace(entry, state=CallState.PENDING, settle_time=None, usage=usage, finish_reason="stop"))

    await other.reconciler.tick()

    adjustment = await resolution(other)
    assert (adjustment.why, adjustment.usage) == ("priced by the catalogue", usage)
    assert adjustment.cost > 0
    assert other.ledger.unwritten == []


async def test_record_of_call_closed_elsewhere_is_awaited(
    start: Callable[..., Any], start_harness: StartHarness
) -> None:
    """It is requested again while it may come, and no longer: the number of tries is bounded."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox no-cost record_ms=-1"))
    other = await start_harness(caller.service)
    entry = await close_elsewhere(caller, other)
    asked = []

    async def read(_: str, generation_id: str) -> bytes | None:
        asked.append(generation_id)
        return None

    other.read_generation = read
    other.ledger.retain(replace(entry, state=CallState.PENDING, settle_time=None, generation_id="gen-1"))
    for minutes in (0, 1, 1, 30, 59, 61, 90):
        other.ahead = timedelta(minutes=minutes)
        await other.reconciler.tick()

    assert asked == ["gen-1"] * 5  # not twice at one time, and not after an hour is over
    assert [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)] == []
    assert await other.differences() == []


async def test_entry_of_an_uncertain_insert_is_pending_for_readers(
    start: Callable[..., Any], start_harness: StartHarness
) -> None:
    """Until it is void, the session shows it as pending, though its turn does not know of it."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    assert (await caller.converse("first")).finished

    with server.failing("insert", "ledger", DOUBTFUL):
        assert_unavailable(await caller.converse("hello"))

    totals = (await caller.metrics()).totals
    assert (totals.model_calls, totals.pending_calls) == (2, 1)
    assert await (await start_harness(caller.service)).differences() == []


@pytest.mark.parametrize("how", [REFUSED, CUT_OFF], ids=["refused", "cut off"])
async def test_failed_settlement_is_written_later(start: Callable[..., Any], how: dict[str, Any]) -> None:
    """The cost of an answer cannot be written: the turn ends with an error, and the cost is retained until it can.

    No record ever comes for this call: the stream's data is written later.
    """
    server: Server = await start()
    caller = server.caller

    with server.failing("update", "ledger", how):
        turn = await caller.converse("@sandbox plain tokens=12 record_ms=-1")
        assert turn.text
        assert_unavailable(turn)
        assert calls(caller)[0].state is CallState.PENDING
    entry = await closed(caller)

    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)
    assert entry.cost == billed(caller, entry) > 0
    assert entry.usage is not None
    assert entry.usage.output_tokens == 12
    await assert_sums_agree(caller)
    await next_turn(caller)
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


async def test_call_with_unstored_generation_id_is_reconciled(start: Callable[..., Any]) -> None:
    """Neither its id nor its usage could be written while it ran: both are retained, and its record is found."""
    server: Server = await start()
    caller = server.caller

    with server.failing("update", "ledger", REFUSED):
        turn = await caller.converse("@sandbox no-cost record_ms=0")
        assert_unavailable(turn)
        assert calls(caller)[0].generation_id is None
    entry = await closed(caller)

    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert entry.cost == billed(caller, entry) > 0
    await assert_sums_agree(caller)


async def test_cancelled_call_that_could_not_be_deferred_is_reconciled(start: Callable[..., Any]) -> None:
    """The caller disconnected while writes failed: the id from the headers is not lost."""
    server: Server = await start()
    caller = server.caller

    with server.failing("update", "ledger", REFUSED):
        call = caller.start("@sandbox slow tokens=40 first_delay_ms=0 delay_ms=10 record_ms=0")
        async for response in call:
            if response.HasField("text_delta"):
                break
        call.cancel()
        assert (await last_call_after_turn(caller)).generation_id is None
    entry = await closed(caller)

    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert entry.cost == billed(caller, entry) > 0


async def test_retained_calls_are_written_before_the_server_stops(start: Callable[..., Any]) -> None:
    """The server is stopped before the next tick of the reconciler: it first writes the calls in memory."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller

    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox plain tokens=12 record_ms=-1"))
    assert calls(caller)[0].state is CallState.PENDING
    await server.stop()

    (entry,) = calls(caller)
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)
    assert entry.cost == billed(caller, entry)


async def test_session_that_could_not_be_written_is_released(start: Callable[..., Any]) -> None:
    """The turn cannot write its end: it fails, its call is settled nevertheless, and the session is released."""
    server: Server = await start()
    caller = server.caller
    await caller.converse("hello")

    call = caller.start("@sandbox slow tokens=20 first_delay_ms=0 delay_ms=10")
    async for response in call:
        if response.HasField("text_delta"):
            break
    with server.failing("update", "sessions", REFUSED):
        assert_unavailable(await read(call))
    turn = await next_turn(caller)

    assert turn.finished.session_totals.cost_usd == plain(caller.service.invoiced("talk"))
    assert [each.state for each in calls(caller)] == [CallState.SETTLED] * 3
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


async def test_session_that_could_not_be_acquired_is_free(start: Callable[..., Any]) -> None:
    """The lease cannot be written: no request is sent and nothing remains."""
    server: Server = await start()
    caller = server.caller
    await caller.converse("hello")

    with server.failing("findAndModify", "sessions", REFUSED):
        assert_unavailable(await caller.converse("and on"))
    await next_turn(caller)

    assert len(calls(caller)) == len(caller.service.requests("talk")) == 2
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


@pytest.mark.parametrize(
    ("how", "landed"), [(REFUSED, 0), (CUT_OFF, 0), (DOUBTFUL, 4)], ids=["refused", "cut off", "doubtful"]
)
async def test_failed_batch_fails_every_item(fragile: Surroundings, how: dict[str, Any], landed: int) -> None:
    """The outcome of all documents that were inserted together is unknown."""
    database = open_database(uri=fragile.mongodb_uri, name=fragile.new_database(), timeout=1.0)
    things = database.collection("things")
    await things.ensure([Index(keys=[("name", 1)])])
    data = {"failCommands": ["insert"], "namespace": f"{database.name}.things", "appName": "godoty", **how}
    fragile.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        inserting = (things.insert_one({"_id": number, "name": str(number)}) for number in range(4))
        found = await asyncio.gather(*inserting, return_exceptions=True)
    finally:
        fragile.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    assert [type(each) for each in found] == [StorageUnavailable] * 4
    async with asyncio.timeout(10):
        while await things.count({}) != landed:  # a majority has the uncertain inserts a moment later
            await asyncio.sleep(0.05)
    await database.close()
