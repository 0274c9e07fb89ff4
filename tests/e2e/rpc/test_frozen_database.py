"""A database that does not respond: health reports it within 5 seconds, and no call waits longer."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.bootstrap.components import open_components
from godoty_service.server import running
from openrouter_sandbox.mongodb.replica_set import LocalMongo
from tests.e2e.clocks.conftest import health
from tests.e2e.turns.streams import until_text
from tests.support.backends import Backends
from tests.support.caller import Caller, Failure, failure_of, read
from tests.support.service import Service, eventually, until

PROMISE = 5.0  # seconds
ENDED = 20.0  # seconds; a call that waits for the database itself ends after STORAGE_TIMEOUT
STORAGE_TIMEOUT = 120.0


@dataclass(frozen=True)
class Frozen:
    """A server on a MongoDB that a test can suspend."""

    caller: Caller
    mongo: LocalMongo

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Suspend the database while the block runs."""
        pid = self.mongo.mongod.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: stopped(pid))
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def health(self) -> str:
        """Return the server's health."""
        return await health(self.caller.service.target)


@pytest.fixture(scope="module")
def own_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalMongo, Backends]]:
    """A MongoDB that is suspended, and backends on it."""
    mongo = LocalMongo(tmp_path_factory.mktemp("mongo"))
    asyncio.run(mongo.start())
    try:
        with Backends(None, mongo.uri) as backends:
            yield mongo, backends
    finally:
        asyncio.run(mongo.stop())


@pytest.fixture
async def frozen(own_mongo: tuple[LocalMongo, Backends], connect: Callable[[Service], Caller]) -> AsyncIterator[Frozen]:
    """Return a server on that MongoDB."""
    mongo, backends = own_mongo
    database = backends.empty_database()
    async with open_components(backends.settings(database)):
        pass
    settings = backends.settings(database, storage_timeout=STORAGE_TIMEOUT)
    assert settings.storage_probe_interval + settings.storage_probe_timeout < PROMISE
    async with running(settings) as server:
        yield Frozen(connect(backends.service(server.address, database)), mongo)


def stopped(pid: int) -> bool:
    """Return whether each thread of a process is stopped: on a busy machine that takes a while."""
    states = [
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) == {"T"}


async def timed(call: Any) -> tuple[Failure, float]:
    """Return the failure of a call, and its seconds."""
    begun = time.monotonic()
    return await failure_of(call), time.monotonic() - begun


async def serving(frozen: Frozen) -> bool:
    """Return whether the server's health is good."""
    return await frozen.health() == "SERVING"


def assert_unavailable(failure: Failure) -> None:
    """Check that the error has a retry delay."""
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert failure.retry_after


async def test_frozen_database_is_reported_within_5_seconds(frozen: Frozen) -> None:
    """Waiting calls end, later ones are refused at once; when the database resumes, all are served again."""
    caller = frozen.caller
    await caller.converse("hello")
    await eventually(lambda: serving(frozen))

    with frozen.stopped():
        waiting = [
            timed(caller.call("ListSessions", pb.ListSessionsRequest())),
            timed(caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))),
            timed(caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="other"))),
            timed(anext(aiter(caller.start("hello", session_id="new")))),
            timed(
                anext(
                    aiter(
                        caller.start(
                            "hello", session_id="kept", request_id="one", on_disconnect=turn_pb.ON_DISCONNECT_CONTINUE
                        )
                    )
                )
            ),
        ]
        for failure, seconds in await asyncio.gather(*waiting):
            assert_unavailable(failure)
            assert seconds < ENDED
        assert await frozen.health() == "NOT_SERVING"
        begun = time.monotonic()
        for _ in range(10):  # if each waited for the next probe, they would take 40 seconds
            assert_unavailable(await failure_of(caller.call("ListSessions", pb.ListSessionsRequest())))
        assert time.monotonic() - begun < ENDED

    await eventually(lambda: serving(frozen))

    async def served() -> bool:
        turn = await caller.converse(
            "hello", session_id="kept", request_id="one", on_disconnect=turn_pb.ON_DISCONNECT_CONTINUE
        )
        assert turn.failure is None or turn.failure.reason in ("SESSION_BUSY", "STORAGE_UNAVAILABLE", "SESSION_LOST")
        return turn.failure is None

    await eventually(served)


async def test_running_turn_outlives_a_frozen_database(frozen: Frozen) -> None:
    """A turn that has responded continues, and ends when the database resumes."""
    call = frozen.caller.start("@sandbox plain tokens=40 hold_after=20 hold=frozen", on_disconnect=1)
    await anext(aiter(call))
    await anext(aiter(call))
    with frozen.stopped():

        async def noticed() -> bool:
            return await frozen.health() == "NOT_SERVING"

        await eventually(noticed)
        frozen.caller.service.backends.allow("frozen")
        await until_text(call, "t39 ")

    assert (await read(call)).finished
