"""Entries that stand where their session's turn does not expect them: its sums take them up all the same."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.ids import new_id
from godoty_service.metering.totals import SessionFold
from godoty_service.server import running
from tests.conftest import server_environment
from tests.faults.world import ServerProcess
from tests.metering.bookkeeper import Bookkeeper, calls, eventually
from tests.metering.conftest import NEVER, Bookkeep, Serve
from tests.service.caller import Caller, read
from tests.service.leases import SHORT_LEASE, SHORT_LEASE_ENVIRONMENT
from tests.service.service import Service, plain
from tests.service.surroundings import Surroundings

HELD = 6.0  # seconds that an insert is held up: a lease, and a turn of the server that takes over


async def assert_shown(caller: Caller, keeper: Bookkeeper) -> None:
    """Check that the session shows the sums of all its entries, and that the proof finds nothing."""
    true = SessionFold().take([*calls(caller)]).view()
    shown = (await caller.metrics()).totals

    assert shown.cost_usd == plain(true.cost)
    assert (shown.model_calls, shown.turns, shown.pending_calls) == (true.model_calls, true.turns, true.pending_calls)
    assert await keeper.differences() == []


async def test_an_entry_of_somebody_else_inside_a_turn(calling: Serve, bookkeep: Bookkeep) -> None:
    """It takes a number that the turn counted on: the sums go on behind it, in this turn and in the next."""
    caller = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(caller.service)
    call = caller.start("@sandbox tool-loop calls=4 delay_ms=20")
    await eventually(lambda: len(calls(caller)) == 2)
    (first, second) = caller.service.entry_documents("talk")
    foreign = {**first, "_id": new_id("call"), "turn_id": "turn_of_somebody", "number": second["number"] + 1}
    for name in ("cost", "cost_source", "usage", "generation_id"):
        foreign.pop(name, None)
    caller.service.database["ledger"].insert_one({**foreign, "state": "void"})

    turn = await read(call)
    assert turn.finished.session_totals.cost_usd == plain(caller.service.invoiced("talk"))
    await assert_shown(caller, keeper)
    await caller.converse("and on")
    assert (await caller.metrics()).totals.cost_usd == plain(caller.service.invoiced("talk"))
    await assert_shown(caller, keeper)


class Standstill:
    """A server that stands still while the database holds its next entry up."""

    def __init__(self, process: ServerProcess, service: Service) -> None:
        self.process = process
        self.service = service

    async def begin(self) -> None:
        """Hold an insert up, and stop the server that waits for it."""
        admin = self.service.surroundings.mongo.admin
        held = {
            "failCommands": ["insert"],
            "namespace": f"{self.service.database.name}.ledger",
            "blockConnection": True,
            "blockTimeMS": int(HELD * 1000),
        }
        set_ = admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": held})
        wait = {"waitForFailPoint": "failCommand", "timesEntered": set_["count"] + 1, "maxTimeMS": 10_000}
        await asyncio.to_thread(admin.command, wait)
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """Let the server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process.process is not None
        os.kill(self.process.process.pid, number)


@pytest.mark.parametrize("limits", [None, pb.TurnLimits(max_cost_usd="0.0000001")], ids=["taken", "free"])
async def test_the_late_entry_of_a_server_that_stood_still(
    fragile: Surroundings,
    connect: Callable[[Service], Caller],
    bookkeep: Bookkeep,
    tmp_path: Path,
    limits: pb.TurnLimits | None,
) -> None:
    """It woke when its session had passed on, and the number of its entry was taken; or free, and the entry landed.

    It sends nothing. Where the number is taken it writes no other; one that landed is void, and in the sums.
    """
    name = fragile.new_database()
    environment = server_environment(fragile, name) | SHORT_LEASE_ENVIRONMENT
    process = ServerProcess(environment=environment, log=tmp_path / "server.log")
    await process.start()
    service = fragile.service(process.address, name)
    standstill = Standstill(process, service)
    try:
        async with running(fragile.settings(name, **SHORT_LEASE, reconcile_interval=NEVER)) as other:
            survivor = connect(service.at(other.address))
            reading = asyncio.create_task(read(connect(service).start("@sandbox tool-loop calls=8 delay_ms=20")))
            await eventually(lambda: len(calls(survivor)) == 2)
            await standstill.begin()
            held = asyncio.create_task(asyncio.sleep(HELD))
            turn = await survivor.converse("go on", on_busy=pb.ON_BUSY_WAIT, **({"limits": limits} if limits else {}))
            assert (turn.failure is None) == (limits is None)
            sent = len(service.requests("talk"))
            before = [each.call_id for each in calls(survivor)]
            await held
            if limits is not None:
                await eventually(lambda: len(calls(survivor)) == len(before) + 1)
            standstill.end()
            lost = await reading

            assert lost.failure is not None
            assert lost.failure.reason == "SESSION_LOST"
            after = calls(survivor)
            assert [each.call_id for each in after][: len(before)] == before
            assert [each.state.value for each in after[len(before) :]] == ([] if limits is None else ["void"])
            assert len(service.requests("talk")) == sent
            keeper = await bookkeep(service)
            await assert_shown(survivor, keeper)
            await survivor.converse("still there?")
            await assert_shown(survivor, keeper)
    finally:
        await process.stop()
