"""A tenant's limits: what they refuse and when to retry, what they admit, and how soon a change takes effect."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.errors import StorageUnavailable
from godoty_service.mongo.collection import Collection
from godoty_service.sessions.lists import SessionLists
from godoty_service.sessions.session import Session
from godoty_service.turns.service import TurnService
from tests.conftest import Start
from tests.e2e.admin.conftest import Admin
from tests.e2e.turns.streams import joined
from tests.support.caller import Caller, Failure, Turn, failure_of
from tests.support.service import Service, eventually, soon

WAIT = turn_pb.ON_BUSY_WAIT
SLOW = "@sandbox slow tokens=200 first_delay_ms=0 delay_ms=50 hold_after=60 record_ms=-1"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
AdminOf = Callable[[Service], Admin]
Connect = Callable[[Service], Caller]


async def limit(admin: Admin, **policy: Any) -> None:
    """Set the policy of the administrator's own tenant."""
    await admin.set_policy(admin.service.tenant_id, tenant_pb2.Policy(**policy))


def failed(turn: Turn | None) -> Failure:
    """Return the failure of a turn."""
    assert turn is not None
    assert turn.failure is not None
    return turn.failure


def refusal(failure: Failure) -> tuple[str, tuple[str, ...]]:
    """Return the reason of a retryable refusal, and its quota."""
    assert failure.code is EXHAUSTED
    assert failure.retry_after
    return failure.reason, failure.quotas


async def begun(caller: Caller, session_id: str, **fields: Any) -> Any:
    """Start a long turn, and wait until it runs."""
    call = caller.start(SLOW, session_id=session_id, **fields)
    assert (await anext(aiter(call))).HasField("turn_started")
    return call


async def test_removed_rate_limit_refuses_no_more(caller: Caller, admin: Admin) -> None:
    """The refusal states when the next turn may start; without the limit it may start at once."""
    await limit(admin, turns_per_minute=1)
    assert (await caller.converse("one")).finished
    refused = await caller.converse("two")
    again = await caller.converse("two")
    await limit(admin)

    for failure in (failed(refused), failed(again)):
        assert refusal(failure) == ("RATE_LIMITED", ("turns/minute",))
        assert 40 < (failure.retry_after or 0) <= 60.01
    assert await eventually(lambda: _served(caller))


async def _served(caller: Caller, **fields: Any) -> bool:
    return (await caller.converse("hello", **fields)).failure is None


@pytest.mark.parametrize(
    ("policy", "reason"),
    [({"turns_per_minute": 1}, "RATE_LIMITED"), ({"allowed_models": ["anthropic/*"]}, "MODEL_NOT_ALLOWED")],
)
async def test_known_request_is_replayed_if_a_new_one_is_refused(
    caller: Caller, admin: Admin, serve: Start, connect: Connect, *, policy: dict[str, Any], reason: str
) -> None:
    """Above the rate, or if the policy no longer allows the model, its turn is replayed; nothing is charged.

    Also by a server that has not run it.
    """
    other_server = await serve(database=caller.service.database.name)
    second_caller = connect(caller.service.at(other_server.target))
    fields = {"model": "openai/gpt-4o-mini", "request_id": "known"}
    first = await caller.converse("hello", **fields)
    await limit(admin, **policy)
    await second_caller.converse("more", model=fields["model"])
    refused = await second_caller.converse("still more", model=fields["model"], request_id="new")
    charged = len(caller.service.entries("talk"))
    again = await second_caller.converse("hello", **fields)
    other = await second_caller.converse("other", **fields)

    assert (failed(refused).reason, failed(other).reason) == (reason, "REQUEST_ID_REUSED")
    assert joined(again.responses) == joined(first.responses)
    assert len(caller.service.entries("talk")) == charged


async def test_queued_turns_do_not_count_as_running(caller: Caller, admin: Admin) -> None:
    """One concurrent turn suffices for four that queue in one session; a turn of a second session is refused."""
    await limit(admin, concurrent_turns=1)
    call = await begun(caller, "talk")
    line = [asyncio.create_task(caller.converse(f"{n}", on_busy=WAIT)) for n in range(3)]
    ids = {"tenant_id": caller.service.tenant_id}
    await soon(lambda: caller.service.database["turns"].count_documents(ids) == 4)
    beside = await caller.converse("hello", session_id="beside")
    call.cancel()

    assert refusal(failed(beside)) == ("TOO_MANY_TURNS", ("turns/concurrent",))
    for turn in await asyncio.gather(*line):
        assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN


@pytest.mark.parametrize("lost", ["leaving", "entering"])
async def test_turn_whose_release_failed_is_released_later(
    serve: Start, connect: Connect, admin_of: AdminOf, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The database fails at its end, or a response is lost at its start: the turn counts on no server."""
    service = await serve()
    other = await serve(database=service.database.name)
    await limit(admin_of(service), concurrent_turns=1)
    failed: list[str] = []
    real = Collection.update_one

    async def update_one(collection: Collection, query: Any, update: Any, **named: Any) -> bool:
        entering, leaving = isinstance(update, list), "$unset" in update
        if failed or collection.name != "turn_limits" or not (leaving if lost == "leaving" else entering):
            return await real(collection, query, update, **named)
        failed.append(lost)
        if entering:
            await real(collection, query, update, **named)
        raise StorageUnavailable("The answer is lost.")

    monkeypatch.setattr(Collection, "update_one", update_one)
    turn = await connect(service).converse("hello")

    assert failed == [lost]
    assert (turn.failure.reason if turn.failure else "") == ("STORAGE_UNAVAILABLE" if lost == "entering" else "")
    assert await eventually(lambda: _served(connect(service.at(other.target)), session_id="else"))


async def test_tenant_without_a_policy_has_the_default_limits(
    serve: Start, connect: Connect, admin_of: AdminOf
) -> None:
    """Per server, in turns a minute and concurrent turns; a policy's own limit replaces them."""
    service = await serve(default_turns_per_minute=3, default_concurrent_turns=2)
    caller, other_tenant = connect(service), connect(service.another_tenant())
    calls = [await begun(caller, f"s{n}") for n in range(2)]
    third = await caller.converse("hello", session_id="third")
    assert await _served(other_tenant)
    for call in calls:
        call.cancel()
    last = failed(await eventually(lambda: _until_refused(caller)))

    assert refusal(failed(third)) == ("TOO_MANY_TURNS", ("turns/concurrent",))
    assert refusal(last) == ("RATE_LIMITED", ("turns/minute",))
    assert 1 < (last.retry_after or 0) <= 20
    assert caller.service.database["turn_limits"].count_documents({}) == 0
    await limit(admin_of(service), turns_per_minute=100)
    assert await _served(caller)


async def _until_refused(caller: Caller) -> Turn | None:
    """Run turns until one is refused for its rate, each after the end of the one before."""
    turn = await caller.converse("hello")
    return turn if turn.failure is not None and turn.failure.reason == "RATE_LIMITED" else None


async def test_open_calls_of_a_tenant_are_limited(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams of turns have one limit, all other calls another; other tenants, and later calls, are served."""
    service = await serve(tenant_streams=2, tenant_calls=2)
    caller, other_tenant = connect(service), connect(service.another_tenant())
    inside: list[str] = []
    hold = asyncio.Event()
    real = SessionLists.page

    async def page(sessions: SessionLists, tenant_id: str, **named: Any) -> list[Session]:
        inside.append(tenant_id)
        await hold.wait()
        return await real(sessions, tenant_id, **named)

    def listing(who: Caller) -> Awaitable[Any]:
        return who.call("ListSessions", agent_pb.ListSessionsRequest())

    monkeypatch.setattr(SessionLists, "page", page)
    streams = [await begun(caller, f"s{n}") for n in range(2)]
    lists = [asyncio.ensure_future(listing(who)) for who in (caller, caller, other_tenant)]
    await soon(lambda: len(inside) == 3)
    one_more = await failure_of(listing(caller))
    third = await caller.converse("hello", session_id="third")
    assert await _served(other_tenant)
    hold.set()
    await asyncio.gather(*lists)
    for call in streams:
        call.cancel()

    assert refusal(one_more) == ("RATE_LIMITED", ("calls/concurrent",))
    assert refusal(failed(third)) == ("RATE_LIMITED", ("streams/concurrent",))
    assert await listing(caller)
    assert await eventually(lambda: _served(caller, session_id="next"))


async def test_waits_for_turns_count_with_the_streams(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant's open WaitTurn and Converse calls have one limit; other calls and tenants are served meanwhile."""
    service = await serve(tenant_streams=2)
    caller, other_tenant = connect(service), connect(service.another_tenant())
    waiting, real = asyncio.Event(), TurnService.wait

    async def wait(turns: TurnService, *given: Any, **named: Any) -> Any:
        waiting.set()
        return await real(turns, *given, **named)

    def wait_for(turn_id: str) -> Awaitable[Any]:
        return caller.call("WaitTurn", agent_pb.WaitTurnRequest(turn_id=turn_id))

    monkeypatch.setattr(TurnService, "wait", wait)
    stream = caller.start(SLOW, session_id="first")
    turn_id = (await anext(aiter(stream))).turn_id
    first = asyncio.ensure_future(wait_for(turn_id))
    await waiting.wait()
    second = await failure_of(wait_for(turn_id))
    third = await caller.converse("hello", session_id="third")
    found = await caller.call("GetTurn", agent_pb.GetTurnRequest(turn_id=turn_id))
    assert await _served(other_tenant)
    stream.cancel()

    assert (await first).turn.state == turn_pb.TURN_STATE_ENDED
    assert found.turn.state == turn_pb.TURN_STATE_RUNNING
    assert refusal(second) == ("RATE_LIMITED", ("streams/concurrent",))
    assert refusal(failed(third)) == ("RATE_LIMITED", ("streams/concurrent",))
    assert (await wait_for(turn_id)).turn.turn_id == turn_id
