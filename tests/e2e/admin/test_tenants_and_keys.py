"""Tenants and their keys, by gRPC."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import tenant_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from tests.conftest import Start
from tests.e2e.admin.conftest import Admin
from tests.support.caller import Caller, failure_of
from tests.support.service import LONG_PAUSE, Service, eventually, soon

INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
NO_KEY = "0123456789abcdef"


def at(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


async def accepted(admin: Admin, key: str) -> bool:
    """Return whether a key opens conversations."""
    call = admin.channel.unary_unary(
        "/godoty.v1.AgentService/ListSessions",
        request_serializer=agent_pb.ListSessionsRequest.SerializeToString,
        response_deserializer=agent_pb.ListSessionsResponse.FromString,
    )
    try:
        await call(agent_pb.ListSessionsRequest(), metadata=(("authorization", f"Bearer {key}"),), timeout=60)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED  # noqa: PT017 - else it is no answer
        return False
    return True


async def refused(admin: Admin, key: str) -> None:
    """Wait until a key is refused: a server reads it again after three seconds."""

    async def answer() -> bool:
        return not await accepted(admin, key)

    await eventually(answer, pause=LONG_PAUSE)


async def test_tenant_is_created_read_and_listed(admin: Admin) -> None:
    """A created tenant is read back and listed; names may repeat."""
    first = (await admin.call("CreateTenant", display_name="Ada & Söhne")).tenant
    second = (await admin.call("CreateTenant", display_name="Ada & Söhne")).tenant

    assert first.display_name == "Ada & Söhne"
    assert (await admin.call("GetTenant", tenant_id=first.tenant_id)).tenant == first
    assert first.tenant_id != second.tenant_id
    assert abs(first.create_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    found: list[tuple[int, str]] = []
    token, pages = "", 0
    size = max(2, admin.service.database["tenants"].count_documents({}) // 10)
    while token or not pages:
        page = await admin.call("ListTenants", page_size=size, page_token=token)
        assert len(page.tenants) <= size
        found += [(each.create_time.ToMilliseconds(), each.tenant_id) for each in page.tenants]
        token, pages = page.next_page_token, pages + 1
    listed = [tenant_id for _, tenant_id in found]
    assert found == sorted(set(found))
    assert {first.tenant_id, second.tenant_id, admin.service.tenant_id} <= set(listed)


@pytest.mark.parametrize("name", ["", " \t", "x" * 201, "two\nlines", "bell\a", "zero\u200bwidth"])
async def test_unreadable_name_is_refused(admin: Admin, name: str) -> None:
    """Blank, too long, or with invisible characters."""
    failure = await admin.refused("CreateTenant", display_name=name)

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", ["display_name"])


async def test_key_is_shown_once_and_opens_its_scopes(admin: Admin) -> None:
    """Its text works at once; lists have all of it but the secret."""
    tenant_id = await admin.tenant()
    key, text = await admin.issue(
        tenant_id, tenant_pb2.API_SCOPE_CONVERSE, tenant_pb2.API_SCOPE_BILLING, tenant_pb2.API_SCOPE_CONVERSE
    )

    assert await accepted(admin, text)
    assert list(key.scopes) == [tenant_pb2.API_SCOPE_CONVERSE, tenant_pb2.API_SCOPE_BILLING]
    assert (key.tenant_id, key.HasField("expire_time"), key.HasField("revoke_time")) == (tenant_id, False, False)
    listed = (await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys
    assert list(listed) == [key]
    assert text.split("_", 2)[2] not in str(listed)


async def test_keys_are_paged_oldest_first(admin: Admin) -> None:
    """Each once; a token is valid for its own tenant only."""
    tenant_id, other = await admin.tenant(), await admin.tenant()
    made = [(await admin.issue(tenant_id))[0].api_key_id for _ in range(5)]
    listed, token = [], ""
    for size in (2, 2, 1):
        page = await admin.call("ListApiKeys", tenant_id=tenant_id, page_size=2, page_token=token)
        assert len(page.api_keys) == size
        listed += [each.api_key_id for each in page.api_keys]
        last, token = token, page.next_page_token

    assert token == ""
    assert sorted(listed) == sorted(made)
    failure = await admin.refused("ListApiKeys", tenant_id=other, page_token=last)
    assert list(failure.fields) == ["page_token"]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": [0]}),
        ("scopes", {"scopes": [tenant_pb2.API_SCOPE_CONVERSE, 99]}),
        ("expire_time", {"expire_time": at(datetime.now(UTC) - timedelta(seconds=1))}),
        ("expire_time", {"expire_time": Timestamp(seconds=2**62)}),
        ("expire_time", {"expire_time": Timestamp(seconds=4_000_000_000, nanos=-1)}),
        ("tenant_id", {"tenant_id": ""}),
        ("tenant_id", {"tenant_id": "x" * 129}),
    ],
)
async def test_invalid_key_request_is_refused(admin: Admin, field: str, fields: dict[str, Any]) -> None:
    """No scope, an unknown scope, a past or malformed time, no tenant."""
    good = {"tenant_id": admin.service.tenant_id, "scopes": [tenant_pb2.API_SCOPE_CONVERSE]}
    failure = await admin.refused("CreateApiKey", **(good | fields))

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", [field])


async def test_key_expires(admin: Admin) -> None:
    """It is accepted until its time, and refused after that."""
    tenant_id = await admin.tenant()
    key, text = await admin.issue(tenant_id, expire_time=at(datetime.now(UTC) + timedelta(seconds=5)))

    assert key.HasField("expire_time")
    assert await accepted(admin, text)
    await refused(admin, text)


async def test_revoked_key_is_refused_on_every_server(admin: Admin, serve: Start) -> None:
    """At once on the server that revoked it, soon on others; revoking it again changes nothing."""
    elsewhere = await serve(database=admin.service.database.name)
    tenant_id = await admin.tenant()
    key, text = await admin.issue(tenant_id)
    async with grpc.aio.insecure_channel(elsewhere.target) as channel:
        there = Admin(service=elsewhere, key=admin.key, stub=None, channel=channel)
        assert await accepted(admin, text)
        assert await accepted(there, text)

        await admin.call("RevokeApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id)
        assert not await accepted(admin, text)
        await refused(there, text)

    (listed,) = (await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys
    await admin.call("RevokeApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id)
    assert list((await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys) == [listed]


async def test_rotated_key_is_valid_until_the_overlap_ends(admin: Admin) -> None:
    """The new key has its scopes and lifetime; the old one expires with the overlap, or before."""
    tenant_id = await admin.tenant()
    old, old_text = await admin.issue(
        tenant_id,
        tenant_pb2.API_SCOPE_CONVERSE,
        tenant_pb2.API_SCOPE_BILLING,
        expire_time=at(datetime.now(UTC) + timedelta(days=7)),
    )
    answer = await admin.call("RotateApiKey", tenant_id=tenant_id, api_key_id=old.api_key_id, overlap={"seconds": 3600})

    assert answer.api_key.api_key_id != old.api_key_id
    assert list(answer.api_key.scopes) == list(old.scopes)
    assert _lifetime(answer.api_key) == _lifetime(old)
    assert await accepted(admin, answer.text)
    assert await accepted(admin, old_text)
    read = (await admin.call("GetApiKey", tenant_id=tenant_id, api_key_id=old.api_key_id)).api_key
    left = read.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=50) < left < timedelta(minutes=61)
    passed = {"$set": {"expire_time": datetime.now(UTC)}}  # as if the overlap were over
    admin.service.database["api_keys"].update_one({"_id": old.api_key_id}, passed)
    await refused(admin, old_text)
    assert await accepted(admin, answer.text)
    gone = await admin.refused("RotateApiKey", tenant_id=tenant_id, api_key_id=old.api_key_id)
    assert (gone.code, gone.reason) == (MISSING, "API_KEY_NOT_FOUND")


async def test_rotation_never_extends_a_key(admin: Admin) -> None:
    """An old key that expires before the overlap keeps its time; without an overlap it expires at once."""
    tenant_id = await admin.tenant()
    short, _ = await admin.issue(tenant_id, expire_time=at(datetime.now(UTC) + timedelta(minutes=1)))
    unbound, text = await admin.issue(tenant_id)
    await admin.call("RotateApiKey", tenant_id=tenant_id, api_key_id=short.api_key_id, overlap={"seconds": 3600})
    await admin.call("RotateApiKey", tenant_id=tenant_id, api_key_id=unbound.api_key_id, overlap={"seconds": 0})

    keys = {each.api_key_id: each for each in (await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys}
    assert keys[short.api_key_id] == short
    assert not await accepted(admin, text)
    assert len(keys) == 4


@pytest.mark.parametrize("seconds", [-1, 30 * 86_400 + 1, -(2**31), 2**62])
async def test_overlap_out_of_range_is_refused(admin: Admin, seconds: int) -> None:
    """The range is 0 seconds to 30 days."""
    key, _ = await admin.issue(admin.service.tenant_id)
    failure = await admin.refused(
        "RotateApiKey", tenant_id=admin.service.tenant_id, api_key_id=key.api_key_id, overlap={"seconds": seconds}
    )

    assert (failure.code, list(failure.fields)) == (INVALID, ["overlap"])


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("GetTenant", {}),
        ("CreateApiKey", {"scopes": [tenant_pb2.API_SCOPE_CONVERSE]}),
        ("GetApiKey", {"api_key_id": NO_KEY}),
        ("ListApiKeys", {}),
        ("RevokeApiKey", {"api_key_id": NO_KEY}),
        ("RotateApiKey", {"api_key_id": NO_KEY}),
        ("GetPolicy", {}),
        ("UpdatePolicy", {"policy": tenant_pb2.Policy(turns_per_minute=1)}),
        ("SetProviderKey", {"provider_key": "sk-or-v1-unknown"}),
        ("SetProviderKey", {"provider_key": ""}),
    ],
)
@pytest.mark.parametrize("tenant_id", ["tnt_0", "$ne", '{"$ne": null}', "a.b\0c", "tnt_\u0430", "x" * 128])
async def test_missing_tenant_is_not_found(admin: Admin, method: str, fields: dict[str, Any], tenant_id: str) -> None:
    """Guessed, injected or malformed, it is NOT_FOUND, and nothing is recorded."""
    failure = await admin.refused(method, tenant_id=tenant_id, **fields)

    assert (failure.code, failure.reason) == (MISSING, "TENANT_NOT_FOUND")
    assert failure.metadata == {"tenant_id": tenant_id}
    assert await admin.changes(tenant_id) == []


@pytest.mark.parametrize("method", ["GetApiKey", "RevokeApiKey", "RotateApiKey"])
async def test_key_of_another_tenant_is_not_found(admin: Admin, method: str) -> None:
    """A key is found with its own tenant only; it stays in force."""
    mine, other = await admin.tenant(), await admin.tenant()
    key, text = await admin.issue(other)

    for key_id in (key.api_key_id, NO_KEY, "$ne"):
        failure = await admin.refused(method, tenant_id=mine, api_key_id=key_id)
        assert (failure.code, failure.reason) == (MISSING, "API_KEY_NOT_FOUND")
        assert failure.metadata == {"api_key_id": key_id}
    assert await accepted(admin, text)
    assert [action for _, action, _ in await admin.changes(mine)] == ["CreateTenant"]


async def test_use_is_recorded_without_a_write_for_each_call(admin: Admin, serve: Start, connect: Any) -> None:
    """The last use is recorded within the interval; hundreds of calls cost one write per interval, an idle key none."""
    service = await serve(key_use_interval=0.4)
    caller: Caller = connect(service)
    before = _writes(service, "api_keys")
    begun = datetime.now(UTC)
    for _ in range(200):
        await caller.call("ListSessions", agent_pb.ListSessionsRequest())
    ended = datetime.now(UTC)
    await soon(lambda: (service.database["api_keys"].find_one({"_id": service.key_id}) or {}).get("last_use_time"))

    (found,) = service.database["api_keys"].find({"tenant_id": service.tenant_id})
    near = timedelta(seconds=1)  # the server's clock follows the database's within its measurement error
    assert begun - near <= found["last_use_time"] <= ended + near
    assert 1 <= _writes(service, "api_keys") - before <= (ended - begun).total_seconds() / 0.4 + 2


def _writes(service: Service, collection: str) -> int:
    """Return the number of writes to a collection."""
    (found,) = service.database[collection].aggregate([{"$collStats": {"latencyStats": {}}}])
    return int(found["latencyStats"]["writes"]["ops"])


async def test_last_use_is_written_when_the_server_stops(backends: Any, connect: Any) -> None:
    """The stopping server writes the uses that it has not written yet."""
    from godoty_service.server import running  # noqa: PLC0415 - beside its use

    name = backends.empty_database()
    async with running(backends.settings(name)) as server:
        service: Service = backends.service(server.address, name)
        await connect(service).call("ListSessions", agent_pb.ListSessionsRequest())
        assert "last_use_time" not in service.database["api_keys"].find_one({"_id": service.key_id})  # type: ignore[operator] # it is there

    found = service.database["api_keys"].find_one({"_id": service.key_id})
    assert found is not None
    assert found["last_use_time"]


@pytest.mark.parametrize(
    "method", ["GetTenant", "ListTenants", "GetApiKey", "ListApiKeys", "GetPolicy", "ListAdminChanges"]
)
async def test_admin_service_needs_the_scope_admin(caller: Caller, admin: Admin, method: str) -> None:
    """A key for conversations is PERMISSION_DENIED; no key is UNAUTHENTICATED."""
    request = getattr(pb, f"{method}Request")()
    denied = await failure_of(getattr(admin.stub, method)(request, metadata=caller.service.metadata))
    unknown = await failure_of(getattr(admin.stub, method)(request))

    assert (denied.code, denied.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert denied.metadata == {"scope": "admin"}
    assert unknown.reason == "INVALID_API_KEY"


def _lifetime(key: tenant_pb2.ApiKey) -> Any:
    return (key.expire_time.ToDatetime() - key.create_time.ToDatetime()) // timedelta(seconds=1)
