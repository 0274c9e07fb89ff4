"""Forged page tokens with valid encoding: their contents are validated before use."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2, admin_service_pb2_grpc, billing_service_pb2, billing_service_pb2_grpc
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.rpc.billing.codec import parse_usage_query
from godoty_service.rpc.pagination import encode_token
from godoty_service.tenancy.audit import ChangeFilter
from godoty_service.tenancy.auth import Scope
from godoty_service.usage.ledger_pages import EntryFilter
from tests.support.caller import Caller, failure_of, read
from tests.support.service import Service

TIME = "2026-08-22T12:00:00+00:00"
OF_TEXT: list[list[Any]] = [
    *([], [None], [True], [1], [1.5], [{}], [{"$ne": None}], [{"$gt": ""}], [["a"]], ["a", "b"], [{"$regex": ".*"}]),
    *(["\ud800"], ["ü"], [{"$where": "sleep(9)"}]),
]
OF_A_NUMBER: list[list[Any]] = [
    *([], [None], [True], ["1"], [1.5], [{}], [{"$gt": 0}], [2**63], [-(2**63) - 1], [10**400], [1, 2]),
]
OF_A_TIME: list[list[Any]] = [
    *([TIME], [TIME, None], [TIME, {"$ne": 1}], [TIME, "a", "b"], [TIME, "\ud800"], ["soon", "a"], [1, "a"]),
    *(["0001-01-01T00:00:00+23:59", "a"], ["9999-12-31T23:59:59-23:59", "a"], [{"$ne": 1}, "a"], ["2026-13-01", "a"]),
]
OF_AN_ENTRY: list[list[Any]] = [
    *([TIME, 1], [TIME, "1", "a"], [TIME, 1, None], [TIME, 1, {"$ne": 1}], [TIME, 2**63, "a"], [TIME, 1, "\ud800"]),
    *([TIME, True, "a"], ["0001-01-01T00:00:00+23:59", 1, "a"], [{"$ne": 1}, 1, "a"], ["soon", 1, "a"]),
]


@pytest.mark.parametrize("place", [*OF_TEXT, *OF_A_NUMBER, *OF_A_TIME, *OF_AN_ENTRY], ids=repr)
async def test_forged_page_token_is_refused(
    caller: Caller, issue: Callable[..., str], service: Service, place: list[Any]
) -> None:
    """In each list it is INVALID_FIELD `page_token`; only a place of the right kinds is a page, of the tenant's own."""
    tenant = service.tenant_id
    metadata = (("authorization", f"Bearer {issue(service, scopes=frozenset(Scope))}"),)
    await caller.converse("hi")
    session = service.session("talk")
    assert session is not None
    admin: Any = admin_service_pb2_grpc.AdminServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    billing: Any = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    ledger = billing_service_pb2.ListLedgerEntriesRequest
    changes = admin_service_pb2.ListAdminChangesRequest
    keys = admin_service_pb2.ListApiKeysRequest
    tenants = admin_service_pb2.ListTenantsRequest
    lists: list[tuple[Any, Any, tuple[str, ...], list[list[Any]]]] = [
        (caller.stub.ListSessions, pb.ListSessionsRequest(), ("sessions", tenant, ""), OF_A_TIME),
        (
            caller.stub.ListMessages,
            pb.ListMessagesRequest(session_id="talk"),
            ("messages", tenant, session["_id"]),
            OF_A_NUMBER,
        ),
        (caller.stub.ListTurns, pb.ListTurnsRequest(), ("turns", tenant, "", "0"), OF_TEXT),
        (caller.stub.ListModels, pb.ListModelsRequest(), ("models", tenant), OF_TEXT),
        (admin.ListTenants, tenants(), ("tenants", "False"), OF_A_TIME),
        (admin.ListApiKeys, keys(tenant_id=tenant), ("api_keys", tenant), OF_A_TIME),
        (admin.ListAdminChanges, changes(), ("admin_changes", repr(ChangeFilter())), OF_TEXT),
        (billing.ListLedgerEntries, ledger(), ("ledger", tenant, repr(EntryFilter())), OF_AN_ENTRY),
    ]
    for method, request, query, wrong in lists:
        if repr(place) in map(repr, wrong):  # True is no 1
            request.page_token = encode_token(query, place)
            failure = await failure_of(method(request, metadata=metadata, timeout=20))
            assert (failure.code, list(failure.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])


async def test_valid_token_of_each_query_is_accepted(
    caller: Caller, issue: Callable[..., str], service: Service
) -> None:
    """The test above forges tokens that would be taken: with a right place, each is a page."""
    await caller.converse("hi")
    session = service.session("talk")
    assert session is not None
    metadata = (("authorization", f"Bearer {issue(service, scopes=frozenset(Scope))}"),)
    admin: Any = admin_service_pb2_grpc.AdminServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    billing: Any = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    tenant, later = service.tenant_id, "2999-01-01T00:00:00+00:00"
    sessions = pb.ListSessionsRequest(page_token=encode_token(("sessions", tenant, ""), [TIME, "0"]))
    messages = pb.ListMessagesRequest(
        session_id="talk", page_token=encode_token(("messages", tenant, session["_id"]), [10])
    )
    turns = pb.ListTurnsRequest(page_token=encode_token(("turns", tenant, "", "0"), ["turn_0"]))
    keys = admin_service_pb2.ListApiKeysRequest(
        tenant_id=tenant, page_token=encode_token(("api_keys", tenant), [later, "a"])
    )
    models = pb.ListModelsRequest(page_token=encode_token(("models", tenant), ["~~~"]))
    tenants = admin_service_pb2.ListTenantsRequest(page_token=encode_token(("tenants", "False"), [later, "z"]))
    changes = admin_service_pb2.ListAdminChangesRequest(
        page_token=encode_token(("admin_changes", repr(ChangeFilter())), [""])
    )
    ledger = billing_service_pb2.ListLedgerEntriesRequest(
        page_token=encode_token(("ledger", tenant, repr(EntryFilter())), [later, 1, "a"])
    )

    assert not (await caller.stub.ListSessions(sessions, metadata=metadata)).sessions
    assert not (await caller.stub.ListMessages(messages, metadata=metadata)).messages
    assert not (await caller.stub.ListTurns(turns, metadata=metadata)).turns
    assert not (await admin.ListApiKeys(keys, metadata=metadata)).api_keys
    assert not (await caller.stub.ListModels(models, metadata=metadata)).models
    assert not (await admin.ListTenants(tenants, metadata=metadata)).tenants
    assert not (await admin.ListAdminChanges(changes, metadata=metadata)).changes
    assert not (await billing.ListLedgerEntries(ledger, metadata=metadata)).entries


async def test_token_of_the_future_is_refused(caller: Caller, issue: Callable[..., str], service: Service) -> None:
    """A token whose `as_of` is yet to come names itself, not a field that the request does not set."""
    metadata = (("authorization", f"Bearer {issue(service, scopes=frozenset(Scope))}"),)
    billing: Any = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    later = "2999-01-01T00:00:00+00:00"
    times: dict[str, Any] = {"start_time": {"seconds": 1}, "end_time": {"seconds": 2}}
    export = billing_service_pb2.ExportLedgerRequest(
        cursor=encode_token(("export", service.tenant_id, repr(EntryFilter())), [later])
    )
    usage = billing_service_pb2.GetUsageRequest(group_by=[billing_service_pb2.USAGE_GROUP_MODEL], **times)
    query = ("usage", service.tenant_id, repr(parse_usage_query(usage)))
    usage.page_token = encode_token(query, [later, "a/model"])

    exported = (await read(billing.ExportLedger(export, metadata=metadata))).failure
    assert exported is not None
    assert list(exported.fields) == ["cursor"]
    assert list((await failure_of(billing.GetUsage(usage, metadata=metadata))).fields) == ["page_token"]
