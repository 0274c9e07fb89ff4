"""A deleted tenant: its keys stop, its turns end and are charged, its data are erased, its ledger remains."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import billing_service_pb2 as billing_pb
from godoty.v1 import billing_service_pb2_grpc, budget_pb2, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ids import new_id
from godoty_service.ledger.states import CallState
from tests.conftest import Start, StartProcess
from tests.e2e.admin.conftest import ENCRYPTION_KEY
from tests.e2e.tenants.conftest import ERASING, Admin, hasten_erasure, verify
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller, Failure, read
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import LONG_PAUSE, PATIENCE, Service, collections_with, eventually, soon

Connect = Callable[[Service], Caller]
Operator = Callable[[Service], Admin]
# What a deleted tenant leaves behind: its amounts, what was changed, and its own document.
KEPT = {"ledger", "usage_rollups", "usage_rollup_state", "budgets", "admin_changes", "tenants"}
ERASED = {"sessions", "messages", "turns", "turn_logs", "api_keys", "policies", "provider_keys", "turn_limits"}
SECRET = "sk-or-v1-planted-secret-of-a-tenant"
MARK = "a-word-that-only-this-tenant-says"
ELSEWHERE = "a-server-elsewhere"
NEVER: dict[str, Any] = {"reconcile_interval": 3600.0}
ERASING_ENVIRONMENT = {"GODOTY_ERASURE_INTERVAL": "0.1"}


async def erased(admin: Admin, tenant_id: str, *, within: float = PATIENCE) -> tenant_pb2.Tenant:
    """Let the delay of a tenant's erasure pass, wait until its data are erased, and return the tenant."""
    hasten_erasure(admin.service, tenant_id)

    async def done() -> Any:
        tenant: tenant_pb2.Tenant = (await admin.call("GetTenant", tenant_id=tenant_id)).tenant
        return tenant if tenant.HasField("erase_time") else None

    tenant: tenant_pb2.Tenant = await eventually(done, within=within, pause=0.05)
    return tenant


async def key_refused(caller: Caller) -> Failure:
    """Wait until the tenant's key is refused, and return the error."""

    async def refused() -> Any:
        try:
            await caller.call("ListSessions", agent_pb.ListSessionsRequest())
        except grpc.aio.AioRpcError as error:
            return Failure.of(error)
        return None

    failure: Failure = await eventually(refused, pause=LONG_PAUSE)
    return failure


async def open_call(caller: Caller) -> None:
    """Leave a call that waits for reconciliation: its turn has lost its reader in the middle of the answer."""
    call = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 hold_after=10", session_id="cut")
    await until_text(call, "t1 ")
    call.cancel()
    await soon(lambda: (caller.service.session("cut") or {"lease": 1})["lease"] is None)
    assert [each.state for each in caller.service.entries("cut")] == [CallState.PENDING]


async def test_all_but_the_amounts_is_erased(serve: Start, connect: Connect, operator: Operator) -> None:
    """Sessions, messages, turns, logs, keys, policy, provider key, counts; the ledger is read and adjusted still."""
    service = await serve(encryption_keys=ENCRYPTION_KEY, reconcile_interval=0.1, **ERASING)
    caller, admin = connect(service), operator(service)
    tenant_id = service.tenant_id
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_MONTH, limit_usd="100", hard=True)
    policy = tenant_pb2.Policy(turns_per_minute=1000, concurrent_turns=9, budgets=[budget])
    await admin.set_policy(tenant_id, policy)
    await admin.issue(tenant_id, turns_per_minute=7)
    turns = [await caller.converse(MARK, session_id=f"talk-{n % 3}", request_id=f"r{n}") for n in range(6)]
    await caller.call("DeleteSession", agent_pb.DeleteSessionRequest(session_id="talk-0"))
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    await soon(lambda: ERASED < collections_with(service, tenant_id), pause=LONG_PAUSE)
    sums = await usage(admin, tenant_id)
    deleted = (await admin.call("DeleteTenant", tenant_id=tenant_id)).tenant
    assert deleted.state == tenant_pb2.TENANT_STATE_DELETED
    assert (await key_refused(caller)).reason == "INVALID_API_KEY"
    assert ERASED < collections_with(service, tenant_id)  # until the delay has passed
    tenant = await erased(admin, tenant_id)

    assert tenant.erase_time.ToDatetime() > tenant.delete_time.ToDatetime()
    await soon(lambda: collections_with(service, tenant_id) == KEPT, pause=LONG_PAUSE)  # once usage is summed
    assert collections_with(service, MARK) == set()
    assert collections_with(service, turns[3].responses[0].turn_id) == {"ledger"}
    assert await usage(admin, tenant_id) == sums
    assert sums.model_calls == 6
    adjusted = {"call_id": turns[1].calls[0].call_id, "why": "the invoice", "request_id": "a", "add_usd": "0.000001"}
    assert (await admin.call("AdjustCall", tenant_id=tenant_id, **adjusted)).adjustment.cost_usd == "0.000001"
    assert (await usage(admin, tenant_id)).cost_usd != sums.cost_usd
    await verify(service)


async def usage(admin: Admin, tenant_id: str) -> Any:
    """Return the tenant's totals, as the operator reads them."""
    stub: Any = billing_service_pb2_grpc.BillingServiceStub(admin.channel)  # type: ignore[no-untyped-call] # generated
    request = billing_pb.GetUsageRequest(tenant_id=tenant_id)
    now = datetime.now(UTC)
    request.start_time.FromDatetime(now - timedelta(days=1))
    request.end_time.FromDatetime(now + timedelta(days=1))
    answer = await stub.GetUsage(request, metadata=(("authorization", f"Bearer {admin.key}"),))
    return answer.totals


async def test_deleted_tenant_is_listed_on_request_and_its_id_is_never_free(admin: Admin) -> None:
    """Nothing of it can be changed; deleting it again changes nothing, not even with an old etag."""
    tenant_id = new_id("acme").replace("_", "-")
    created = (await admin.call("CreateTenant", tenant_id=tenant_id, display_name="Acme")).tenant
    key, _ = await admin.issue(tenant_id)
    first = (await admin.call("DeleteTenant", tenant_id=tenant_id)).tenant
    second = (await admin.call("DeleteTenant", tenant_id=tenant_id, etag=created.etag)).tenant
    assert (first, first.display_name) == (second, "Acme")

    async def listed(**fields: Any) -> set[str]:
        found: set[str] = set()
        token = None
        while token != "":
            page = await admin.call("ListTenants", page_size=500, page_token=token or "", **fields)
            found |= {each.tenant_id for each in page.tenants}
            token = page.next_page_token
        return found

    assert tenant_id not in await listed()
    assert tenant_id in await listed(show_deleted=True)
    for method, fields in (
        ("UpdateTenant", {"tenant": {"display_name": "Bea"}}),
        ("SuspendTenant", {}),
        ("ResumeTenant", {}),
        ("CreateApiKey", {"scopes": [tenant_pb2.API_SCOPE_CONVERSE]}),
        ("RotateApiKey", {"api_key_id": key.api_key_id}),
        ("RevokeApiKey", {"api_key_id": key.api_key_id}),
        ("UpdatePolicy", {"policy": tenant_pb2.Policy(turns_per_minute=1)}),
        ("SetProviderKey", {"provider_key": ""}),
        ("EraseUser", {"user": "Ann"}),
    ):
        failure = await admin.refused(method, tenant_id=tenant_id, **fields)
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TENANT_DELETED"), method
    assert (await admin.refused("CreateTenant", tenant_id=tenant_id, display_name="Acme")).reason == "TENANT_EXISTS"
    methods = [method for _, method, _ in await admin.changes(tenant_id)]
    assert methods == ["DeleteTenant", "CreateApiKey", "CreateTenant"]
    assert (await admin.refused("DeleteTenant", tenant_id="tnt_none")).reason == "TENANT_NOT_FOUND"


async def test_running_and_waiting_turns_end_and_are_charged(
    serve: Start, connect: Connect, operator: Operator
) -> None:
    """In the middle of an answer that would never end; the provider's invoice has no more than the ledger."""
    service = await serve(reconcile_interval=0.1, **ERASING)
    caller, admin = connect(service), operator(service)
    running = caller.start("@sandbox plain tokens=9 hold_after=3", on_disconnect=turn_pb.ON_DISCONNECT_CONTINUE)
    await until_text(running, "t2 ")
    waiting = asyncio.create_task(caller.converse("hello", on_busy=turn_pb.ON_BUSY_WAIT))
    await soon(lambda: service.database["turns"].count_documents({"tenant_id": service.tenant_id}) == 2)
    name = service.provider_session_id("talk")

    await admin.call("DeleteTenant", tenant_id=service.tenant_id)
    turns = await asyncio.gather(read(running), waiting)

    assert [each.failure and each.failure.reason for each in turns] == ["TENANT_DELETED"] * 2
    await erased(admin, service.tenant_id)
    assert collections_with(service, service.tenant_id) <= KEPT
    (entry,) = service.entries("talk")
    billed = service.backends.ask(lambda: service.backends.sandbox.invoice.total(session=name))
    assert (entry.state, entry.cost) == (CallState.SETTLED, billed)
    await verify(service)


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_another_server_continues_the_erasure(
    serve_process: StartProcess, serve: Start, connect: Connect, operator: Operator, how: str
) -> None:
    """A server ends in the middle: others hold some sessions still, and an open call needs the provider key."""
    begun = {**ERASING_ENVIRONMENT, **SHORT_LEASE_ENVIRONMENT, "GODOTY_RECONCILE_INTERVAL": "3600"}
    process, service = await serve_process(**begun, GODOTY_ENCRYPTION_KEYS=ENCRYPTION_KEY)
    caller, tenant_id = connect(service), service.tenant_id
    await operator(service).call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    await caller.converse(MARK)
    await open_call(caller)
    copy_session(service, 30)
    copy_session(service, 10, holder=living_server(service))
    await operator(service).call("DeleteTenant", tenant_id=tenant_id)
    hasten_erasure(service, tenant_id)
    sessions = service.database["sessions"]
    await soon(lambda: sessions.count_documents({"tenant_id": tenant_id}) < 36)
    await (process.kill() if how == "killed" else process.stop())
    assert sessions.count_documents({"tenant_id": tenant_id}) >= 10
    service.database["replicas"].delete_one({"_id": ELSEWHERE})

    second = await serve(
        database=service.database.name, encryption_keys=ENCRYPTION_KEY, reconcile_interval=0.1, **SURVIVOR, **ERASING
    )
    await erased(operator(second), tenant_id)
    assert collections_with(service, tenant_id) <= KEPT
    assert collections_with(service, MARK) == set()
    assert {each.state for each in service.entries("cut")} == {CallState.SETTLED}
    await verify(service)


async def test_provider_key_remains_until_open_calls_are_reconciled(
    serve: Start, connect: Connect, operator: Operator
) -> None:
    """All else is erased meanwhile; the call is settled by its generation record, which only that key can read."""
    service = await serve(encryption_keys=ENCRYPTION_KEY, **NEVER, **ERASING)
    caller, admin, tenant_id = connect(service), operator(service), service.tenant_id
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    await open_call(caller)
    await admin.call("DeleteTenant", tenant_id=tenant_id)
    hasten_erasure(service, tenant_id)
    await soon(lambda: collections_with(service, tenant_id) <= KEPT | {"provider_keys"}, pause=LONG_PAUSE)
    assert "provider_keys" in collections_with(service, tenant_id)
    assert not (await admin.call("GetTenant", tenant_id=tenant_id)).tenant.HasField("erase_time")
    await verify(service)

    await serve(database=service.database.name, encryption_keys=ENCRYPTION_KEY, reconcile_interval=0.1)
    await erased(admin, tenant_id)
    (entry,) = service.entries("cut")
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, "reconciled")
    assert collections_with(service, tenant_id) <= KEPT
    await verify(service)


def living_server(service: Service) -> str:
    """Insert a server that lives for a day, and return its id."""
    replica = service.database["replicas"].find_one({})
    assert replica is not None
    later = replica["heartbeat_time"] + timedelta(days=1)
    service.database["replicas"].insert_one({**replica, "_id": ELSEWHERE, "heartbeat_time": later})
    return ELSEWHERE


def copy_session(service: Service, count: int, *, holder: str = "") -> None:
    """Insert copies of a session, with a message each, which a server may hold for turns."""
    session = service.session("talk")
    message = service.database["messages"].find_one({"tenant_id": service.tenant_id})
    assert session is not None
    assert message is not None
    uids = [new_id("ses") for _ in range(count)]
    held = {"turn_id": new_id("turn"), "replica_id": holder, "text": "hello", "predecessors": []}
    copied = {**session, "totals": None, "message_count": 1, "lease": held if holder else None}
    service.database["sessions"].insert_many({**copied, "_id": uid, "session_id": uid} for uid in uids)
    message.pop("_id")
    service.database["messages"].insert_many({**message, "session_uid": uid, "number": 1} for uid in uids)
