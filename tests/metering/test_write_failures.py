"""The database refuses a write: nothing is sent that has no entry, and what is known of a call is written later."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest

from godoty_service.errors import StorageUnavailable
from godoty_service.metering.call import Adjustment, CallState, CostSource, ModelCall
from godoty_service.metering.reconciler import Outcome
from godoty_service.metering.usage import TokenUsage
from godoty_service.mongo import Index, open_database
from godoty_service.rooms import open_rooms
from godoty_service.server import running
from tests.metering.bookkeeper import Bookkeeper, billed, calls, closed, left
from tests.metering.conftest import NEVER, Bookkeep
from tests.service.caller import Caller, Turn, read
from tests.service.history import assert_whole
from tests.service.service import Service, plain, soon
from tests.service.surroundings import Surroundings

REFUSED = {"errorCode": 91}  # the server is shutting down: the driver tries again until its time is over
CUT_OFF = {"closeConnection": True}
DOUBTFUL = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}  # written all the same


class Server:
    """A server on a database that can be told to fail.

    Attributes:
        caller: A tenant of it.
    """

    def __init__(self, caller: Caller, stack: AsyncExitStack) -> None:
        self.caller = caller
        self._stack = stack

    async def stop(self) -> None:
        """Stop it in order."""
        await self._stack.aclose()

    @contextmanager
    def failing(self, command: str, collection: str, how: dict[str, Any]) -> Iterator[None]:
        """Let each such command of the server on a collection fail."""
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
    """Starts servers that wait a second for the database, but not for its indexes, which take longer on busy cores."""
    async with AsyncExitStack() as servers:

        async def begin(**settings: Any) -> Server:
            name = fragile.new_database()
            async with open_rooms(fragile.settings(name)):
                pass
            chosen = {"storage_timeout": 1.0, "reconcile_interval": 0.1, **settings}
            stack = await servers.enter_async_context(AsyncExitStack())
            server = await stack.enter_async_context(running(fragile.settings(name, **chosen)))
            return Server(connect(fragile.service(server.address, name)), stack)

        yield begin


def assert_unavailable(turn: Turn) -> None:
    """Check that the caller is told to come back."""
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert turn.failure.retry_after


async def assert_sums_agree(caller: Caller) -> None:
    """Check that the session's cost is its invoice, and that nothing is open."""
    totals = (await caller.metrics()).totals
    assert totals.cost_usd == plain(caller.service.invoiced("talk"))
    assert (totals.pending_calls, totals.unresolved_calls) == (0, 0)


async def free(caller: Caller) -> Turn:
    """Take a turn as soon as the session is free."""
    async with asyncio.timeout(10):
        while True:
            turn = await caller.converse("Are you there?")
            if turn.failure is None:
                return turn
            assert turn.failure.reason == "SESSION_BUSY"
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", [REFUSED, CUT_OFF], ids=["refused", "cut off"])
async def test_no_request_leaves_without_its_entry(start: Callable[..., Any], how: dict[str, Any]) -> None:
    """The entry cannot be written: the turn fails as UNAVAILABLE, and the provider has heard nothing."""
    server: Server = await start()
    caller = server.caller

    with server.failing("insert", "ledger", how):
        turn = await caller.converse("hello")

    assert_unavailable(turn)
    assert "text_delta" not in turn.kinds
    assert caller.service.requests("talk") == []
    assert calls(caller) == []
    after = await free(caller)
    assert after.started.totals.model_calls == 0
    assert len(caller.service.requests("talk")) == 1
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


async def test_an_entry_of_which_nobody_knows_whether_it_landed_is_void(start: Callable[..., Any]) -> None:
    """It is in the database although the write failed: nothing was sent, so it is void, and nobody's open call."""
    server: Server = await start()
    caller = server.caller

    with server.failing("insert", "ledger", DOUBTFUL):
        turn = await caller.converse("hello")
        assert_unavailable(turn)
        assert caller.service.requests("talk") == []
    entry = await closed(caller)

    assert (entry.state, entry.cost, entry.error) == (CallState.VOID, None, "storage_unavailable")
    await free(caller)
    assert [each.state for each in calls(caller)] == [CallState.VOID, CallState.SETTLED]
    await assert_sums_agree(caller)


async def test_unsent_call_that_another_server_gave_up_on_is_corrected_to_nothing(
    start: Callable[..., Any], bookkeep: Bookkeep
) -> None:
    """Another server closes the landed entry as unresolved; the server that never sent it then resolves it at 0."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("insert", "ledger", DOUBTFUL):
        assert_unavailable(await caller.converse("hello"))
    (entry,) = calls(caller)
    other = await bookkeep(caller.service)
    await other.ledger.adopt([entry.owner])
    assert (await other.reconciler.tick())[Outcome.UNRESOLVED] == 1
    assert [each.state for each in calls(caller)] == [CallState.UNRESOLVED]

    await server.stop()  # on its way out it writes what it kept

    (adjustment,) = [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)]
    assert (adjustment.corrects, adjustment.resolves, adjustment.cost) == (entry.call_id, True, Decimal(0))
    assert (adjustment.by, adjustment.why) == ("godoty", "provably never sent")
    assert await other.differences() == []
    assert caller.service.requests("talk") == []


async def give_up(caller: Caller, other: Bookkeeper, *, ahead: timedelta = timedelta()) -> ModelCall:
    """Let another server close the session's call as unresolved; return its entry."""
    other.ahead = ahead
    await other.ledger.adopt([calls(caller)[0].owner])
    await other.reconciler.tick()
    await soon(lambda: calls(caller)[0].state is CallState.UNRESOLVED)  # a server that reconciles may be faster
    other.ahead = timedelta()
    (entry,) = calls(caller)
    return entry


async def resolution(other: Bookkeeper) -> Adjustment:
    """Return the one adjustment that was made, once it is there."""
    async with asyncio.timeout(10):
        while not (made := [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)]):
            await asyncio.sleep(0.05)
    (adjustment,) = made
    assert (adjustment.resolves, adjustment.by) == (True, "godoty")
    assert await other.differences() == []
    return adjustment


async def test_generation_known_to_one_server_resolves_what_another_gave_up_on(
    start: Callable[..., Any], bookkeep: Bookkeep
) -> None:
    """The id is in one server's memory, another closes the call as unresolved: the first one reads the record."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox no-cost record_ms=0"))
    other = await bookkeep(caller.service)
    entry = await give_up(caller, other)
    assert entry.generation_id is None

    await server.stop()  # on its way out it writes what it kept

    adjustment = await resolution(other)
    assert adjustment.corrects == entry.call_id
    assert adjustment.cost == caller.service.invoiced("talk") > 0
    assert adjustment.why == "reconciled"


async def test_call_left_by_its_turn_after_another_server_gave_up_on_it_is_resolved(
    start: Callable[..., Any], bookkeep: Bookkeep
) -> None:
    """A call that streams is closed by another server and then cancelled: its own server reads the record."""
    server: Server = await start()
    caller = server.caller
    call = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 record_ms=0")
    async for response in call:
        if response.HasField("text_delta"):
            break
    other = await bookkeep(caller.service)
    caller.service.database["ledger"].update_one({}, {"$unset": {"generation_id": ""}})
    entry = await give_up(caller, other)

    call.cancel()

    adjustment = await resolution(other)
    assert adjustment.corrects == entry.call_id
    assert adjustment.cost == caller.service.invoiced("talk") > 0


async def test_usage_known_to_one_server_is_priced_by_the_catalogue(
    start: Callable[..., Any], bookkeep: Bookkeep
) -> None:
    """The answer stated its usage and no cost, and has no id: what another server gave up on is priced."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox no-cost record_ms=-1"))
    other = await bookkeep(caller.service)
    entry = await give_up(caller, other)
    usage = TokenUsage(input_tokens=1000, output_tokens=10)
    other.ledger.keep(replace(entry, state=CallState.PENDING, settle_time=None, usage=usage, finish_reason="stop"))

    await other.reconciler.tick()

    adjustment = await resolution(other)
    assert (adjustment.why, adjustment.usage) == ("priced by the catalogue", usage)
    assert adjustment.cost > 0
    assert other.ledger.kept == []


async def test_record_of_a_call_that_another_server_gave_up_on_is_waited_for(
    start: Callable[..., Any], bookkeep: Bookkeep
) -> None:
    """It is asked for again while it may come, and no longer: the number of tries is bounded."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox no-cost record_ms=-1"))
    other = await bookkeep(caller.service)
    entry = await give_up(caller, other)
    asked = []

    async def read(_: str, generation_id: str) -> bytes | None:
        asked.append(generation_id)
        return None

    other.reconciler._read_generation = read
    other.ledger.keep(replace(entry, state=CallState.PENDING, settle_time=None, generation_id="gen-1"))
    for minutes in (0, 1, 1, 30, 59, 61, 90):
        other.ahead = timedelta(minutes=minutes)
        await other.reconciler.tick()

    assert asked == ["gen-1"] * 5  # not twice at one time, and not after an hour is over
    assert [each async for each in other.ledger.by_session(None) if isinstance(each, Adjustment)] == []
    assert await other.differences() == []


async def test_an_entry_that_may_have_landed_is_looked_for(start: Callable[..., Any], bookkeep: Bookkeep) -> None:
    """Until somebody has made it void: the session shows it as pending, though its turn could not tell that it is."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller
    assert (await caller.converse("first")).finished

    with server.failing("insert", "ledger", DOUBTFUL):
        assert_unavailable(await caller.converse("hello"))

    totals = (await caller.metrics()).totals
    assert (totals.model_calls, totals.pending_calls) == (2, 1)
    assert await (await bookkeep(caller.service)).differences() == []


@pytest.mark.parametrize("how", [REFUSED, CUT_OFF], ids=["refused", "cut off"])
async def test_a_settlement_that_was_refused_is_written_later(start: Callable[..., Any], how: dict[str, Any]) -> None:
    """The answer came, its cost cannot be written: the turn ends with an error, and the cost is kept until it can.

    No record ever comes for this call: what is written later is what the stream told.
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
    await free(caller)
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


async def test_a_generation_that_could_not_be_noted_is_reconciled(start: Callable[..., Any]) -> None:
    """Neither its id nor its usage could be written while it ran: both are kept, and its record is found."""
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


async def test_a_cancelled_call_that_could_not_be_left_is_reconciled(start: Callable[..., Any]) -> None:
    """The caller hung up while the database refused writes: the id that the headers brought is not lost."""
    server: Server = await start()
    caller = server.caller

    with server.failing("update", "ledger", REFUSED):
        call = caller.start("@sandbox slow tokens=40 first_delay_ms=0 delay_ms=10 record_ms=0")
        async for response in call:
            if response.HasField("text_delta"):
                break
        call.cancel()
        assert (await left(caller)).generation_id is None
    entry = await closed(caller)

    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert entry.cost == billed(caller, entry) > 0


async def test_what_was_kept_is_written_before_the_server_stops(start: Callable[..., Any]) -> None:
    """The reconciler has not come round again when the server is told to stop: it writes what it holds first."""
    server: Server = await start(reconcile_interval=NEVER)
    caller = server.caller

    with server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox plain tokens=12 record_ms=-1"))
    assert calls(caller)[0].state is CallState.PENDING
    await server.stop()

    (entry,) = calls(caller)
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)
    assert entry.cost == billed(caller, entry)


async def test_a_session_that_could_not_be_written_is_free_again(start: Callable[..., Any]) -> None:
    """The turn cannot write its end: it fails, its call is settled all the same, and the session becomes free."""
    server: Server = await start()
    caller = server.caller
    await caller.converse("hello")

    call = caller.start("@sandbox slow tokens=20 first_delay_ms=0 delay_ms=10")
    async for response in call:
        if response.HasField("text_delta"):
            break
    with server.failing("update", "sessions", REFUSED):
        assert_unavailable(await read(call))
    turn = await free(caller)

    assert turn.finished.session_totals.cost_usd == plain(caller.service.invoiced("talk"))
    assert [each.state for each in calls(caller)] == [CallState.SETTLED] * 3
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


async def test_a_session_that_could_not_be_claimed_is_free(start: Callable[..., Any]) -> None:
    """The claim cannot be written: nothing is sent and nothing stays behind."""
    server: Server = await start()
    caller = server.caller
    await caller.converse("hello")

    with server.failing("findAndModify", "sessions", REFUSED):
        assert_unavailable(await caller.converse("and on"))
    await free(caller)

    assert len(calls(caller)) == len(caller.service.requests("talk")) == 2
    await assert_sums_agree(caller)
    assert_whole(await caller.messages())


@pytest.mark.parametrize(
    ("how", "landed"), [(REFUSED, 0), (CUT_OFF, 0), (DOUBTFUL, 4)], ids=["refused", "cut off", "doubtful"]
)
async def test_whoever_shares_an_operation_that_fails_is_told(
    fragile: Surroundings, how: dict[str, Any], landed: int
) -> None:
    """Documents that were inserted together are all not known to be written."""
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
        while await things.count({}) != landed:  # a majority has what was doubtful a moment later
            await asyncio.sleep(0.05)
    await database.close()
