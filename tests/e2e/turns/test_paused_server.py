"""A server that stalls or dies during turns: its sessions are taken over after a lease, and it writes no more."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import SessionBusy
from godoty_service.ids import new_id
from godoty_service.ledger.codec import entry_from_document
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import session_totals_from_document
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import SessionTotals
from godoty_service.metering.meter import TurnMeter
from godoty_service.metering.open_call import OpenCall
from godoty_service.mongo.client import open_database
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import SessionStore
from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, joined, resume
from tests.faults.cluster import ServerProcess
from tests.support.caller import Caller, Turn, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.leases import LEASE, SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Document, Service, eventually, soon

BLINK = LEASE
# The monitor would detect the lost sessions; here each turn must detect it by itself.
UNWATCHED: dict[str, Any] = {"lease": BLINK, "heartbeat": 0.05, "turn_watch_interval": 600.0}
# The turns' states when their server stops: streaming, waiting for headers, and writing at full speed.
SCRIPTS = {
    "streams": "@sandbox slow tokens=400 first_delay_ms=0 delay_ms=50 record_ms=-1",
    "waits": "@sandbox delay-headers ms=30000 record_ms=-1",
    "hangs": "@sandbox tool-loop calls=4 fault=hang at=3 hang_after=1 record_ms=-1",
    "writes-1": "@sandbox tool-loop calls=400 delay_ms=1 record_ms=-1",
    "writes-2": "@sandbox tool-loop calls=400 parallel=2 record_ms=-1",
    "writes-3": "@sandbox tool-loop calls=400 delay_ms=3 record_ms=-1",
}


def pid_of(process: ServerProcess) -> int:
    """Return the server's process id."""
    assert process.process is not None
    return process.process.pid


def kept(service: Service) -> dict[str, list[Document]]:
    """Return all documents of the tenant's conversations and turns.

    Session totals are excluded: they follow the ledger entries, which may be settled at any time; see `assert_summed`.
    """
    query = {"tenant_id": service.tenant_id}
    sums = {"totals": 0, "totals_revision": 0, "totals_stale": 0}
    return {
        name: list(service.database[name].find(query, sums).sort("_id", 1))
        for name in ("sessions", "messages", "turn_logs", "turns")
    }


async def unchanging(service: Service) -> dict[str, list[Document]]:
    """Wait until all turns are stored to their ends, and no document changes any more; return them."""
    turns, logs = service.database["turns"], service.database["turn_logs"]
    await soon(lambda: logs.count_documents({"ended": True}) == turns.count_documents({}))
    seen: dict[str, list[Document]] = {}
    while seen != (found := kept(service)):
        seen = found
        await asyncio.sleep(1.0)
    return seen


def assert_summed(service: Service, session_id: str) -> None:
    """Check that a session's totals include all its entries, by any writer."""
    session = service.session(session_id)
    assert session is not None
    entries = [entry_from_document(each) for each in service.entry_documents(session_id)]
    stored, true = session_totals_from_document(session["totals"]), SessionTotals().apply(entries)

    assert stored.last_number == true.last_number == max(each.number for each in entries)
    assert (stored.apply(entries).current(), dict(stored.apply(entries).by_model)) == (
        true.current(),
        dict(true.by_model),
    )


async def busy(service: Service) -> None:
    """Wait until all sessions have a running turn."""
    await soon(lambda: all(service.session(each) and service.entries(each) for each in SCRIPTS))
    await asyncio.sleep(0.1)


async def take_over(survivor: Caller, session_id: str) -> tuple[Turn, float]:
    """Run a turn in a dead server's session; return it, and the seconds until it had begun."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    call = survivor.start("and now?", session_id=session_id, on_busy=turn_pb.ON_BUSY_WAIT)
    first = await anext(aiter(call))
    took = loop.time() - begun
    rest = await read(call)
    return Turn((first, *rest.responses), rest.failure), took


@asynccontextmanager
async def slowest_plain_turn(caller: Caller) -> AsyncIterator[list[float]]:
    """Run turns in free sessions, one after the other, and yield the list of their durations in seconds."""
    took: list[float] = []

    async def take() -> None:
        for number in itertools.count():
            begun = time.monotonic()
            await caller.converse("hello", session_id=f"free-{number}")
            took.append(time.monotonic() - begun)
            await asyncio.sleep(0.5)

    task = asyncio.create_task(take())
    try:
        yield took
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_dead_servers_sessions_continue_within_lease(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller], how: signal.Signals
) -> None:
    """In any state of its turns, a dead server's sessions continue soon after its lease has expired.

    A stopped server that wakes up afterwards changes no session, message or log.
    """
    process, service = await serve_process(
        **SHORT_LEASE_ENVIRONMENT, GODOTY_MAX_MODEL_CALLS="500", GODOTY_STORAGE_TIMEOUT="60"
    )
    other = await serve(database=service.database.name, **SURVIVOR)
    survivor = connect(service.at(other.target))
    caller = connect(service)
    calls = {name: caller.start(text, session_id=name, on_disconnect=CONTINUE) for name, text in SCRIPTS.items()}
    reading = [asyncio.create_task(read(call)) for call in calls.values()]
    await busy(service)
    os.kill(pid_of(process), how)

    async with slowest_plain_turn(survivor) as slowest:
        taken = await asyncio.gather(*(take_over(survivor, each) for each in SCRIPTS))
    for turn, took in taken:
        assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        assert took < LEASE + 20.0 + max(slowest)
    others = {"session_id": {"$in": list(SCRIPTS)}, "_id": {"$nin": _ids(taken)}}
    dead = {each["session_id"]: each["_id"] for each in service.database["turns"].find(others)}
    ends = {name: await resume(survivor, turn_id) for name, turn_id in dead.items()}
    for end in ends.values():
        assert end.finished.stop_reason == turn_pb.STOP_REASON_INTERRUPTED
    for name in SCRIPTS:
        assert_valid_history(await survivor.messages(name))
        assert_valid_request(survivor.service.requests(name)[-1]["messages"])
        assert_summed(service, name)
    if how is signal.SIGSTOP:
        await _wake(service, process, survivor, ends, reading)
    for each in reading:
        each.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


def _ids(taken: list[tuple[Turn, float]]) -> list[str]:
    return [turn.responses[0].turn_id for turn, _ in taken]


def _calls(service: Service, session_id: str) -> list[tuple[str, int]]:
    """Return a session's model calls and their numbers, without adjustments."""
    return [(each["_id"], each["number"]) for each in service.entry_documents(session_id) if each["kind"] == "call"]


async def _wake(
    service: Service, process: ServerProcess, survivor: Caller, ends: dict[str, Turn], reading: list[Any]
) -> None:
    """Wake a stopped server, and check that it writes nothing any more."""
    before = await unchanging(service)  # the survivor's own last chunk is stored
    calls = {name: _calls(service, name) for name in SCRIPTS}
    os.kill(pid_of(process), signal.SIGCONT)
    for turn in await asyncio.gather(*reading):
        assert turn.failure is not None
        assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_LOST")
    await asyncio.sleep(2.0)

    after = kept(service)
    for name, documents in before.items():
        assert after[name] == documents
    for name, end in ends.items():
        assert joined((await resume(survivor, end.responses[0].turn_id)).responses) == joined(end.responses)
        assert _calls(service, name) == calls[name]
        assert_summed(service, name)
        again = await survivor.converse("still there?", session_id=name)
        assert again.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        assert_valid_history(await survivor.messages(name))
        assert_summed(service, name)


def stall() -> None:
    """Stop the server as SIGSTOP does, for longer than its lease, including its heartbeat."""
    time.sleep(BLINK * 1.2)


async def served_again(caller: Caller) -> None:
    """Wait until the server has its heartbeat back, and accepts turns in the session."""
    await eventually(partial(_served, caller))


async def _served(caller: Caller) -> bool:
    turn = await caller.converse("and now?")
    assert turn.failure is None or turn.failure.reason == "SESSION_LOST"
    return turn.failure is None


async def test_stalled_server_inserts_no_call(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a turn, before the next call's entry is inserted: there is no entry, and nothing is sent."""
    caller = connect(await serve(**UNWATCHED))
    real, opened = TurnMeter.open, 0

    async def open_late(meter: TurnMeter, **named: Any) -> OpenCall:
        nonlocal opened
        opened += 1
        if opened == 2:
            stall()
        return await real(meter, **named)

    monkeypatch.setattr(TurnMeter, "open", open_late)
    turn = await caller.converse("@sandbox tool-loop calls=3 tool=calculator")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_LOST")
    assert len(caller.service.entries("talk")) == len(caller.service.requests("talk")) == 1
    await served_again(caller)


async def test_stalled_server_sends_no_request(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a call's entry and its request: the request is not sent, and the entry is void."""
    caller = connect(await serve(**UNWATCHED))
    real, inserted = Ledger.insert, 0

    async def insert_and_stop(ledger: Ledger, entry: ModelCall, **named: Any) -> ModelCall:
        nonlocal inserted
        inserted += 1
        kept = await real(ledger, entry, **named)
        if inserted == 1:
            stall()
        return kept

    monkeypatch.setattr(Ledger, "insert", insert_and_stop)
    turn = await caller.converse("hello")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_LOST")
    assert [entry.state for entry in caller.service.entries("talk")] == [CallState.VOID]
    assert caller.service.requests("talk") == []
    await served_again(caller)
    assert len(caller.service.requests("talk")) == len(caller.service.invoice("talk")) == 1


async def test_session_taken_over_twice_loses_nothing(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """A server dies during a turn, the one that takes over dies before it has completed the history: nothing is lost.

    The first server has inserted the user's text, or not.
    """
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    caller, messages = connect(service), service.database["messages"]
    for name in ("kept", "lost"):
        caller.start("first " + SCRIPTS["streams"], session_id=name, on_disconnect=CONTINUE)
    await soon(lambda: messages.count_documents({"tenant_id": service.tenant_id}) == 2)
    await process.kill()
    messages.delete_many({"session_uid": (service.session("lost") or {})["_id"]})  # it died a moment earlier
    await asyncio.sleep(LEASE)
    for name in ("kept", "lost"):
        claim = await eventually(partial(_claim_and_die, service, name))  # a heartbeat may have been applied late
        assert claim is not None
        assert claim.taken_from is not None
    other = await serve(database=service.database.name, **SURVIVOR)
    survivor = connect(service.at(other.target))

    for name in ("kept", "lost"):
        turn = await survivor.converse("third", session_id=name)
        assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        history = await survivor.messages(name)
        texts = [each.content[0].text.split()[0] for each in history if each.role == session_pb.ROLE_USER]
        assert texts == ["first", "second", "third"]
        assert_valid_history(history)
        assert_valid_request(survivor.service.requests(name)[-1]["messages"])
        (first,) = service.database["turns"].find({"session_id": name, "_id": history[0].turn_id})
        assert (await resume(survivor, first["_id"])).finished.stop_reason == turn_pb.STOP_REASON_INTERRUPTED


async def _claim_and_die(service: Service, session_id: str) -> Claim | None:
    """Acquire a session as a server does that dies immediately afterwards; return None if it is held."""
    database = open_database(uri=service.backends.mongodb_uri, name=service.database.name)
    replicas = ReplicaHeartbeats(
        database.collection("replicas"), replica_id="replica_short", lease=timedelta(seconds=LEASE)
    )
    try:
        return await SessionStore(database.collection("sessions"), replicas=replicas).acquire(
            service.tenant_id,
            session_id,
            turn_id=new_id("turn"),
            text="second",
            model=None,
            default_model="",
            user=None,
        )
    except SessionBusy:
        return None
    finally:
        await database.close()
