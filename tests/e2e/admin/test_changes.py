"""The audit log of administrators' changes: complete, without secrets, newest first."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2

from godoty_service.bootstrap import open_components
from godoty_service.errors import StorageUnavailable
from godoty_service.tenancy.auth import Scope
from tests.conftest import Start
from tests.e2e.admin.conftest import ENCRYPTION_KEY, Admin

SECRET = "sk-or-v1-0123456789abcdef-planted"


async def test_each_change_is_recorded_with_author_and_values(admin_of: Any, serve: Start) -> None:
    """One record for each method that changes something, with the new values."""
    admin: Admin = admin_of(await serve(encryption_keys=ENCRYPTION_KEY))
    tenant_id = await admin.tenant("Ada")
    key, text = await admin.issue(tenant_id, pb.API_SCOPE_BILLING)
    rotated = await admin.call("RotateKey", tenant_id=tenant_id, key_id=key.key_id, overlap_seconds=0)
    await admin.call("RevokeKey", tenant_id=tenant_id, key_id=key.key_id)
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd="0.0000001", hard=True)
    await admin.call("SetPolicy", tenant_id=tenant_id, policy=pb.Policy(turns_per_minute=3, budgets=[budget]))
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key="")

    changes = await admin.changes(tenant_id)
    assert {by for by, _, _ in changes} == {admin.key_id}
    issued = {"key_id": key.key_id, "scopes": ["billing"]}
    new = {"key_id": rotated.key.key_id, "scopes": ["billing"]}
    (_, _, provider_key) = changes[1]
    assert [(action, details) for _, action, details in reversed(changes)] == [
        ("CreateTenant", {"name": "Ada"}),
        ("IssueKey", issued),
        ("RotateKey", {"old_key_id": key.key_id, "overlap_seconds": 0, **new}),
        ("RevokeKey", {"key_id": key.key_id}),
        ("SetPolicy", {"turns_per_minute": 3, "budgets": [{"window": "day", "limit": "0.0000001", "hard": True}]}),
        ("SetProviderKey", {"provider_key_id": provider_key["provider_key_id"]}),
        ("SetProviderKey", {"removed": True}),
    ]
    kept = str(list(admin.service.database["admin_changes"].find()))
    for secret in (SECRET, text.rsplit("_", 1)[-1], rotated.text.rsplit("_", 1)[-1], admin.key.rsplit("_", 1)[-1]):
        assert secret not in kept


async def test_changes_are_paged_newest_first(admin: Admin) -> None:
    """Of one tenant or of all, each once; reading records nothing."""
    tenant_id = await admin.tenant()
    for number in range(1, 6):
        await admin.call("SetPolicy", tenant_id=tenant_id, policy=pb.Policy(turns_per_minute=number))
    seen: list[int | None] = []
    token = ""
    while token or not seen:
        page = await admin.call("ListAdminChanges", tenant_id=tenant_id, page_size=4, page_token=token)
        seen += [json.loads(each.details_json).get("turns_per_minute") for each in page.changes]
        token = page.next_page_token

    assert seen == [5, 4, 3, 2, 1, None]
    everybody = (await admin.call("ListAdminChanges", page_size=6)).changes
    times = [each.time.ToDatetime(tzinfo=UTC) for each in everybody]
    assert times == sorted(times, reverse=True)
    assert datetime.now(UTC) - times[0] < timedelta(minutes=1)
    assert tenant_id in {each.tenant_id for each in everybody}
    last = (await admin.call("ListAdminChanges", page_size=1)).next_page_token
    assert list((await admin.refused("ListAdminChanges", tenant_id=tenant_id, page_token=last)).fields) == [
        "page_token"
    ]


async def test_change_that_cannot_be_recorded_is_not_made(
    backends: Any, new_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is inserted first: if that fails, nothing changes."""
    async with open_components(backends.settings(new_database, encryption_keys=ENCRYPTION_KEY)) as components:
        admin = components.administration
        tenant = await admin.create_tenant("me", name="acme")
        key, text = await admin.issue_key("me", tenant.tenant_id, scopes=frozenset({Scope.ADMIN}), expire_time=None)

        async def fail(**_: Any) -> None:
            raise StorageUnavailable("out of reach")

        monkeypatch.setattr(admin.changes, "record", fail)
        attempts = [
            admin.create_tenant("me", name="else"),
            admin.issue_key("me", tenant.tenant_id, scopes=frozenset({Scope.ADMIN}), expire_time=None),
            admin.revoke_key("me", tenant.tenant_id, key.key_id),
            admin.rotate_key("me", tenant.tenant_id, key.key_id, overlap=timedelta(0)),
            admin.set_policy("me", tenant.tenant_id, await components.tenancy.policies.read("none")),
            admin.set_provider_key("me", tenant.tenant_id, SECRET),
            admin.reseal_provider_keys("me"),
        ]
        for attempt in attempts:
            with pytest.raises(StorageUnavailable):
                await attempt

        assert await components.tenancy.tenants.page(after=None, limit=0) == [tenant]
        assert [
            each.key_id for each in await components.tenancy.api_keys.page(tenant.tenant_id, after=None, limit=0)
        ] == [key.key_id]
        await components.tenancy.api_keys.verify(text)
        assert await components.tenancy.provider_keys.get(tenant.tenant_id) is None
        assert await components.database.collection("policies").count({}) == 0
