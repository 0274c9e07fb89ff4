"""Changes while a turn waits or runs: a revoked key, a narrowed policy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.clock import utc_now
from godoty_service.tenancy.auth import Scope
from tests.e2e.turns.streams import SLOW, cancel, until_text
from tests.support.caller import Caller, Turn, read
from tests.support.service import soon

WAIT = pb.ON_BUSY_WAIT
PROMISE = 5.0  # seconds after its revocation in which a key may still make model calls
CACHED = 3.2  # seconds after which a server has reloaded a key or a policy
CALLS = 25
# Calls of a second and a half each.
LONG_LOOP = f"@sandbox tool-loop calls={CALLS} tool=calculator first_delay_ms=1500"

SetPolicy = Callable[[admin_pb.Policy], Awaitable[None]]


@pytest.fixture
async def set_policy(caller: Caller, issue: Callable[..., str]) -> AsyncIterator[SetPolicy]:
    """Return a function that sets the tenant's policy."""
    key = issue(caller.service, scopes=frozenset({Scope.ADMIN}))
    async with grpc.aio.insecure_channel(caller.service.target) as channel:
        stub: Any = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated

        async def set_to(policy: admin_pb.Policy) -> None:
            request = admin_pb.SetPolicyRequest(tenant_id=caller.service.tenant_id, policy=policy)
            await stub.SetPolicy(request, metadata=(("authorization", f"Bearer {key}"),), timeout=30)

        yield set_to


class QueuedTurn:
    """A turn that waits behind a running one of another key of its tenant."""

    def __init__(self, holder: Caller, call: Any, waiter: Caller, other_key: str) -> None:
        self.holder = holder
        self._call = call
        request = pb.ConverseRequest(session_id="talk", text="hello", on_busy=WAIT)
        metadata = (("authorization", f"Bearer {other_key}"),)
        self.key_id = other_key.split("_")[1]
        self._waiting = asyncio.create_task(read(waiter.stub.Converse(request, metadata=metadata, timeout=90)))

    async def end(self) -> Turn:
        """End the turn in front, and return the one that waited."""
        await cancel(self.holder, (await anext(aiter(self._call))).turn_id)
        turn = await self._waiting
        self._call.cancel()
        return turn


@pytest.fixture(params=["one server", "two servers"])
async def queued(
    request: pytest.FixtureRequest, caller: Caller, second_caller: Caller, issue: Callable[..., str]
) -> QueuedTurn:
    """Return a queued turn: on the server that runs the one in front, or on another."""
    call = caller.start(SLOW)
    await until_text(call, "t1 ")
    other_key = issue(caller.service, scopes=frozenset({Scope.CONVERSE}))
    waiting = QueuedTurn(caller, call, caller if request.param == "one server" else second_caller, other_key)
    turns = caller.service.database["turns"]
    await soon(lambda: turns.count_documents({"tenant_id": caller.service.tenant_id}) == 2)
    return waiting


def revoke(caller: Caller, key_id: str) -> None:
    """Revoke a key, as another server would."""
    keys = caller.service.database["api_keys"]
    assert keys.update_one({"_id": key_id}, {"$set": {"revoke_time": utc_now()}}).modified_count == 1


def assert_refused(turn: Turn, caller: Caller, *, reason: str) -> None:
    """Check that a turn was refused before its first model call."""
    assert turn.failure is not None
    assert turn.failure.reason == reason
    assert set(turn.kinds) <= {"heartbeat"}
    assert len(caller.service.entries("talk")) == 1


async def test_revoked_key_stops_queued_turn(queued: QueuedTurn, caller: Caller) -> None:
    """A key that is revoked while its turn is queued starts no model call."""
    revoke(caller, queued.key_id)
    await asyncio.sleep(CACHED + 1.2)  # a turn that waits for another server checks its key once a second

    assert_refused(await queued.end(), caller, reason="INVALID_API_KEY")


async def test_expired_key_stops_queued_turn(queued: QueuedTurn, caller: Caller) -> None:
    """A key that expires while its turn is queued starts no model call."""
    expired = {"$set": {"expire_time": utc_now() - timedelta(seconds=1)}}
    caller.service.database["api_keys"].update_one({"_id": queued.key_id}, expired)
    await asyncio.sleep(CACHED + 1.2)

    assert_refused(await queued.end(), caller, reason="INVALID_API_KEY")


async def test_narrowed_policy_refuses_queued_turn(queued: QueuedTurn, caller: Caller, set_policy: SetPolicy) -> None:
    """A turn that waited is checked against the policy at the end of its wait."""
    await set_policy(admin_pb.Policy(allowed_models=["anthropic/*"], default_model="anthropic/claude-haiku-4.5"))
    await asyncio.sleep(CACHED + 1.2)

    assert_refused(await queued.end(), caller, reason="MODEL_NOT_ALLOWED")


async def test_queued_turn_uses_policy_at_end_of_wait(
    queued: QueuedTurn, caller: Caller, set_policy: SetPolicy
) -> None:
    """Its limit on output tokens is the new policy's."""
    await set_policy(admin_pb.Policy(max_output_tokens=7))
    await asyncio.sleep(CACHED + 1.2)
    assert (await queued.end()).finished

    assert [body.get("max_tokens") for body in caller.service.requests("talk")][-1] == 7


async def test_turn_limit_is_released_by_policy_of_its_acquisition(
    caller: Caller, second_caller: Caller, set_policy: SetPolicy
) -> None:
    """A limit that is removed while a turn waits for another server does not leave the turn counted."""
    await set_policy(admin_pb.Policy(concurrent_turns=5))
    call = caller.start(SLOW)
    turn_id = (await until_text(call, "t1 "))[0].turn_id
    waiting = asyncio.create_task(second_caller.converse("hello", on_busy=WAIT))
    turn_limits, tenant = caller.service.database["turn_limits"], {"_id": caller.service.tenant_id}

    def running() -> int:
        return len((turn_limits.find_one(tenant) or {}).get("running", {}))

    await soon(lambda: running() == 2)
    await set_policy(admin_pb.Policy())
    await asyncio.sleep(CACHED + 1.2)
    await cancel(caller, turn_id)

    assert (await waiting).finished
    await soon(lambda: running() == 0)


async def test_exhausted_rate_limit_does_not_refuse_admitted_turn(
    caller: Caller, second_caller: Caller, set_policy: SetPolicy
) -> None:
    """A turn that waits for another server has its place in the minute: a later turn's refusal does not affect it."""
    await set_policy(admin_pb.Policy(turns_per_minute=2))
    call = caller.start(SLOW)
    turn_id = (await until_text(call, "t1 "))[0].turn_id
    waiting = asyncio.create_task(second_caller.converse("hello", on_busy=WAIT))
    turns = caller.service.database["turns"]
    await soon(lambda: turns.count_documents({"tenant_id": caller.service.tenant_id}) == 2)
    refused = await second_caller.converse("hello", session_id="other")
    assert refused.failure is not None
    assert refused.failure.reason == "RATE_LIMITED"
    await asyncio.sleep(1.5)
    await cancel(caller, turn_id)

    assert (await waiting).finished


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_revoked_key_stops_running_turn(caller: Caller, how: str) -> None:
    """A running turn soon makes no further model call; its earlier calls are settled."""
    turn = asyncio.create_task(caller.converse(LONG_LOOP))
    await soon(lambda: caller.service.session("talk") is not None and len(caller.service.entries("talk")) >= 2)
    ended = utc_now()
    field = {"revoked": "revoke_time", "expired": "expire_time"}[how]
    caller.service.database["api_keys"].update_one({"_id": caller.service.key_id}, {"$set": {field: ended}})
    taken = await turn

    assert taken.failure is not None
    assert (taken.failure.code, taken.failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")
    entries = caller.service.entries("talk")
    assert len(entries) < CALLS
    assert max(each.start_time for each in entries) < ended + timedelta(seconds=2 * PROMISE)
    assert sum(each.cost or 0 for each in entries) == caller.service.invoiced("talk")


async def test_revoked_key_does_not_stop_turn_of_another_key(caller: Caller, issue: Callable[..., str]) -> None:
    """Of a tenant's keys only the one that started the turn counts."""
    other = issue(caller.service, scopes=frozenset({Scope.CONVERSE}))
    turn = asyncio.create_task(caller.converse("@sandbox tool-loop calls=6 tool=calculator first_delay_ms=330"))
    await soon(lambda: caller.service.session("talk") is not None and len(caller.service.entries("talk")) >= 1)
    revoke(caller, other.split("_")[1])

    assert (await turn).finished
