"""Changes while a turn waits or runs: a revoked key, a narrowed policy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.clock import utc_now
from godoty_service.tenancy.auth import Scope
from tests.e2e.turns.streams import CONTINUE, cancel, until_text
from tests.support.caller import Caller, Turn
from tests.support.service import soon

WAIT = turn_pb.ON_BUSY_WAIT
PROMISE = 5.0  # seconds after its revocation in which a key may still make model calls
CHECKED = 1.2  # seconds after which a turn that waits for another server is checked again before it begins
RELOADED = 4.2  # seconds after which that check is by a policy that is read again: one is cached for 3 seconds
CALLS = 25
HELD = "@sandbox plain tokens=9 hold_after=2 hold=meanwhile record_ms=-1"
# Calls of a second and a half each.
LONG_LOOP = f"@sandbox tool-loop calls={CALLS} tool=calculator first_delay_ms=1500"
HERE, THERE = PLACES = ("here", "there")  # the server that runs the turn in front, and another one
ENDS = {"revoked": "revoke_time", "expired": "expire_time"}  # of a key, and the time that it sets

SetPolicy = Callable[[tenant_pb2.Policy], Awaitable[None]]


@pytest.fixture
async def set_policy(caller: Caller, issue: Callable[..., str]) -> AsyncIterator[SetPolicy]:
    """Return a function that sets the tenant's policy."""
    key = issue(caller.service, scopes=frozenset({Scope.ADMIN}))
    async with grpc.aio.insecure_channel(caller.service.target) as channel:
        stub: Any = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated

        async def set_to(policy: tenant_pb2.Policy) -> None:
            request = admin_pb.UpdatePolicyRequest(
                tenant_id=caller.service.tenant_id, policy=policy, update_mask={"paths": ["*"]}
            )
            await stub.UpdatePolicy(request, metadata=(("authorization", f"Bearer {key}"),), timeout=180)

        yield set_to


@dataclass(frozen=True)
class QueuedTurn:
    """A turn that waits behind a running one of another key of its tenant.

    Attributes:
        session_id: The session of both.
        key_id: The key of the one that waits.
    """

    session_id: str
    key_id: str
    holder: Caller
    first_id: str
    waiting: "asyncio.Task[Turn]"

    async def end(self) -> Turn:
        """End the turn in front, and return the one that waited."""
        await cancel(self.holder, self.first_id)
        return await self.waiting


Queue = Callable[[str, str], Awaitable[QueuedTurn]]


@pytest.fixture
def queue(caller: Caller, second_caller: Caller, issue: Callable[..., str]) -> Queue:
    """Queues a turn in a session: on the server that runs the one in front, or on another."""

    async def queue_one(session_id: str, place: str) -> QueuedTurn:
        call = caller.start(HELD, session_id=session_id, on_disconnect=CONTINUE)
        first_id = (await until_text(call, "t1 "))[0].turn_id
        call.cancel()
        key = issue(caller.service, scopes=frozenset({Scope.CONVERSE}))
        server = caller if place == HERE else second_caller
        waiter = Caller(server.service.with_key(key), server.channel)
        waiting = asyncio.create_task(waiter.converse("hello", session_id=session_id, on_busy=WAIT))
        query = {"tenant_id": caller.service.tenant_id, "session_id": session_id}
        await soon(lambda: caller.service.database["turns"].count_documents(query) == 2)
        return QueuedTurn(session_id, waiter.service.key_id, caller, first_id, waiting)

    return queue_one


def end_key(caller: Caller, key_id: str, *, how: str) -> None:
    """Revoke a key as another server would, or have it expired."""
    ended = {"$set": {ENDS[how]: utc_now() - timedelta(seconds=1)}}
    assert caller.service.database["api_keys"].update_one({"_id": key_id}, ended).modified_count == 1


def assert_refused(turn: Turn, caller: Caller, session_id: str, *, reason: str) -> None:
    """Check that a turn was refused before its first model call."""
    assert turn.failure is not None, session_id
    assert (session_id, turn.failure.reason) == (session_id, reason)
    assert set(turn.kinds) <= {"heartbeat"}
    assert len(caller.service.entries(session_id)) == 1


async def test_ended_key_stops_queued_turn(queue: Queue, caller: Caller) -> None:
    """A key that is revoked or expires while its turn is queued, here or there, starts no model call."""
    turns = {(how, place): await queue(f"{how}-{place}", place) for how in ENDS for place in PLACES}
    for (how, _), each in turns.items():
        end_key(caller, each.key_id, how=how)
    await asyncio.sleep(CHECKED)

    for each in turns.values():
        assert_refused(await each.end(), caller, each.session_id, reason="INVALID_API_KEY")


async def test_narrowed_policy_refuses_queued_turn(queue: Queue, caller: Caller, set_policy: SetPolicy) -> None:
    """A turn that waited is checked against the policy at the end of its wait."""
    turns = [await queue(place, place) for place in PLACES]
    await set_policy(tenant_pb2.Policy(allowed_models=["anthropic/*"], default_model="anthropic/claude-haiku-4.5"))
    await asyncio.sleep(RELOADED)

    for each in turns:
        assert_refused(await each.end(), caller, each.session_id, reason="MODEL_NOT_ALLOWED")


async def test_queued_turn_uses_policy_at_end_of_wait(queue: Queue, caller: Caller, set_policy: SetPolicy) -> None:
    """Its limit on output tokens is the new policy's."""
    turns = [await queue(place, place) for place in PLACES]
    await set_policy(tenant_pb2.Policy(max_output_tokens=7))
    await asyncio.sleep(RELOADED)

    for each in turns:
        assert (await each.end()).finished
        assert [body.get("max_tokens") for body in caller.service.requests(each.session_id)][-1] == 7


async def test_turn_limit_is_released_by_policy_of_its_acquisition(
    queue: Queue, caller: Caller, set_policy: SetPolicy
) -> None:
    """A limit that is removed while a turn waits for another server does not leave the turn counted."""
    await set_policy(tenant_pb2.Policy(concurrent_turns=5))
    queued = await queue("talk", THERE)
    turn_limits, tenant = caller.service.database["turn_limits"], {"_id": caller.service.tenant_id}

    def running() -> int:
        return len((turn_limits.find_one(tenant) or {}).get("running", {}))

    await soon(lambda: running() == 2)
    await set_policy(tenant_pb2.Policy())
    await asyncio.sleep(RELOADED)

    assert (await queued.end()).finished
    await soon(lambda: running() == 0)


async def test_exhausted_rate_limit_does_not_refuse_admitted_turn(
    queue: Queue, second_caller: Caller, set_policy: SetPolicy
) -> None:
    """A turn that waits for another server has its place in the minute: a later turn's refusal does not affect it."""
    await set_policy(tenant_pb2.Policy(turns_per_minute=2))
    queued = await queue("talk", THERE)
    refused = await second_caller.converse("hello", session_id="other")
    assert refused.failure is not None
    assert refused.failure.reason == "RATE_LIMITED"
    await asyncio.sleep(CHECKED)

    assert (await queued.end()).finished


async def test_ended_key_stops_its_running_turn(caller: Caller, issue: Callable[..., str]) -> None:
    """It soon makes no further model call, and its earlier ones are settled; a turn of another key goes on."""
    keys = {how: issue(caller.service, scopes=frozenset({Scope.CONVERSE})) for how in (*ENDS, "valid")}
    callers = {how: Caller(caller.service.with_key(key), caller.channel) for how, key in keys.items()}
    turns = {how: asyncio.create_task(each.converse(LONG_LOOP, session_id=how)) for how, each in callers.items()}
    await soon(lambda: all(caller.service.session(how) and len(caller.service.entries(how)) >= 2 for how in keys))
    ended = utc_now()
    for how in ENDS:
        end_key(caller, callers[how].service.key_id, how=how)
    for how in ENDS:
        taken = await turns[how]
        assert taken.failure is not None
        assert (taken.failure.code, taken.failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")
        entries = caller.service.entries(how)
        assert len(entries) < CALLS
        assert max(each.start_time for each in entries) < ended + timedelta(seconds=2 * PROMISE)
        assert sum(each.cost or 0 for each in entries) == caller.service.invoiced(how)
    made = len(caller.service.entries("valid"))
    await soon(lambda: turns["valid"].done() or len(caller.service.entries("valid")) > made)

    assert not turns["valid"].done()
    await cancel(caller, str(caller.service.entries("valid")[0].turn_id))
    assert (await turns["valid"]).failure is not None
