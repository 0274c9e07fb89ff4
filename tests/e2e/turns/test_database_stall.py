"""A database that stalls and resumes: no session stays locked, and a busy session is refused at once."""

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.bootstrap.components import open_components
from godoty_service.server import running
from godoty_service.turns.turn_store import TurnStore
from openrouter_sandbox.mongodb.replica_set import LocalMongo
from tests.conftest import Start
from tests.e2e.turns.conftest import differences
from tests.e2e.turns.streams import SLOW, until_text
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.history import assert_valid_history
from tests.support.service import Service, eventually, soon

LEASE = 12.0
SESSIONS = 20


async def test_stalled_database_leaves_no_session_locked(tmp_path: Path, connect: Callable[[Service], Caller]) -> None:
    """Twenty turns begin while the database stalls for two timeouts: all sessions work afterwards."""
    async with LocalMongo(tmp_path) as mongo:
        with Backends(None, mongo.uri) as backends:
            database = backends.new_database()
            async with open_components(backends.settings(database)):  # creates the indexes with a longer timeout
                pass
            quick: dict[str, Any] = {"lease": LEASE, "heartbeat": 0.5, "storage_timeout": 2.0}
            async with running(backends.settings(database, **quick)) as server:
                caller = connect(backends.service(server.address, database))
                names = [f"talk-{number}" for number in range(SESSIONS)]
                for name in names[::2]:  # the others are new
                    await caller.converse("hi", session_id=name)
                await _converse_in_a_stall(mongo, caller, names)
                await soon(lambda: server.turns.running == 0)
                for name in names:
                    await eventually(partial(_served, caller, name))
                    assert_valid_history(await caller.messages(name))
                assert backends.mongo[database]["sessions"].count_documents({"lease": {"$ne": None}}) == 0
            assert await differences(mongo.uri, database) == []


async def _converse_in_a_stall(mongo: LocalMongo, caller: Caller, names: list[str]) -> None:
    """Stop the database, begin a turn in each session, and resume the database after more than two timeouts."""
    pid = mongo.mongod.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        stalled = [asyncio.create_task(caller.converse("hello", session_id=name)) for name in names]
        await asyncio.sleep(5.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    for turn in await asyncio.gather(*stalled):
        assert turn.failure is None or turn.failure.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)


async def _served(caller: Caller, session_id: str) -> bool:
    turn = await caller.converse("and now?", session_id=session_id)
    assert turn.failure is None or turn.failure.reason in ("SESSION_BUSY", "STORAGE_UNAVAILABLE", "SESSION_LOST")
    return turn.failure is None


async def test_reject_answers_at_once_during_database_stall(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is held by a turn of this server is SESSION_BUSY without any database operation."""
    caller = connect(await serve())
    call = caller.start(SLOW)
    await until_text(call, "t0 ")
    resumed = asyncio.Event()
    begin = TurnStore.begin

    async def stalled(records: TurnStore, record: Any) -> Any:
        await resumed.wait()
        return await begin(records, record)

    monkeypatch.setattr(TurnStore, "begin", stalled)
    try:
        busy = await caller.converse("hello", timeout=20.0)
    finally:
        resumed.set()

    assert busy.failure is not None
    assert (busy.failure.code, busy.failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_BUSY")
    assert busy.failure.retry_after
    assert caller.service.database["turns"].count_documents({}) == 1
    call.cancel()


async def test_reject_is_never_queued(caller: Caller) -> None:
    """While turns wait in line, and one hands the session to the next, a caller with REJECT is never queued."""
    holds = [f"queue-{number}" for number in range(6)]
    turns = [
        asyncio.create_task(
            caller.converse(f"@sandbox plain tokens=3 hold_after=1 hold={hold}", on_busy=turn_pb.ON_BUSY_WAIT)
        )
        for hold in holds
    ]
    refused = 0
    while not all(each.done() for each in turns):
        for _ in range(5):  # a queued one would wait for a turn that is held
            turn = await caller.converse("@sandbox plain tokens=1 flat=1", timeout=20.0)
            if turn.failure is not None:
                assert turn.failure.reason == "SESSION_BUSY"
                refused += 1
        if holds:
            caller.service.backends.allow(holds.pop())
    assert refused > 0
    assert all(each.result().failure is None for each in turns)
