"""Entries under numbers that their session's turn does not expect: the totals include them nevertheless."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ids import new_id
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.totals import SessionTotals
from tests.conftest import Start, StartProcess
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.holding_proxy import HoldingProxy
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, calls
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Caller, read
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Service, format_amount, soon


async def assert_shown(caller: Caller, harness: ReconcilerHarness) -> None:
    """Check that the session shows the totals of all its entries, and that verification finds nothing."""
    true = SessionTotals().apply([*calls(caller)]).current()
    shown = (await caller.metrics()).totals

    assert shown.cost_usd == format_amount(true.cost)
    assert (shown.model_calls, shown.turns, shown.pending_calls) == (true.model_calls, true.turns, true.pending_calls)
    assert await harness.differences() == []


async def test_entry_of_another_writer_inside_a_turn_is_counted(
    start_caller: StartCaller, start_harness: StartHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a number that the turn would use next: the numbers go on behind it, in this turn and in the next."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    insert = Ledger.insert

    async def insert_behind(ledger: Ledger, entry: Any, **more: Any) -> Any:
        if entry.number == 3:
            (first, _) = caller.service.entry_documents("talk")
            foreign = {**first, "_id": new_id("call"), "turn_id": "turn_of_another", "number": entry.number}
            for name in ("cost", "cost_source", "usage", "generation_id"):
                foreign.pop(name, None)
            caller.service.database["ledger"].insert_one({**foreign, "state": "void"})
        return await insert(ledger, entry, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "insert", insert_behind)
        turn = await caller.converse("@sandbox tool-loop calls=4")
    assert sorted(each.number for each in calls(caller)) == [1, 2, 3, 4, 5]
    assert turn.finished.session_totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    await assert_shown(caller, harness)
    await caller.converse("and on")
    assert (await caller.metrics()).totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    await assert_shown(caller, harness)


@pytest.mark.parametrize("limits", [None, turn_pb.TurnLimits(max_cost_usd="0.0000001")], ids=["taken", "free"])
async def test_late_entry_of_a_stopped_server_is_void(
    backends: Backends,
    serve: Start,
    serve_process: StartProcess,
    connect: Callable[[Service], Caller],
    start_harness: StartHarness,
    *,
    limits: turn_pb.TurnLimits | None,
) -> None:
    """It resumed when its session had moved on, and the number of its entry was taken; or free, and it was inserted.

    It sends no request. If the number is taken it inserts no other entry; an inserted one is void, and in the totals.
    """
    async with HoldingProxy(backends.mongodb_uri) as proxy:
        process, service = await serve_process(
            **SHORT_LEASE_ENVIRONMENT, GODOTY_STORAGE_TIMEOUT="60", GODOTY_MONGODB_URI=proxy.uri
        )
        try:
            other = await serve(database=service.database.name, **SURVIVOR, reconcile_interval=NEVER)
            survivor = connect(service.at(other.target))
            reading = asyncio.create_task(read(connect(service).start("@sandbox tool-loop calls=25 delay_ms=20")))
            await soon(lambda: len(calls(survivor)) >= 2)
            proxy.hold("ledger")
            await proxy.held.wait()
            _signal(process, signal.SIGSTOP)
            turn = await survivor.converse(
                "go on", on_busy=turn_pb.ON_BUSY_WAIT, **({"limits": limits} if limits else {})
            )
            assert (turn.failure is None) == (limits is None)
            sent = len(service.requests("talk"))
            before = [each.call_id for each in calls(survivor)]
            proxy.release()
            if limits is not None:
                await soon(lambda: len(calls(survivor)) == len(before) + 1)
            _signal(process, signal.SIGCONT)
            lost = await reading

            assert lost.failure is not None
            assert lost.failure.reason == "SESSION_LOST"
            after = calls(survivor)
            assert [each.call_id for each in after][: len(before)] == before
            assert [each.state.value for each in after[len(before) :]] == ([] if limits is None else ["void"])
            assert len(service.requests("talk")) == sent
            harness = await start_harness(service)
            await assert_shown(survivor, harness)
            await survivor.converse("still there?")
            await assert_shown(survivor, harness)
        finally:
            proxy.release()
            await process.stop()


def _signal(process: ServerProcess, number: signal.Signals) -> None:
    assert process.process is not None
    process.process.send_signal(number)
