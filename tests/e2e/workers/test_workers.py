"""`godoty serve` with two workers, in a fresh interpreter: one port, one metrics page, and a correct ledger."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import turn_pb2 as turn_pb
from prometheus_client.parser import text_string_to_metric_families

from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from tests.conftest import server_environment
from tests.e2e.turns.streams import until_text
from tests.faults.cluster import logged
from tests.support.backends import Backends
from tests.support.caller import Caller, Turn, read
from tests.support.command import Command
from tests.support.leases import SHORT_LEASE_ENVIRONMENT
from tests.support.service import Service, eventually, soon, until

HELD = "@sandbox plain tokens=20 hold_after=3 hold="
_WORKERS = 2
_CONNECTIONS = 40  # enough for each of two workers to get one


@dataclass
class Processes:
    """A supervisor and its workers."""

    process: "subprocess.Popen[bytes]"
    log: Path
    environment: dict[str, str]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return their log lines of an event."""
        return [*logged(self.log.read_bytes(), event)]

    def kill(self) -> None:
        """Kill them if they run."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start(environment: dict[str, str], log: Path) -> Processes:
    """Start `godoty serve` as an operator would."""
    command = (sys.executable, "-m", "godoty_service.cli", "serve")
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)  # noqa: S603 - ours
    started = Processes(process, log, environment)
    until(lambda: process.poll() is not None or len(started.logged("serving")) == _WORKERS)
    assert process.returncode is None, log.read_text()
    return started


@dataclass
class Server:
    """A `godoty serve` with two workers, and a tenant of it."""

    processes: Processes
    service: Service
    stack: AsyncExitStack
    callers: list[Caller] = field(default_factory=list)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of an event."""
        return self.processes.logged(event)

    @property
    def pid(self) -> int:
        """The process id of its supervisor."""
        return self.processes.process.pid

    def workers(self) -> set[int]:
        """Return the process ids of its workers; the kernel may return a part of them while processes start or end."""
        return {int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}

    async def connect(self) -> Caller:
        """Connect a caller; the kernel chooses the worker."""
        channel = grpc.aio.insecure_channel(self.service.target, [("grpc.use_local_subchannel_pool", 1)])
        await self.stack.enter_async_context(channel)
        self.callers.append(Caller(self.service, channel))
        return self.callers[-1]

    async def one_of_each(self) -> dict[str, Caller]:
        """Connect callers until both workers have one; return them by the replica id of the worker."""
        found: dict[str, Caller] = {}
        for _ in range(_CONNECTIONS):
            caller = await self.connect()
            session_id = f"s{len(self.callers)}"
            assert (await caller.converse("hi", session_id=session_id)).failure is None
            (entry,) = self.service.entries(session_id)
            found[str(entry.owner)] = caller
            if len(found) == _WORKERS:
                return found
        raise AssertionError(f"all connections went to {set(found)}")

    async def page(self) -> dict[str, float]:
        """Return the metrics by their names and labels."""
        port = self.logged("serving")[0]["metrics_port"]
        with await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {" ".join((each.name, *map(str, sorted(each.labels.values())))): each.value for each in samples}


@pytest.fixture(scope="module")
def serving_two(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Processes]]:
    """Returns the processes that serve; they are started again once a test has stopped them."""
    directory, database = tmp_path_factory.mktemp("workers"), backends.new_database()
    started: list[Processes] = []
    environment = server_environment(backends, database) | {
        "GODOTY_WORKERS": "2",
        "GODOTY_METRICS_LISTEN": "127.0.0.1:0",
        "GODOTY_DRAIN_GRACE": "30",
        **SHORT_LEASE_ENVIRONMENT,
        "TMPDIR": str(directory),
    }

    def serving() -> Processes:
        if not started or started[-1].process.poll() is not None:
            started.append(start(environment, directory / f"server{len(started)}.log"))
        return started[-1]

    yield serving
    for each in started:
        each.kill()
    backends.mongo.drop_database(database)


@pytest.fixture
async def server(backends: Backends, serving_two: Callable[[], Processes]) -> AsyncIterator[Server]:
    """A server with two workers, and a new tenant of it."""
    processes = serving_two()
    address, database = processes.logged("serving")[0]["address"], processes.environment["GODOTY_MONGODB_DATABASE"]
    async with AsyncExitStack() as stack:
        yield Server(processes, backends.service(address, database), stack)


def assert_single_thread(server: Server) -> None:
    """Check that the supervisor has no further thread: forked processes could not use it."""
    assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1


async def assert_port_is_reserved(server: Server, tmp_path: Path) -> None:
    """Check that a second server on the port fails, with workers or without, and reports it in one line."""
    address = server.service.target
    for workers in ("1", "2"):
        log = tmp_path / f"second-{workers}.log"
        environment = {**server.processes.environment, "GODOTY_LISTEN": address, "GODOTY_WORKERS": workers}
        assert await asyncio.wait_for(Command("serve", environment=environment, out=log).wait(), 180) == 1
        assert log.read_text().splitlines()[-1].startswith(f"godoty: GODOTY_LISTEN={address}: the address cannot")


async def test_two_workers_serve_as_one(server: Server, tmp_path: Path) -> None:
    """Both get calls, one page counts all of them, and no other server can listen on the port."""
    callers = await server.one_of_each()
    assert set(callers) == {line["replica_id"] for line in server.logged("serving")}
    assert_single_thread(server)
    running = [
        caller.start(f"{HELD}both", session_id=f"long-{number}") for number, caller in enumerate(callers.values())
    ]
    for call in running:
        await anext(aiter(call))
    await eventually(lambda: shows(server, "godoty_running_turns", 2))
    server.service.backends.allow("both")
    turns = [await read(call) for call in running]

    assert [turn.failure for turn in turns] == [None, None]
    calls = len(server.callers) + 2
    await eventually(lambda: shows(server, "godoty_requests_total /godoty.v1.AgentService/Converse OK", calls))
    charged = float(sum(each["cost"].to_decimal() for each in server.service.database["ledger"].find()))
    for _ in range(8):  # of either worker
        page = await server.page()
        assert page["godoty_requests_total /godoty.v1.AgentService/Converse OK"] == calls
        assert sum(value for name, value in page.items() if name.startswith("godoty_cost_usd_total")) == pytest.approx(
            charged
        )
        assert page["godoty_running_turns"] == 0
        assert 0 <= page["godoty_catalogue_age_seconds"] < 600
    await assert_port_is_reserved(server, tmp_path)


async def shows(server: Server, name: str, value: float) -> bool:
    """Return whether the page has a value."""
    return (await server.page()).get(name) == value


async def test_killed_worker_is_replaced_and_signal_drains(server: Server) -> None:
    """The other worker's turn continues, the killed one's call is settled as billed; then all workers drain."""
    calls = await turn_on_each(server, "killed")
    counted = len(server.callers)
    before = await soon(lambda: found if len(found := server.workers()) == _WORKERS else set())
    os.kill(min(before), signal.SIGKILL)
    await soon(lambda: len(server.logged("serving")) == 3)
    server.service.backends.allow("killed")
    turns = {name: await read(call) for name, call in calls.items()}

    (killed,) = [name for name, turn in turns.items() if turn.failure is not None]
    assert [turn.finished.stop_reason for turn in turns.values() if not turn.failure] == [turn_pb.STOP_REASON_END_TURN]
    await soon(lambda: len(server.workers() - before) == 1)
    ended = {server.service.entries(killed)[0].owner}
    assert set(await server.one_of_each()) == {line["replica_id"] for line in server.logged("serving")} - ended
    assert (await settled(server.service, killed)).cost == server.service.invoiced(killed)
    await eventually(lambda: shows(server, "godoty_running_turns", 0))
    page = await server.page()
    assert page["godoty_requests_total /godoty.v1.AgentService/Converse OK"] > counted
    await assert_signal_drains(server)


async def turn_on_each(server: Server, hold: str) -> dict[str, Any]:
    """Start a turn on each worker that waits at a hold; return the calls by their sessions.

    A connection that was closed meanwhile is opened again to either worker: the turns are started again then.
    """
    for attempt in range(_CONNECTIONS):
        callers = await server.one_of_each()
        calls = {
            f"{name}-{attempt}": caller.start(f"{HELD}{hold}", session_id=f"{name}-{attempt}")
            for name, caller in callers.items()
        }
        for call in calls.values():
            await until_text(call, "t2 ")
        # By its id the record of a killed call is found; it is written while the answer arrives.
        for name in calls:
            await soon(partial(_generation_of, server.service, name))
        if len({server.service.entries(name)[0].owner for name in calls}) == len(calls):
            return calls
        for call in calls.values():
            call.cancel()
    raise AssertionError("the turns of two connections always ran on one worker")


def _generation_of(service: Service, session_id: str) -> str | None:
    return service.entries(session_id)[0].generation_id


async def settled(service: Service, session_id: str) -> ModelCall:
    """Wait until a session's only call is settled."""
    await soon(lambda: service.entries(session_id)[0].state is CallState.SETTLED)
    (call,) = service.entries(session_id)
    return call


async def assert_signal_drains(server: Server) -> None:
    """Check that a signal to supervisor and workers drains a running turn, and that no process or file remains."""
    workers = server.workers()
    caller = server.callers[-1]
    call = caller.start(f"{HELD}last", session_id="last")
    await anext(aiter(call))
    os.killpg(server.pid, signal.SIGTERM)
    server.service.backends.allow("last")
    turn: Turn = await read(call)

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert await asyncio.to_thread(server.processes.process.wait, 60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert list(server.processes.log.parent.glob("godoty-metrics-*")) == []


async def test_workers_drain_when_the_supervisor_is_killed(
    backends: Backends, new_database: str, tmp_path: Path, connect: Callable[[Service], Caller]
) -> None:
    """Its workers finish their turns, and end."""
    log = tmp_path / "server.log"
    environment = server_environment(backends, new_database) | {
        "GODOTY_WORKERS": "2",
        "GODOTY_DRAIN_GRACE": "30",
    }
    supervisor = Command("serve", environment=environment, out=log)
    await soon(lambda: log.exists() and len([*logged(log.read_bytes(), "serving")]) == _WORKERS)
    address = next(logged(log.read_bytes(), "serving"))["address"]
    workers = [line["pid"] for line in logged(log.read_bytes(), "worker_started")]
    call = connect(backends.service(address, new_database)).start(f"{HELD}orphans")
    await anext(aiter(call))
    supervisor.send_signal(signal.SIGKILL)
    backends.allow("orphans")

    assert (await read(call)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    await soon(lambda: not any(Path(f"/proc/{pid}/fd").exists() and alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_failed_start_is_reported_in_one_line(backends: Backends, new_database: str, tmp_path: Path) -> None:
    """A wrong setting is reported once, not by each worker; the exit status is 1."""
    log = tmp_path / "server.log"
    environment = server_environment(backends, new_database) | {"GODOTY_WORKERS": "2", "OPENROUTER_API_KEY": ""}
    environment.pop("OPENROUTER_API_KEY")
    code = await asyncio.wait_for(Command("serve", environment=environment, out=log).wait(), 180)

    assert code == 1
    assert [line for line in log.read_text().splitlines() if not line.startswith("{")] == [
        "godoty: OPENROUTER_API_KEY is not set: set the account's key, or use `godoty dev`."
    ]
