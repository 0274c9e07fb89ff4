"""The database rejects writes: no request without an entry is sent, and known data of a call is written later."""

import asyncio
from typing import Any

import pytest

from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import open_database
from godoty_service.mongo.collection import Index
from tests.e2e.metering.conftest import StartHarness
from tests.e2e.metering.failing_server import (
    CUT_OFF,
    DOUBTFUL,
    REFUSED,
    FailingServer,
    assert_sums_agree,
    assert_unavailable,
    next_turn,
)
from tests.e2e.metering.reconciler_harness import billed, calls, closed, last_call_after_turn
from tests.support.backends import Backends
from tests.support.caller import read
from tests.support.history import assert_valid_history
from tests.support.service import PATIENCE, format_amount, soon


@pytest.mark.parametrize("how", [REFUSED, CUT_OFF], ids=["refused", "cut off"])
async def test_no_request_is_sent_without_its_entry(server: FailingServer, how: dict[str, Any]) -> None:
    """The insert fails: the turn fails as UNAVAILABLE, and the provider received no request."""
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
    assert_valid_history(await caller.messages())


async def test_entry_of_an_uncertain_insert_is_void(server: FailingServer) -> None:
    """It is in the database although the insert failed: its request was not sent, so it is void, and not open."""
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


async def test_entry_of_an_uncertain_insert_is_pending_for_readers(
    idle_server: FailingServer, start_harness: StartHarness
) -> None:
    """Until it is void, the session shows it as pending, though its turn does not know of it."""
    caller = idle_server.caller
    assert (await caller.converse("first")).finished

    with idle_server.failing("insert", "ledger", DOUBTFUL):
        assert_unavailable(await caller.converse("hello"))

    await soon(lambda: len(calls(caller)) == 2)  # a majority has the uncertain insert a moment later
    totals = (await caller.metrics()).totals
    assert (totals.model_calls, totals.pending_calls) == (2, 1)
    assert await (await start_harness(caller.service)).differences() == []


@pytest.mark.parametrize("how", [REFUSED, CUT_OFF], ids=["refused", "cut off"])
async def test_failed_settlement_is_written_later(server: FailingServer, how: dict[str, Any]) -> None:
    """The cost of an answer cannot be written: the turn ends with an error, and the cost is retained until it can.

    No record ever comes for this call: the stream's data is written later.
    """
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
    assert_valid_history(await caller.messages())


async def test_call_with_unstored_generation_id_is_reconciled(server: FailingServer) -> None:
    """Neither its id nor its usage could be written while it ran: both are retained, and its record is found."""
    caller = server.caller

    with server.failing("update", "ledger", REFUSED):
        turn = await caller.converse("@sandbox no-cost record_ms=0")
        assert_unavailable(turn)
        assert calls(caller)[0].generation_id is None
    entry = await closed(caller)

    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert entry.cost == billed(caller, entry) > 0
    await assert_sums_agree(caller)


async def test_cancelled_call_that_could_not_be_deferred_is_reconciled(server: FailingServer) -> None:
    """The caller disconnected while writes failed: the id from the headers is not lost."""
    caller = server.caller

    with server.failing("update", "ledger", REFUSED):
        call = caller.start("@sandbox slow tokens=40 first_delay_ms=0 delay_ms=10 hold_after=10 record_ms=0")
        async for response in call:
            if response.HasField("text_delta"):
                break
        call.cancel()
        assert (await last_call_after_turn(caller)).generation_id is None
    entry = await closed(caller)

    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert entry.cost == billed(caller, entry) > 0


async def test_retained_calls_are_written_before_the_server_stops(idle_server: FailingServer) -> None:
    """The server is stopped before the next tick of the reconciler: it first writes the calls in memory."""
    caller = idle_server.caller

    with idle_server.failing("update", "ledger", REFUSED):
        assert_unavailable(await caller.converse("@sandbox plain tokens=12 record_ms=-1"))
    assert calls(caller)[0].state is CallState.PENDING
    await idle_server.stop()

    (entry,) = calls(caller)
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)
    assert entry.cost == billed(caller, entry)


async def test_session_that_could_not_be_written_is_released(server: FailingServer) -> None:
    """The turn cannot write its end: it fails, its call is settled nevertheless, and the session is released."""
    caller = server.caller
    await caller.converse("hello")

    call = caller.start("@sandbox plain tokens=20 hold_after=5 hold=unwritten")
    async for response in call:
        if response.HasField("text_delta"):
            break
    with server.failing("update", "sessions", REFUSED):
        caller.service.backends.allow("unwritten")
        assert_unavailable(await read(call))
    turn = await next_turn(caller)

    assert turn.finished.session_totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    assert [each.state for each in calls(caller)] == [CallState.SETTLED] * 3
    await assert_sums_agree(caller)
    assert_valid_history(await caller.messages())


async def test_session_that_could_not_be_acquired_is_free(server: FailingServer) -> None:
    """The lease cannot be written: no request is sent and nothing remains."""
    caller = server.caller
    await caller.converse("hello")

    with server.failing("findAndModify", "sessions", REFUSED):
        assert_unavailable(await caller.converse("and on"))
    await next_turn(caller)

    assert len(calls(caller)) == len(caller.service.requests("talk")) == 2
    await assert_sums_agree(caller)
    assert_valid_history(await caller.messages())


@pytest.mark.parametrize(
    ("how", "inserted"), [(REFUSED, 0), (CUT_OFF, 0), (DOUBTFUL, 4)], ids=["refused", "cut off", "doubtful"]
)
async def test_failed_batch_fails_every_item(fail_point_backends: Backends, how: dict[str, Any], inserted: int) -> None:
    """The outcome of all documents that were inserted together is unknown."""
    database = open_database(uri=fail_point_backends.mongodb_uri, name=fail_point_backends.new_database(), timeout=5.0)
    things = database.collection("things")
    await things.ensure([Index(keys=[("name", 1)])])
    data = {"failCommands": ["insert"], "namespace": f"{database.name}.things", "appName": "godoty", **how}
    fail_point_backends.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        inserting = (things.insert_one({"_id": number, "name": str(number)}) for number in range(4))
        found = await asyncio.gather(*inserting, return_exceptions=True)
    finally:
        fail_point_backends.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    assert [type(each) for each in found] == [StorageUnavailable] * 4
    async with asyncio.timeout(PATIENCE):
        while await things.count({}) != inserted:  # a majority has the uncertain inserts a moment later
            await asyncio.sleep(0.05)
    await database.close()
