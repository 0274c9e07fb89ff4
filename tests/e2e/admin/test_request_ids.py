"""Repeated requests that create tenants and keys: each creates one thing."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import tenant_pb2

from godoty_service.bootstrap.components import open_components
from godoty_service.errors import StorageUnavailable
from godoty_service.tenancy.api_keys import ApiKeys, ApiKeyTerms
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.errors import ApiKeyCreated
from godoty_service.tenancy.lifecycle import NewTenant
from godoty_service.tenancy.request_ids import AdminRequest
from tests.e2e.admin.conftest import Admin, Godoty
from tests.support.backends import ME
from tests.support.service import Service

NO_TIME = timedelta(0)
EXISTS, INVALID = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.INVALID_ARGUMENT
CONVERSE, BILLING = tenant_pb2.API_SCOPE_CONVERSE, tenant_pb2.API_SCOPE_BILLING


async def test_repeated_request_returns_the_same_tenant(admin: Admin) -> None:
    """Also if all are sent at once; one tenant is created, and with another id another one."""
    name = f"tenant of {admin.key_id}"
    first, *others = await asyncio.gather(
        *(admin.call("CreateTenant", display_name=name, request_id=f"one-{admin.key_id}") for _ in range(5))
    )
    again = await admin.call("CreateTenant", display_name=name, request_id=f"one-{admin.key_id}")
    another = await admin.call("CreateTenant", display_name=name, request_id=f"two-{admin.key_id}")

    assert all(each == first for each in (*others, again))
    assert another != first
    assert admin.service.database["tenants"].count_documents({"name": name}) == 2


async def test_repeated_request_creates_one_key(admin: Admin) -> None:
    """The repetition is refused with the id of the key, and never shows its text; at once, one of all gets the text."""
    tenant_id = await admin.tenant()
    fields: dict[str, Any] = {"tenant_id": tenant_id, "scopes": [CONVERSE], "request_id": "bot-7"}
    created = await admin.call("CreateApiKey", **fields)
    repeated = await admin.refused("CreateApiKey", **fields)
    assert (repeated.code, repeated.reason) == (EXISTS, "API_KEY_CREATED")
    assert repeated.metadata == {"api_key_id": created.api_key.api_key_id}
    assert created.text.split("_", 2)[2] not in repeated.text

    answers = await asyncio.gather(
        *(admin.call("CreateApiKey", **(fields | {"request_id": "bot-8"})) for _ in range(5)), return_exceptions=True
    )
    assert sum(not isinstance(each, BaseException) for each in answers) == 1
    assert len((await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys) == 2


async def test_repeated_rotation_creates_one_successor(admin: Admin) -> None:
    """Also after the old key has expired with the rotation."""
    tenant_id = await admin.tenant()
    old, _ = await admin.issue(tenant_id)
    fields: dict[str, Any] = {"tenant_id": tenant_id, "api_key_id": old.api_key_id, "request_id": "rotation-1"}
    created = await admin.call("RotateApiKey", **fields)
    before = (await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys
    repeated = await admin.refused("RotateApiKey", **fields)

    assert (repeated.code, repeated.reason) == (EXISTS, "API_KEY_CREATED")
    assert repeated.metadata == {"api_key_id": created.api_key.api_key_id}
    assert list((await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys) == list(before)


async def test_request_id_of_another_request_is_refused(admin: Admin) -> None:
    """Another content, another method, another key; within another tenant the id is free."""
    tenant_id, other = await admin.tenant(), await admin.tenant()
    fields: dict[str, Any] = {"tenant_id": tenant_id, "scopes": [CONVERSE], "request_id": "r"}
    key = (await admin.call("CreateApiKey", **fields)).api_key
    _, text = await admin.issue(admin.service.tenant_id, tenant_pb2.API_SCOPE_ADMIN, operator=True)
    colleague = Admin(service=admin.service, key=text, stub=admin.stub, channel=admin.channel)
    refusals = [
        await admin.refused("CreateApiKey", **(fields | {"scopes": [BILLING]})),
        await admin.refused("RotateApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id, request_id="r"),
        await colleague.refused("CreateApiKey", **fields),
    ]
    request_id = f"t-{admin.key_id}"
    await admin.call("CreateTenant", display_name="one", request_id=request_id)
    refusals += [
        await admin.refused("CreateTenant", display_name="two", request_id=request_id),
        await colleague.refused("CreateTenant", display_name="one", request_id=request_id),
    ]

    assert {(each.code, each.reason) for each in refusals} == {(EXISTS, "REQUEST_ID_REUSED")}
    assert (await admin.call("CreateApiKey", **(fields | {"tenant_id": other}))).text
    assert len((await admin.call("ListApiKeys", tenant_id=tenant_id)).api_keys) == 1


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, "\u00e9", "a/b", "$"])
@pytest.mark.parametrize("method", ["CreateTenant", "CreateApiKey", "RotateApiKey"])
async def test_malformed_request_id_is_refused(admin: Admin, method: str, request_id: str) -> None:
    """INVALID_FIELD with the field."""
    by_method: dict[str, dict[str, Any]] = {
        "CreateTenant": {"display_name": "acme"},
        "CreateApiKey": {"tenant_id": admin.service.tenant_id, "scopes": [CONVERSE]},
        "RotateApiKey": {"tenant_id": admin.service.tenant_id, "api_key_id": admin.key_id},
    }
    failure = await admin.refused(method, request_id=request_id, **by_method[method])

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", ["request_id"])


async def test_interrupted_rotation_is_completed_by_its_repetition(
    backends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies after the successor was inserted: the old key did not expire, and does so with the repetition."""
    async with open_components(backends.settings(backends.empty_database())) as components:
        admin = components.administration
        tenant = await admin.lifecycle.create(ME, NewTenant(display_name="acme"))
        terms = ApiKeyTerms(scopes=frozenset({Scope.CONVERSE}))
        old, text = await admin.create_api_key(ME, tenant.tenant_id, terms)
        request = AdminRequest(request_id="r", fingerprint="f")

        async def fail(*_: Any, **__: Any) -> None:
            raise StorageUnavailable("out of reach")

        monkeypatch.setattr(ApiKeys, "expire", fail)
        with pytest.raises(StorageUnavailable):
            await admin.rotate_api_key(ME, tenant.tenant_id, old.key_id, overlap=NO_TIME, request=request)
        await components.tenancy.api_keys.verify(text)
        monkeypatch.undo()
        with pytest.raises(ApiKeyCreated):
            await admin.rotate_api_key(ME, tenant.tenant_id, old.key_id, overlap=NO_TIME, request=request)

        found = await components.tenancy.api_keys.page(tenant.tenant_id, after=None, limit=0)
        assert [each.expire_time is None for each in found] == [False, True]


def test_commands_take_a_request_id(godoty: Godoty, service: Service) -> None:
    """The same tenant; one key, whose repetition is refused also if its lifetime is counted from now."""
    one = ["tenant", "create", "Ada", "--request-id", f"cli-{service.key_id}"]
    tenant = godoty(*one).strip()
    assert godoty(*one).strip() == tenant
    two = ["key", "create", tenant, "--days", "3", "--request-id", "k"]
    key_id = godoty(*two).split("_")[1]
    with pytest.raises(ApiKeyCreated, match=key_id):
        godoty(*two)
    three = ["key", "rotate", tenant, key_id, "--request-id", "r"]
    assert godoty(*three)
    with pytest.raises(ApiKeyCreated):
        godoty(*three)
    assert service.database["api_keys"].count_documents({"tenant_id": tenant}) == 2
