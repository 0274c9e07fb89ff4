"""Entries under numbers that their session's turn does not expect: the totals include them nevertheless."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ids import new_id
from godoty_service.ledger.totals import SessionTotals
from godoty_service.server import running
from tests.conftest import server_environment
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, calls
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Caller, read
from tests.support.leases import SHORT_LEASE, SHORT_LEASE_ENVIRONMENT
from tests.support.service import Service, format_amount, soon

HELD = 12.0  # seconds that an insert is held up: a lease, and a turn of the server that takes over


async def assert_shown(caller: Caller, harness: ReconcilerHarness) -> None:
    """Check that the session shows the totals of all its entries, and that verification finds nothing."""
    true = SessionTotals().apply([*calls(caller)]).current()
    shown = (await caller.metrics()).totals

    assert shown.cost_usd == format_amount(true.cost)
    assert (shown.model_calls, shown.turns, shown.pending_calls) == (true.model_calls, true.turns, true.pending_calls)
    assert await harness.differences() == []


async def test_entry_of_another_writer_inside_a_turn_is_counted(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """It takes a number that the turn would use next: the numbers go on behind it, in this turn and in the next."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    call = caller.start("@sandbox tool-loop calls=4 delay_ms=200")  # so long is it between two calls at least
    await soon(lambda: len(calls(caller)) == 2)
    (first, second) = caller.service.entry_documents("talk")
    foreign = {**first, "_id": new_id("call"), "turn_id": "turn_of_another", "number": second["number"] + 1}
    for name in ("cost", "cost_source", "usage", "generation_id"):
        foreign.pop(name, None)
    caller.service.database["ledger"].insert_one({**foreign, "state": "void"})

    turn = await read(call)
    assert turn.finished.session_totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    await assert_shown(caller, harness)
    await caller.converse("and on")
    assert (await caller.metrics()).totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    await assert_shown(caller, harness)


class PausedServer:
    """A server that is stopped while the database delays its next insert."""

    def __init__(self, process: ServerProcess, service: Service) -> None:
        self.process = process
        self.service = service

    async def pause(self) -> None:
        """Delay an insert, and stop the server that waits for it."""
        admin = self.service.backends.mongo.admin
        held = {
            "failCommands": ["insert"],
            "namespace": f"{self.service.database.name}.ledger",
            "blockConnection": True,
            "blockTimeMS": int(HELD * 1000),
        }
        set_ = admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": held})
        wait = {"waitForFailPoint": "failCommand", "timesEntered": set_["count"] + 1, "maxTimeMS": 60_000}
        await asyncio.to_thread(admin.command, wait)
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the server."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process.process is not None
        os.kill(self.process.process.pid, number)


@pytest.mark.parametrize("limits", [None, turn_pb.TurnLimits(max_cost_usd="0.0000001")], ids=["taken", "free"])
async def test_late_entry_of_a_stopped_server_is_void(
    fail_point_backends: Backends,
    connect: Callable[[Service], Caller],
    start_harness: StartHarness,
    tmp_path: Path,
    limits: turn_pb.TurnLimits | None,
) -> None:
    """It resumed when its session had moved on, and the number of its entry was taken; or free, and it was inserted.

    It sends no request. If the number is taken it inserts no other entry; an inserted one is void, and in the totals.
    """
    name = fail_point_backends.new_database()
    environment = (
        server_environment(fail_point_backends, name) | SHORT_LEASE_ENVIRONMENT | {"GODOTY_STORAGE_TIMEOUT": "60"}
    )
    process = ServerProcess(environment=environment, log=tmp_path / "server.log")
    await process.start()
    service = fail_point_backends.service(process.address, name)
    paused = PausedServer(process, service)
    try:
        async with running(fail_point_backends.settings(name, **SHORT_LEASE, reconcile_interval=NEVER)) as other:
            survivor = connect(service.at(other.address))
            reading = asyncio.create_task(read(connect(service).start("@sandbox tool-loop calls=8 delay_ms=100")))
            await soon(lambda: len(calls(survivor)) == 2)
            await paused.pause()
            held = asyncio.create_task(asyncio.sleep(HELD))
            turn = await survivor.converse(
                "go on", on_busy=turn_pb.ON_BUSY_WAIT, **({"limits": limits} if limits else {})
            )
            assert (turn.failure is None) == (limits is None)
            sent = len(service.requests("talk"))
            before = [each.call_id for each in calls(survivor)]
            await held
            if limits is not None:
                await soon(lambda: len(calls(survivor)) == len(before) + 1)
            paused.resume()
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
        await process.stop()
