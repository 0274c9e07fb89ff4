"""A turn that never began has not used its request id, for any cause; one that began has, even after its deletion."""

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect

from godoty_service.metering.reconciler import Reconciler
from godoty_service.turns.event_log.store import EventLogStore
from godoty_service.turns.turn_store import TurnStore
from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, free, joined, until_text
from tests.support.caller import Caller, Turn
from tests.support.leases import HEARTBEAT, SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Document, Service, soon
from tests.support.waiting import when_free

WAIT = turn_pb.ON_BUSY_WAIT
_WRITES = ("insert_one", "insert_many", "update_one", "bulk_write", "find_one_and_update", "delete_one", "delete_many")


class Outage:
    """Fails all writes of the driver from a given one on.

    Attributes:
        lost: The document of the first write that failed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost: Document | None = None
        self._begins_at, self._lands, self._is_on = "", False, False
        for name in _WRITES:
            monkeypatch.setattr(AsyncCollection, name, self._failing(getattr(AsyncCollection, name)))

    def begin_at(self, kind: str, *, lands: bool) -> None:
        """Start with the next write of a kind (collection and method), which is applied if it `lands`."""
        self._begins_at, self._lands = kind, lands

    def end(self) -> None:
        """Stop failing writes."""
        self._begins_at, self._is_on = "", False

    def _failing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def write(collection: Any, *given: Any, **named: Any) -> Any:
            if f"{collection.name}.{original.__name__}" == self._begins_at and not self._is_on:
                self._is_on, self.lost = True, given[0]
                if self._lands:
                    await original(collection, *given, **named)
            if self._is_on:
                raise AutoReconnect("connection closed")
            return await original(collection, *given, **named)

        return write


async def _pair(serve: Start, connect: Callable[[Service], Caller]) -> tuple[Caller, Caller]:
    """Start two servers on one database; return a caller of each, of the same tenant."""
    first = await serve(heartbeat=HEARTBEAT)
    return connect(first), connect(first.at((await serve(database=first.database.name, heartbeat=HEARTBEAT)).target))


async def _assert_ran_once(turn: Turn, service: Service, *before: str) -> None:
    """Check that a turn was answered, and that only it and the turns of the given ids were charged."""
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    # A call whose insert was applied though its answer was lost is void: nothing was sent.
    await soon(lambda: all(each.state != "pending" for each in service.entries("talk")))
    charged = [each for each in service.entries("talk") if each.state != "void"]
    assert {each.turn_id for each in charged} == {*before, turn.responses[0].turn_id}


@pytest.mark.parametrize("kind", ["turns.insert_one", "sessions.find_one_and_update", "ledger.insert_one"])
async def test_outage_before_first_request_releases_request_id(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A turn that failed because of the database before its first request runs when it is sent again, once."""
    pair = await _pair(serve, connect)
    outage = Outage(monkeypatch)
    for lands, retried in product((False, True), (0, 1)):
        tenant = pair[0].service.another_tenant()
        callers = [connect(tenant.at(each.service.target)) for each in pair]
        await _fail_and_retry(outage, callers, kind, lands=lands, retried=retried)


async def _fail_and_retry(outage: Outage, callers: list[Caller], kind: str, *, lands: bool, retried: int) -> None:
    """Run a turn of the first caller into an outage, and check that a caller's retry runs, once."""
    here = callers[0]
    session_exists = retried == 0
    earlier = [(await here.converse("before")).responses[0].turn_id] if session_exists else []
    outage.begin_at(kind, lands=lands)
    failed = await here.converse("hi", request_id="one")
    outage.end()
    assert failed.failure is not None
    assert failed.failure.code is grpc.StatusCode.UNAVAILABLE

    turn, _ = await when_free(callers[retried], "hi", request_id="one")
    await _assert_ran_once(turn, here.service, *earlier)
    for client in callers:
        assert joined((await client.converse("hi", request_id="one")).responses) == joined(turn.responses)
    texts = [each.content[0].text for each in await here.messages() if each.role == session_pb.ROLE_USER]
    assert texts == [*(["before"] if session_exists else []), "hi"]
    totals = (await here.metrics()).totals
    assert (totals.turns, totals.pending_calls) == (len(texts), 0)
    assert totals.cost_usd == turn.finished.session_totals.cost_usd


async def test_record_that_is_deleted_while_its_turn_is_looked_up_delays_no_retry(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry loop deletes the record between the retry's reads of it; the turn's void entry is still pending."""
    begun, reap, tick = EventLogStore.begun, TurnStore.reap, Reconciler.tick
    stores: set[TurnStore] = set()
    retried = asyncio.Event()

    async def reap_after_read(store: EventLogStore, tenant_id: str, turn_ids: list[str]) -> dict[str, bool]:
        found = await begun(store, tenant_id, turn_ids)
        await asyncio.gather(*map(reap, stores))
        return found

    async def reap_later(store: TurnStore) -> None:
        stores.add(store)

    async def tick_later(reconciler: Reconciler) -> Any:
        await retried.wait()
        return await tick(reconciler)

    monkeypatch.setattr(TurnStore, "reap", reap_later)
    monkeypatch.setattr(EventLogStore, "begun", reap_after_read)
    monkeypatch.setattr(Reconciler, "tick", tick_later)
    here = connect(await serve(heartbeat=HEARTBEAT))
    outage = Outage(monkeypatch)
    outage.begin_at("ledger.insert_one", lands=True)
    assert (await here.converse("hi", request_id="one", on_busy=WAIT)).failure is not None
    outage.end()
    await soon(lambda: stores)
    assert here.service.database["turns"].count_documents({"request_id": "one"}) == 1

    turn = await here.converse("hi", request_id="one", on_busy=WAIT)
    retried.set()
    await _assert_ran_once(turn, here.service)


async def test_late_record_of_turn_is_deleted(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of a turn that its living server does not run delays no retry on another server."""
    here, there = await _pair(serve, connect)
    outage = Outage(monkeypatch)
    outage.begin_at("turns.insert_one", lands=False)
    assert (await here.converse("hi", request_id="one", on_busy=WAIT)).failure is not None
    outage.end()
    turns = here.service.database["turns"]
    assert outage.lost is not None
    turns.insert_one(outage.lost)

    await _assert_ran_once(await there.converse("hi", request_id="one", on_busy=WAIT), here.service)


async def _queue(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller], hold: str
) -> tuple[Any, Caller, Any]:
    """Queue a turn on a server process, behind one that another server runs and holds open."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    there = connect(service.at((await serve(database=service.database.name, **SURVIVOR)).target))
    running = there.start(f"@sandbox plain tokens=9 hold_after=3 hold={hold}", on_disconnect=CONTINUE)
    await until_text(running, "t1")
    waiting = asyncio.create_task(connect(service).converse("hello", request_id="one", on_busy=WAIT))
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    await soon(lambda: service.database["turns"].count_documents({"request_id": "one"}) == 1)
    return process, there, waiting


async def test_retry_runs_queued_turn_of_killed_server(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """It never began, so the server that the retry reaches runs its request, once."""
    process, there, _ = await _queue(serve, serve_process, connect, "killed")
    await process.kill()
    retry = asyncio.create_task(there.converse("hello", request_id="one", on_busy=WAIT))
    own = partial(
        there.service.database["turns"].count_documents,
        {"request_id": "one", "replica_id": {"$ne": process.replica_id}},
    )
    await soon(lambda: retry.done() or own() == 1)
    there.service.backends.allow("killed")

    turn = await retry
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    texts = [each.content[0].text for each in await there.messages() if each.role == session_pb.ROLE_USER]
    assert texts[1:] == ["hello"]
    assert len(there.service.entries("talk")) == 2


async def test_stalled_server_does_not_run_turn_of_its_retry(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """A retry on another server runs a turn that was queued on a stopped server; that server does not run it again."""
    process, there, waiting = await _queue(serve, serve_process, connect, "stopped")
    process.process.send_signal(signal.SIGSTOP)
    there.service.backends.allow("stopped")
    turn = await there.converse("hello", request_id="one", on_busy=WAIT)
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    process.process.send_signal(signal.SIGCONT)

    again = await waiting
    assert again.failure is not None or joined(again.responses) == joined(turn.responses)
    await free(there.service)
    assert len(there.service.entries("talk")) == 2


async def test_request_id_stays_used_after_session_deletion(caller: Caller, second_caller: Caller) -> None:
    """A late duplicate is TURN_NOT_FOUND on every server, and is not charged; another id begins a new session."""
    turn = await caller.converse("hi", request_id="one")
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))
    for client in (caller, second_caller):
        late = await client.converse("hi", request_id="one")
        assert late.failure is not None
        assert (late.failure.code, late.failure.reason) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
        assert late.failure.metadata == {"turn_id": turn.responses[0].turn_id}
        assert late.responses == ()
        other = await client.converse("other", request_id="one")
        assert other.failure is not None
        assert other.failure.reason == "REQUEST_ID_REUSED"
    assert len(caller.service.entries("talk")) == 1
    assert caller.service.session("talk") is None

    assert (await caller.converse("hi", request_id="two")).started.session_created
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))
    assert (await second_caller.converse("hi", request_id="one")).failure is not None
