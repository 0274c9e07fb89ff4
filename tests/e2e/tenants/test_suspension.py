"""A suspended tenant: its calls are refused, its running and waiting turns make no further model call."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import billing_service_pb2 as billing_pb
from godoty.v1 import billing_service_pb2_grpc, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ids import new_id
from godoty_service.tenancy.api_keys import KeyState
from godoty_service.tenancy.auth import Scope
from godoty_service.turns.cancellation import KeyMonitor
from godoty_service.turns.turn import Turn
from tests.conftest import Start
from tests.e2e.tenants.conftest import PROMISE, Admin, metadata, verify
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller, Failure, failure_of, read
from tests.support.service import LONG_PAUSE, Service, eventually, soon

DENIED = grpc.StatusCode.PERMISSION_DENIED
Operator = Callable[[Service], Admin]


async def refusal(caller: Caller) -> Failure:
    """Wait until the tenant's calls are refused, and return the error."""

    async def refused() -> Any:
        try:
            await caller.call("ListSessions", agent_pb.ListSessionsRequest())
        except grpc.aio.AioRpcError as error:
            return Failure.of(error)
        return None

    failure: Failure = await eventually(refused, pause=LONG_PAUSE)
    return failure


async def test_suspended_tenants_calls_are_refused_until_it_is_resumed(caller: Caller, operator: Operator) -> None:
    """Although its key was just in use, once the cached one is old; each method of AgentService."""
    admin = operator(caller.service)
    assert (await caller.converse("hello")).finished
    await admin.call("SuspendTenant", tenant_id=caller.service.tenant_id)
    failure = await refusal(caller)
    assert (failure.code, failure.reason) == (DENIED, "TENANT_SUSPENDED")
    assert failure.metadata == {"tenant_id": caller.service.tenant_id}
    turn = await caller.converse("hello")
    assert turn.failure is not None
    assert turn.failure.reason == "TENANT_SUSPENDED"
    for method in agent_pb.DESCRIPTOR.services_by_name["AgentService"].methods:
        if not (method.server_streaming or method.client_streaming):
            request = getattr(agent_pb, method.input_type.name)()
            assert (await failure_of(caller.call(method.name, request))).reason == "TENANT_SUSPENDED"
    assert len(caller.service.entries("talk")) == 1
    await admin.call("ResumeTenant", tenant_id=caller.service.tenant_id)

    async def served() -> bool:
        return (await caller.converse("hello again")).failure is None

    await eventually(served, pause=LONG_PAUSE)
    await verify(caller.service)


async def test_own_keys_of_a_suspended_tenant_read_and_revoke(
    caller: Caller, operator: Operator, issue: Callable[..., str]
) -> None:
    """Billing is read by its own key and the operator's; a bound key lists and revokes keys, but creates none."""
    service = caller.service
    await caller.converse("hello")
    admin = operator(service)
    await admin.call("SuspendTenant", tenant_id=service.tenant_id)
    await refusal(caller)
    billing: Any = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    own = metadata(issue, service, Scope.BILLING)
    for keys in (own, (("authorization", f"Bearer {admin.key}"),)):
        entries = billing_pb.ListLedgerEntriesRequest(tenant_id=service.tenant_id)
        assert len((await billing.ListLedgerEntries(entries, metadata=keys)).entries) == 1
        assert await billing.GetBudget(billing_pb.GetBudgetRequest(tenant_id=service.tenant_id), metadata=keys)
    _, text = await admin.issue(service.tenant_id, tenant_pb2.API_SCOPE_ADMIN)
    bound = Admin(service=service, key=text, stub=admin.stub, channel=admin.channel)
    ids = {"tenant_id": service.tenant_id, "api_key_id": service.key_id}

    assert (await bound.call("ListApiKeys", tenant_id=service.tenant_id)).api_keys
    assert (await bound.call("GetApiKey", **ids)).api_key
    for method, fields in (
        ("CreateApiKey", {"tenant_id": service.tenant_id, "scopes": [tenant_pb2.API_SCOPE_CONVERSE]}),
        ("RotateApiKey", ids),
    ):
        assert (await bound.refused(method, **fields)).reason == "TENANT_SUSPENDED"
    await bound.call("RevokeApiKey", **ids)


async def test_operators_key_of_a_suspended_tenant_still_administers(admin: Admin) -> None:
    """The operator can resume the tenant that its own key belongs to."""
    await admin.call("SuspendTenant", tenant_id=admin.service.tenant_id)
    await asyncio.sleep(PROMISE - 1)  # the key is read again after 3 seconds

    assert (await admin.call("ResumeTenant", tenant_id=admin.service.tenant_id)).tenant


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[set[KeyState]]:
    """The states of the running turns' tenants in a server of this process, after each look at them."""
    found: list[set[KeyState]] = []
    mark = KeyMonitor.mark

    async def marking(monitor: KeyMonitor, turns: Collection[Turn]) -> None:
        await mark(monitor, turns)
        found.append({each.key_state for each in turns})

    monkeypatch.setattr(KeyMonitor, "mark", marking)
    return found


async def test_running_turn_of_a_suspended_tenant_makes_no_further_model_call(
    serve: Start, connect: Callable[[Service], Caller], operator: Operator, looks: list[set[KeyState]]
) -> None:
    """The answer that is streamed is not interrupted: it is charged in full, and the turn ends before the next call."""
    hold, caller = new_id("hold"), connect(await serve())
    call = caller.start(f"@sandbox tool-loop calls=3 tool=calculator hold_after=1 hold={hold}")
    await soon(lambda: len(caller.service.entries("talk")) == 1)
    reading = asyncio.create_task(read(call))
    await operator(caller.service).call("SuspendTenant", tenant_id=caller.service.tenant_id)
    await soon(lambda: {KeyState.TENANT_SUSPENDED} in looks)
    caller.service.backends.allow(hold)
    turn = await reading

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (DENIED, "TENANT_SUSPENDED")
    (entry,) = caller.service.entries("talk")
    assert entry.cost == caller.service.invoiced("talk")
    await verify(caller.service)


async def test_turn_of_a_tenant_that_is_resumed_in_time_goes_on(
    serve: Start, connect: Callable[[Service], Caller], operator: Operator, looks: list[set[KeyState]]
) -> None:
    """A suspension that ends before the turn's next model call costs it nothing."""
    hold, caller = new_id("hold"), connect(await serve())
    reading = asyncio.create_task(
        read(caller.start(f"@sandbox tool-loop calls=2 tool=calculator hold_after=1 hold={hold}"))
    )
    await soon(lambda: len(caller.service.entries("talk")) == 1)
    admin = operator(caller.service)
    await admin.call("SuspendTenant", tenant_id=caller.service.tenant_id)
    await soon(lambda: {KeyState.TENANT_SUSPENDED} in looks)
    await admin.call("ResumeTenant", tenant_id=caller.service.tenant_id)
    await soon(lambda: looks[-1] == {KeyState.IN_FORCE})
    caller.service.backends.allow(hold)

    assert (await reading).finished


@pytest.mark.parametrize("where", ["this server", "another server"])
async def test_waiting_turn_of_a_suspended_tenant_calls_no_model(
    caller: Caller, operator: Operator, serve: Start, connect: Callable[[Service], Caller], *, where: str
) -> None:
    """A turn that waits for its session behind a running one, in its own server's queue or for another server's."""
    hold = new_id("hold")
    call = caller.start(f"@sandbox plain tokens=9 hold_after=3 hold={hold}")
    await until_text(call, "t2 ")
    waiter = caller
    if where == "another server":
        waiter = connect(caller.service.at((await serve(database=caller.service.database.name)).target))
    waiting = asyncio.create_task(waiter.converse("hello", on_busy=turn_pb.ON_BUSY_WAIT))
    turns = caller.service.database["turns"]
    await soon(lambda: turns.count_documents({"tenant_id": caller.service.tenant_id}) == 2)
    await operator(caller.service).call("SuspendTenant", tenant_id=caller.service.tenant_id)
    await refusal(caller)
    caller.service.backends.allow(hold)
    first, second = await asyncio.gather(read(call), waiting)

    assert first.finished  # its only model call was under way
    assert second.failure is not None
    assert second.failure.reason == "TENANT_SUSPENDED"
    assert len(caller.service.entries("talk")) == 1
    await verify(caller.service)
