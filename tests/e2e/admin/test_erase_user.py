"""EraseUser: an end user's conversations and name are gone, wherever they stood; ledger and totals stay."""

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import billing_service_pb2 as billing_pb
from godoty.v1 import billing_service_pb2_grpc

from godoty_service import user_erasure
from godoty_service.tenancy.auth import Scope
from godoty_service.users.erasures import ErasureOrder, ErasureOrders
from tests.conftest import Start, StartProcess
from tests.e2e.admin.conftest import Admin
from tests.e2e.admin.test_bound_keys import bound_admin
from tests.e2e.turns.streams import CONTINUE, until_text
from tests.support.caller import Caller, failure_of, read
from tests.support.invoking import invoke
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import LONG_PAUSE, Service, collections_with, eventually, soon

Connect = Callable[[Service], Caller]
Billing = Callable[..., Any]


@pytest.fixture
def name() -> str:
    """A name that occurs nowhere else."""
    return f"ada-{secrets.token_hex(8)}"


@pytest.fixture
def billing(issue: Callable[..., str]) -> Billing:
    """Calls a method of BillingService as the tenant of a caller."""

    async def call(caller: Caller, method: str, request: Any) -> Any:
        stub = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
        key = issue(caller.service, scopes=frozenset({Scope.BILLING}))
        return await getattr(stub, method)(request, metadata=(("authorization", f"Bearer {key}"),))

    return call


def by_user() -> billing_pb.GetUsageRequest:
    """Return a request for usage by end user."""
    request = billing_pb.GetUsageRequest(group_by=["USAGE_GROUP_USER"])
    request.start_time.FromJsonString("2026-01-01T00:00:00Z")
    request.end_time.FromJsonString("2027-01-01T00:00:00Z")
    return request


async def test_erased_user_is_nowhere(admin: Admin, caller: Caller, billing: Billing, name: str) -> None:
    """Sessions, messages, logs and the name are gone; entries and usage have the reference; who comes back is new."""
    service = admin.service
    await caller.converse("my name is a secret", session_id="one", user=name, request_id="r1")
    await caller.converse("@sandbox tool-loop calls=2 tool=calculator", session_id="one")
    await caller.converse("hello", session_id="two", user=name)
    await caller.converse("hello", session_id="bobs", user="bob")
    before = await billing(caller, "GetUsage", by_user())
    assert sorted(row.keys[0].user for row in before.rows) == [name, "bob"]
    assert collections_with(service, name) == {"users"}
    listed = (await caller.call("ListTurns", agent_pb.ListTurnsRequest(session_id="one"))).turns
    assert {each.user for each in listed} == {name}
    erased = await admin.call("EraseUser", tenant_id=service.tenant_id, user=name)

    assert (erased.sessions, erased.turns, erased.messages) == (2, 3, 8)
    assert collections_with(service, name) == set()
    assert collections_with(service, "my name is a secret") == set()
    left = (await caller.call("ListSessions", agent_pb.ListSessionsRequest())).sessions
    assert [(each.session_id, each.user) for each in left] == [("bobs", "bob")]
    after = await billing(caller, "GetUsage", by_user())
    assert (after.totals, len(after.rows)) == (before.totals, 2)
    rows = {row.keys[0].user_reference: row for row in after.rows}
    assert rows[erased.user_reference].keys[0].WhichOneof("key") is None
    assert rows.keys() == {row.keys[0].user_reference for row in before.rows}
    request = billing_pb.ListLedgerEntriesRequest(user_reference=erased.user_reference)
    entries = (await billing(caller, "ListLedgerEntries", request)).entries
    assert [(each.user, each.user_reference) for each in entries] == [("", erased.user_reference)] * 4
    named = await billing(caller, "ListLedgerEntries", billing_pb.ListLedgerEntriesRequest(user=name))
    assert list(named.entries) == []
    (change,) = [each for each in await admin.changes(service.tenant_id) if each[1] == "EraseUser"]
    order = service.database["users"].find_one({"_id": erased.user_reference}) or {}
    recorded = {"user_reference": erased.user_reference, "request_id": order["erase"]["request_id"]}
    assert change == (admin.key_id, "EraseUser", recorded)
    verified = await asyncio.to_thread(invoke, service, "ledger", "verify", "--tenant", service.tenant_id)
    assert " 0 differences" in verified

    again = await caller.converse("hello", session_id="one", user=name)
    assert again.started.session_created
    (entry,) = [each for each in service.entry_documents("one") if each["turn_id"] == again.responses[0].turn_id]
    assert entry["user_reference"] not in rows
    assert collections_with(service, name) == {"users"}


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_running_turn_is_cancelled_charged_and_erased(
    serve: Start,
    connect: Connect,
    admin_of: Callable[[Service], Admin],
    capfd: pytest.CaptureFixture[str],
    *,
    elsewhere: bool,
    name: str,
) -> None:
    """At the server that erases, or at another one; a turn without a reader as well. The log does not name the user."""
    service = await serve()
    caller = connect(service)
    eraser = await serve(database=service.database.name) if elsewhere else service
    call = caller.start(
        "@sandbox plain tokens=9 hold_after=2 hold=erased", session_id="runs", user=name, on_disconnect=CONTINUE
    )
    await until_text(call, "t1 ")
    erased = await admin_of(service.at(eraser.target)).call("EraseUser", tenant_id=service.tenant_id, user=name)
    turn = await read(call)

    assert (turn.failure and turn.failure.reason) == "TURN_CANCELLED"
    assert erased.sessions == 1
    assert service.session("runs") is None
    assert collections_with(service, name) == set()
    await soon(lambda: [each["state"] for each in service.entry_documents("runs")] == ["settled"])
    (entry,) = service.entry_documents("runs")
    assert entry["user_reference"] == erased.user_reference
    assert entry["cost"].to_decimal() > 0
    logged = str(capfd.readouterr())
    assert "user_erased" in logged
    assert name not in logged
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")


async def test_erasure_of_a_killed_server_is_finished_by_another(
    serve: Start, serve_process: StartProcess, connect: Connect, admin_of: Callable[[Service], Admin], name: str
) -> None:
    """The order is kept; the same request returns its result, also when a new user has the name."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    other = await serve(database=service.database.name, **SURVIVOR)
    survivor = service.at(other.target)
    await connect(survivor).converse("hello", user=name)
    fields = {"tenant_id": service.tenant_id, "user": name, "request_id": "erase-1"}
    dying = asyncio.ensure_future(failure_of(admin_of(service).call("EraseUser", **fields)))
    users = service.database["users"]
    await soon(lambda: users.count_documents({"erase.owner": {"$exists": True}}) == 1)
    await process.kill()
    await dying
    await soon(lambda: collections_with(service, name) == set(), pause=LONG_PAUSE)

    await connect(survivor).converse("I am back", user=name)
    first, second = [await admin_of(survivor).call("EraseUser", **fields) for _ in range(2)]
    assert first == second
    assert users.count_documents({"name": name}) == 1
    assert survivor.session("talk") is not None


async def test_caller_that_leaves_does_not_stop_the_erasure(admin: Admin, caller: Caller, name: str) -> None:
    """Nor does a deadline; a later call waits for the same erasure."""
    await caller.converse("hello", user=name)
    fields = {"tenant_id": admin.service.tenant_id, "user": name}
    call = asyncio.ensure_future(admin.call("EraseUser", **fields))
    users = admin.service.database["users"]
    await soon(lambda: users.count_documents({"tenant_id": admin.service.tenant_id, "erase.name": name}) == 1)
    call.cancel()
    erased = await admin.call("EraseUser", **fields)

    assert erased.sessions == 1
    assert collections_with(admin.service, name) == set()
    assert len([each for each in await admin.changes(admin.service.tenant_id) if each[1] == "EraseUser"]) == 1


@pytest.fixture
def may_end(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Is to be set before an erasure in a server of this process ends, for which no caller waits longer than 0.2 s."""
    ending, finish = asyncio.Event(), ErasureOrders.finish

    async def finish_later(self: ErasureOrders, order: ErasureOrder) -> None:
        await ending.wait()
        await finish(self, order)

    monkeypatch.setattr(ErasureOrders, "finish", finish_later)
    monkeypatch.setattr(user_erasure, "PATIENCE", 0.2)
    return ending


async def test_unfinished_erasure_has_an_id_to_ask_for_its_end(
    serve: Start,
    connect: Connect,
    admin_of: Callable[[Service], Admin],
    *,
    monkeypatch: pytest.MonkeyPatch,
    may_end: asyncio.Event,
    name: str,
) -> None:
    """Also for a caller who sent none, or who joined another's: the retry does not erase a new user of the name."""
    service = await serve()
    admin, caller = admin_of(service), connect(service)
    await caller.converse("hello", user=name)
    fields = {"tenant_id": service.tenant_id, "user": name}
    first, joined = [await admin.refused("EraseUser", **fields) for _ in range(2)]
    users = service.database["users"]

    async def is_back() -> bool:
        await caller.converse("I am back", session_id=f"new-{secrets.token_hex(4)}", user=name)
        return users.count_documents({"name": name}) == 1

    await eventually(is_back, pause=LONG_PAUSE)  # the server has read that the user was erased
    monkeypatch.setattr(user_erasure, "PATIENCE", 30.0)
    may_end.set()
    erased = await admin.call("EraseUser", **fields, request_id=first.metadata["request_id"])

    assert first.reason == joined.reason == "ERASURE_UNFINISHED"
    assert first.metadata == joined.metadata
    assert erased.user_reference == first.metadata["user_reference"]
    assert users.count_documents({"name": name}) == 1


@pytest.mark.usefixtures("may_end")
async def test_caller_who_joins_an_order_gets_its_id_as_the_audit_log_does(
    serve: Start,
    connect: Connect,
    admin_of: Callable[[Service], Admin],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Two callers order the erasure at once, each with an id of its own: one order is placed."""
    service = await serve()
    admin = admin_of(service)
    await connect(service).converse("hello", user=name)
    both, place = asyncio.Barrier(2), ErasureOrders.place

    async def place_together(self: ErasureOrders, *ids: str, **order: Any) -> ErasureOrder | None:
        await both.wait()
        return await place(self, *ids, **order)

    monkeypatch.setattr(ErasureOrders, "place", place_together)
    fields = {"tenant_id": service.tenant_id, "user": name}
    refused = await asyncio.gather(*(admin.refused("EraseUser", **fields, request_id=each) for each in ("one", "two")))
    order = service.database["users"].find_one({"tenant_id": service.tenant_id}) or {}
    known = {"user_reference": order["_id"], "request_id": order["erase"]["request_id"]}

    assert [each.reason for each in refused] == ["ERASURE_UNFINISHED"] * 2
    assert [each.metadata for each in refused] == [known] * 2
    changes = [what for _, method, what in await admin.changes(service.tenant_id) if method == "EraseUser"]
    assert changes[0] == known  # the newest: that of the caller who joined
    assert sorted(each["request_id"] for each in changes[1:]) == ["one", "two"]


async def test_servers_that_meet_a_user_at_once_agree(
    service: Service, serve: Start, connect: Connect, name: str
) -> None:
    """On one reference, in all entries."""
    second = await serve(database=service.database.name)
    callers = [connect(service), connect(service.at(second.target))]
    await asyncio.gather(
        *(each.converse("hello", session_id=f"s{place}", user=name) for place, each in enumerate(callers * 3))
    )

    ids = {"tenant_id": service.tenant_id}
    assert len(service.database["ledger"].distinct("user_reference", ids)) == 1
    assert service.database["users"].count_documents(ids) == 1


async def test_key_of_a_tenant_erases_its_users_alone(
    admin: Admin, caller: Caller, other_tenant: Caller, name: str
) -> None:
    """Not those of another tenant, not one that it does not have, and none by a request id of another erasure."""
    for each in (caller, other_tenant):
        await each.converse("hello", user=name)
    tenant_id, other = admin.service.tenant_id, other_tenant.service.tenant_id
    bound = await bound_admin(admin)
    missing = await bound.refused("EraseUser", tenant_id=other, user=name)
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")
    unknown = await bound.refused("EraseUser", tenant_id=tenant_id, user="none")
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")
    invalid = await bound.refused("EraseUser", tenant_id=tenant_id, user="", request_id="a b")
    assert invalid.fields.keys() == {"user", "request_id"}

    one = asyncio.ensure_future(bound.call("EraseUser", tenant_id=tenant_id, user=name, request_id="one"))
    users = admin.service.database["users"]
    await soon(lambda: users.count_documents({"tenant_id": tenant_id, "erase.request_id": "one"}) == 1)
    reused = await bound.refused("EraseUser", tenant_id=tenant_id, user="bob", request_id="one")
    assert reused.reason == "REQUEST_ID_REUSED"
    assert (await one).sessions == 1
    assert (await bound.refused("EraseUser", tenant_id=tenant_id, user=name)).reason == "USER_NOT_FOUND"
    assert users.count_documents({"tenant_id": other, "name": name}) == 1
    assert [each["user_reference"] for each in other_tenant.service.entry_documents("talk")] != [
        (await one).user_reference
    ]


async def test_command_erases_a_user(caller: Caller, godoty: Callable[..., str]) -> None:
    """It prints the reference and what was erased; the author in the audit log is the user of the command."""
    service = caller.service
    await caller.converse("hello", user="ann")
    printed = await asyncio.to_thread(godoty, "user", "erase", service.tenant_id, "ann")

    assert printed.startswith("user_")
    assert printed.endswith(": erased 1 sessions, 2 messages and 1 turns\n")
    change = service.database["admin_changes"].find_one({"tenant_id": service.tenant_id, "action": "EraseUser"}) or {}
    order = service.database["users"].find_one({"_id": printed.split(":")[0]}) or {}
    recorded = {"user_reference": order["_id"], "request_id": order["erase"]["request_id"]}
    assert json.loads(change["details"]) == recorded
    assert change["kind"] == "cli"
