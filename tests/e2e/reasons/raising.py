"""Raises each reason of errors.proto once, through a server."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ids import new_id
from godoty_service.rpc import validation
from godoty_service.server import running
from godoty_service.tenancy.auth import Scope
from godoty_service.turns.event_log import log as logs
from tests.e2e.reasons.environment import Environment
from tests.support.caller import Failure, Turn, failure_of, read
from tests.support.service import soon

MODEL = "openai/gpt-4o-mini"
SMALL = "openai/gpt-4"  # its context window has 8,191 tokens


Raise = Callable[[Environment], Awaitable[Failure]]
RAISE: dict[str, Raise] = {}


def raises(reason: str) -> Callable[[Raise], Raise]:
    """Register what raises a reason."""

    def register(raiser: Raise) -> Raise:
        assert reason not in RAISE
        RAISE[reason] = raiser
        return raiser

    return register


def failed(turn: Turn) -> Failure:
    """Return the failure of a turn."""
    assert turn.failure is not None, turn.kinds
    return turn.failure


def hard(limit: str, window: BudgetWindow = BudgetWindow.DAY) -> Budget:
    """Return a hard budget."""
    return Budget(window=window, limit=Decimal(limit), hard=True)


@raises("MALFORMED_REQUEST")
async def _malformed(environment: Environment) -> Failure:
    method: Any = environment.caller.channel.unary_unary("/godoty.v1.AgentService/GetSession", bytes, bytes)
    return await failure_of(method(b"{}", metadata=environment.service.metadata))


@raises("INVALID_FIELD")
async def _invalid(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("hi", session_id="a b"))


@raises("UNKNOWN_MODEL")
async def _unknown_model(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("hi", model="openai/gpt-99"))


@raises("INVALID_API_KEY")
async def _invalid_key(environment: Environment) -> Failure:
    wrong = (("authorization", f"Bearer gdt_0123456789abcdef_{'A' * 43}"),)
    return await failure_of(environment.caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=wrong))


@raises("SCOPE_MISSING")
async def _scope(environment: Environment) -> Failure:
    return await environment.usage(Scope.CONVERSE)


@raises("SESSION_NOT_FOUND")
async def _no_session(environment: Environment) -> Failure:
    return await failure_of(environment.caller.call("GetSession", pb.GetSessionRequest(session_id="first")))


@raises("SESSION_BUSY")
async def _busy(environment: Environment) -> Failure:
    call, release = await environment.held()
    failure = failed(await environment.caller.converse("hello"))
    release()
    await read(call)
    return failure


@raises("STORAGE_UNAVAILABLE")
async def _storage(environment: Environment) -> Failure:
    caller = environment.connect(await environment.serve())
    await caller.call("ListSessions", pb.ListSessionsRequest())

    def find(*_: Any, **__: Any) -> Any:
        raise AutoReconnect("not primary")

    with environment.monkeypatch.context() as broken:
        broken.setattr(AsyncCollection, "find", find)
        return await failure_of(caller.call("ListSessions", pb.ListSessionsRequest()))


@raises("SHUTTING_DOWN")
async def _shutting_down(environment: Environment) -> Failure:
    backends = environment.service.backends
    async with AsyncExitStack() as stack:
        database = backends.empty_database()
        server = await stack.enter_async_context(running(backends.settings(database, drain_grace=60.0)))
        caller = environment.connect(backends.service(server.address, database))
        call, release = await environment.held(caller)
        stopped = asyncio.create_task(stack.aclose())
        failure = None
        while failure is None:
            failure = (await caller.converse("hi", session_id=new_id("ses"))).failure
        release()
        await read(call)
        await stopped
    return failure


@raises("PROVIDER_ACCOUNT_REFUSED")
async def _account(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("@sandbox error-before status=402"))


@raises("PROVIDER_THROTTLED")
async def _throttled(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("@sandbox replay file=err_200-with-429-body.json"))


@raises("PROVIDER_UNAVAILABLE")
async def _unavailable(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("@sandbox reset tokens=9 after=3"))


@raises("PROVIDER_REJECTED_REQUEST")
async def _rejected(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("@sandbox replay file=err_400_provider-raw.json"))


@raises("CONTEXT_WINDOW_EXCEEDED")
async def _context_window(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("@sandbox replay file=err_400_context-length.json"))


@raises("MODEL_UNAVAILABLE")
async def _model_unavailable(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("@sandbox replay file=err_404_no-endpoints.json"))


@raises("INTERNAL")
async def _internal(environment: Environment) -> Failure:
    await environment.caller.converse("hello")
    # A lease of this shape cannot be read.
    changes = {"_id": new_id("ses"), "session_id": "broken", "lease": {"shape": 1}}
    environment.service.database["sessions"].insert_one({**(environment.service.session("talk") or {}), **changes})
    failure = await failure_of(environment.caller.metrics("broken"))
    environment.service.database["sessions"].delete_one({"_id": changes["_id"]})
    return failure


@raises("TURN_CANCELLED")
async def _cancelled(environment: Environment) -> Failure:
    call, release = await environment.held()
    (turn_id,) = [
        each["_id"] for each in environment.service.database["turns"].find({"tenant_id": environment.service.tenant_id})
    ]
    await environment.caller.call("CancelTurn", pb.CancelTurnRequest(turn_id=turn_id))
    failure = failed(await read(call))
    release()
    return failure


@raises("DEADLINE_EXCEEDED")
async def _deadline(environment: Environment) -> Failure:
    caller = environment.connect(await environment.serve(longest_turn=1.0))
    return failed(await caller.converse("@sandbox plain tokens=9 hold_after=3"))


@raises("SESSION_LOST")
async def _lost(environment: Environment) -> Failure:
    call, release = await environment.held()
    sessions = environment.service.database["sessions"]
    session = environment.service.session("talk")
    assert session is not None
    sessions.update_one({"_id": session["_id"]}, {"$set": {"lease.turn_id": new_id("turn")}, "$inc": {"fence": 1}})
    release()
    return failed(await read(call))


@raises("REQUEST_ID_REUSED")
async def _reused(environment: Environment) -> Failure:
    await environment.caller.converse("hi", request_id="order-7")
    return failed(await environment.caller.converse("hello", request_id="order-7"))


@raises("TURN_NOT_FOUND")
async def _no_turn(environment: Environment) -> Failure:
    call = environment.caller.stub.ResumeTurn(
        pb.ResumeTurnRequest(turn_id=new_id("turn")), metadata=environment.service.metadata
    )
    return failed(await read(call))


@raises("TURN_TOO_LARGE")
async def _too_large(environment: Environment) -> Failure:
    caller = environment.connect(await environment.serve())
    with environment.monkeypatch.context() as small:
        small.setattr(logs, "LARGEST_LOG", 8_000)
        return failed(await caller.converse("@sandbox plain tokens=3000"))


@raises("BUDGET_SPENT")
async def _spent(environment: Environment) -> Failure:
    await environment.policy(budgets=(hard("0.000001"),))
    return failed(await environment.caller.converse("hello"))


@raises("BUDGET_RESERVED")
async def _reserved(environment: Environment) -> Failure:
    await environment.policy(budgets=(hard("0.005"),))
    call, release = await environment.held(model=MODEL)
    failure = failed(await environment.caller.converse("hello", session_id="second", model=MODEL))
    release()
    await read(call)
    return failure


@raises("COST_UNBOUNDED")
async def _unbounded(environment: Environment) -> Failure:
    await environment.policy(budgets=(hard("1"),))
    return failed(await environment.caller.converse("hello", model="openrouter/auto"))


@raises("MAX_COST_TOO_LOW")
async def _max_cost(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("hello", limits=turn_pb.TurnLimits(max_cost_usd="0.0000001")))


@raises("RATE_LIMITED")
async def _rate(environment: Environment) -> Failure:
    await environment.policy(turns_per_minute=1)
    await environment.caller.converse("hello")
    return failed(await environment.caller.converse("hello"))


@raises("TOO_MANY_TURNS")
async def _too_many(environment: Environment) -> Failure:
    await environment.policy(concurrent_turns=1)
    call, release = await environment.held()
    failure = failed(await environment.caller.converse("hello", session_id="second"))
    release()
    await read(call)
    return failure


@raises("MODEL_NOT_ALLOWED")
async def _not_allowed(environment: Environment) -> Failure:
    await environment.policy(allowed_models=("openai/*",))
    return failed(await environment.caller.converse("hello", model="anthropic/claude-haiku-4.5"))


@raises("TENANT_NOT_FOUND")
async def _no_tenant(environment: Environment) -> Failure:
    return await environment.usage(Scope.BILLING, tenant_id=environment.other_tenant.service.tenant_id)


@raises("API_KEY_NOT_FOUND")
async def _no_key(environment: Environment) -> Failure:
    return await environment.admin("RevokeApiKey", api_key_id=environment.other_tenant.service.key_id)


@raises("PROVIDER_KEYS_OFF")
async def _keys_off(environment: Environment) -> Failure:
    own = replace(environment, caller=environment.connect(await environment.serve()))
    return await own.admin("SetProviderKey", provider_key="sk-or-v1-made-up")


async def _adjust(environment: Environment, call_id: str) -> Failure:
    return await environment.admin("AdjustCall", call_id=call_id, add_usd="-1", why="a test", request_id="credit-7")


@raises("CALL_NOT_FOUND")
async def _no_call(environment: Environment) -> Failure:
    (call,) = (await environment.other_tenant.converse("hello")).calls
    return await _adjust(environment, call.call_id)


@raises("CALL_NOT_ADJUSTABLE")
async def _not_adjustable(environment: Environment) -> Failure:
    stream, release = await environment.held()
    (entry,) = environment.service.entries("talk")
    failure = await _adjust(environment, entry.call_id)
    release()
    await read(stream)
    return failure


@raises("AMOUNT_REFUSED")
async def _amount(environment: Environment) -> Failure:
    (call,) = (await environment.caller.converse("hello")).calls
    await soon(lambda: environment.service.entries("talk")[0].cost is not None)
    return await _adjust(environment, call.call_id)


@raises("TOO_MANY_WRONG_KEYS")
async def _wrong_keys(environment: Environment) -> Failure:
    caller = environment.connect(await environment.serve(wrong_key_lookups=0.1))
    for number in range(12):
        wrong = (("authorization", f"Bearer gdt_{number:016x}_{'A' * 43}"),)
        with suppress(grpc.RpcError):
            await caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=wrong)
    return await failure_of(caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=wrong))


@raises("RESPONSE_TOO_LARGE")
async def _response(environment: Environment) -> Failure:
    caller = environment.connect(await environment.serve())
    await caller.converse("@sandbox plain text=" + "x" * 2000)
    with environment.monkeypatch.context() as small:
        small.setattr(validation, "MAX_RESPONSE_BYTES", 1000)
        return await failure_of(caller.call("ListMessages", pb.ListMessagesRequest(session_id="talk")))


@raises("MESSAGE_NOT_FOUND")
async def _no_message(environment: Environment) -> Failure:
    await environment.caller.converse("hello", session_id="first")
    request = pb.ReadMessageRequest(session_id="first", number=7)
    return failed(await read(environment.caller.stub.ReadMessage(request, metadata=environment.service.metadata)))


@raises("ETAG_MISMATCH")
async def _etag(environment: Environment) -> Failure:
    policy = tenant_pb2.Policy(turns_per_minute=3)
    return await environment.admin("UpdatePolicy", policy=policy, etag="9f86d081884c7d65")


@raises("OUTPUT_NOT_ALLOWED")
async def _no_output(environment: Environment) -> Failure:
    await environment.policy(max_output_tokens=0)
    return failed(await environment.caller.converse("hello"))


@raises("OPERATOR_ONLY")
async def _operator_only(environment: Environment) -> Failure:
    fields = {"scopes": [tenant_pb2.API_SCOPE_ADMIN], "operator": True}
    return await environment.admin("CreateApiKey", scope=Scope.TENANT_ADMIN, **fields)


@raises("API_KEY_CREATED")
async def _key_created(environment: Environment) -> Failure:
    key = environment.issue(environment.service, scopes=frozenset({Scope.ADMIN}))
    fields = {"scopes": [tenant_pb2.API_SCOPE_CONVERSE], "request_id": "bot-7"}
    await environment.administer(key, "CreateApiKey", **fields)
    return await failure_of(environment.administer(key, "CreateApiKey", **fields))
