"""The database's primary dies during turns: each turn succeeds or fails cleanly, and nothing is lost."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.server import running
from openrouter_sandbox.mongodb.replica_set import LocalReplicaSet
from tests.e2e.turns.conftest import differences
from tests.e2e.turns.streams import CONTINUE, assert_increasing, joined, resume
from tests.support.backends import Backends
from tests.support.caller import Caller, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import Service, eventually, soon

# The turns' states when the primary dies: streaming, in a tool loop, waiting for headers, and starting.
SCRIPTS = {
    "streams": "@sandbox slow tokens=60 first_delay_ms=0 delay_ms=50",
    "loops": "@sandbox tool-loop calls=20 tool=calculator delay_ms=2",
    "writes": "@sandbox tool-loop calls=24 parallel=2 tool=calculator",
    "ends": "@sandbox slow tokens=8 first_delay_ms=0 delay_ms=50",
}
CLEAN = {"STORAGE_UNAVAILABLE", "SESSION_LOST"}


@pytest.mark.long  # three mongods and an election
@pytest.mark.parametrize(("how", "storage_timeout"), [("kill", 10.0), ("kill", 0.7), ("step down", 10.0)])
async def test_primary_failover_during_turns_loses_nothing(
    tmp_path: Path, connect: Callable[[Service], Caller], how: str, storage_timeout: float
) -> None:
    """Under CONTINUE each turn succeeds or fails cleanly; its session is usable, complete and exact after the failover.

    The operations' timeout is longer than the election, or shorter.
    """
    async with LocalReplicaSet(tmp_path) as mongo:
        with Backends(None, mongo.uri) as backends:
            database = backends.new_database()
            tenant = backends.service("", database)  # the indexes are created with a longer timeout
            async with running(
                backends.settings(database, lease=15.0, heartbeat=0.5, storage_timeout=storage_timeout)
            ) as server:
                caller = connect(tenant.at(server.address))
                for name in SCRIPTS:
                    await caller.converse("hi", session_id=name)
                calls = {
                    name: caller.start(text, session_id=name, request_id=name, on_disconnect=CONTINUE, timeout=90.0)
                    for name, text in SCRIPTS.items()
                }
                reading = {name: asyncio.create_task(read(call)) for name, call in calls.items()}
                await soon(lambda: all(len(caller.service.entries(name)) > 1 for name in SCRIPTS))
                await asyncio.sleep(0.2)
                await (mongo.kill_primary() if how == "kill" else mongo.step_down())
                turns = {name: await task for name, task in reading.items()}
                outcomes = {name: turn.failure.reason if turn.failure else "finished" for name, turn in turns.items()}
                print(f"[failover] {how}, {storage_timeout} s: {outcomes}")  # noqa: T201 - shown with -s
                assert set(outcomes.values()) <= CLEAN | {"finished"}
                await soon(lambda: server.turns.running == 0)
                for name, turn in turns.items():
                    await _assert_sound(caller, name, turn.responses, failed=turn.failure is not None)
                await eventually(lambda: _nothing_pending(caller))
                for name in SCRIPTS:
                    entries = [
                        each for each in caller.service.entries(name) if each.counts.call
                    ]  # a void one sent nothing
                    assert all(entry.cost is not None for entry in entries)
                    assert caller.service.invoiced(name) == sum(entry.cost or 0 for entry in entries)
            assert await differences(mongo.uri, database) == []


async def _assert_sound(caller: Caller, session_id: str, shown: tuple[turn_pb.TurnEvent, ...], *, failed: bool) -> None:
    """Check a session whose turn has run through a failover."""
    again = await resume(caller, shown[0].turn_id)
    assert_increasing(again.responses)
    if not failed:
        assert joined(again.responses) == joined(shown)
    turn = await caller.converse("and now?", session_id=session_id, on_busy=turn_pb.ON_BUSY_WAIT, timeout=60.0)
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    messages = await caller.messages(session_id)
    assert_valid_history(messages)
    texts = [each.content[0].text for each in messages if each.role == session_pb.ROLE_USER and each.content[0].text]
    assert texts == ["hi", SCRIPTS[session_id], "and now?"]
    assert_valid_request(caller.service.requests(session_id)[-1]["messages"])
    numbers = [entry.number for entry in caller.service.entries(session_id)]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


async def _nothing_pending(caller: Caller) -> bool:
    return all([(await caller.metrics(name)).totals.pending_calls == 0 for name in SCRIPTS])
