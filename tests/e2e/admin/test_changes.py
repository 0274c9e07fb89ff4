"""The audit log of administrators' changes: complete, without secrets, newest first."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2, tenant_pb2

from godoty_service.bootstrap.components import open_components
from godoty_service.errors import StorageUnavailable
from godoty_service.tenancy.api_keys import ApiKeyTerms
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.lifecycle import NewTenant, TenantChange
from godoty_service.tenancy.policies import NO_POLICY, PolicyChange
from tests.conftest import Start
from tests.e2e.admin.conftest import ENCRYPTION_KEY, Admin
from tests.support.backends import ME

TERMS = ApiKeyTerms(scopes=frozenset({Scope.ADMIN}))
UNLIMITED: dict[str, Any] = {"display_name": "", "models": [], "turns_per_minute": None, "expire_time": None}
NO_LIMITS: dict[str, Any] = {
    "allowed_models": [],
    "allowed_agents": [],
    "allowed_tools": [],
    "default_model": None,
    "default_fallback_models": [],
    "max_output_tokens": None,
    "turns_per_minute": None,
    "concurrent_turns": None,
    "provider": None,
    "zero_data_retention": False,
    "budgets": [],
}
BUDGETS = [{"window": "day", "limit": "0.0000001", "hard": True}]
SECRET = "sk-or-v1-0123456789abcdef-planted"


async def test_each_change_is_recorded_with_author_and_values(admin: Admin) -> None:
    """One record for each method that changes something, with the new values."""
    tenant_id = await admin.tenant("Ada")
    key, text = await admin.issue(tenant_id, tenant_pb2.API_SCOPE_BILLING)
    rotated = await admin.call("RotateApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id, overlap={"seconds": 0})
    await admin.call("RevokeApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id)
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd="0.0000001", hard=True)
    await admin.set_policy(tenant_id, tenant_pb2.Policy(turns_per_minute=3, budgets=[budget]))
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key="")

    changes = await admin.changes(tenant_id)
    assert {by for by, _, _ in changes} == {admin.key_id}
    issued = UNLIMITED | {"api_key_id": key.api_key_id, "scopes": ["billing"]}
    new = issued | {"api_key_id": rotated.api_key.api_key_id}
    (_, _, provider_key) = changes[1]
    assert [(action, details) for _, action, details in reversed(changes)] == [
        ("CreateTenant", {"display_name": "Ada", "time_zone": "UTC"}),
        ("CreateApiKey", issued),
        ("RotateApiKey", {"old_api_key_id": key.api_key_id, "overlap_seconds": 0.0, **new}),
        ("RevokeApiKey", {"api_key_id": key.api_key_id, "revoked": True}),
        ("UpdatePolicy", NO_LIMITS | {"turns_per_minute": 3, "budgets": BUDGETS}),
        ("SetProviderKey", {"provider_key_id": provider_key["provider_key_id"]}),
        ("SetProviderKey", {"provider_key_id": None}),
    ]
    kept = str(list(admin.service.database["admin_changes"].find()))
    for secret in (SECRET, text.split("_", 2)[2], rotated.text.split("_", 2)[2], admin.key.split("_", 2)[2]):
        assert secret not in kept


async def test_changes_are_paged_newest_first(admin: Admin) -> None:
    """Of one tenant or of all, each once; reading records nothing."""
    tenant_id = await admin.tenant()
    for number in range(1, 6):
        await admin.set_policy(tenant_id, tenant_pb2.Policy(turns_per_minute=number))
    seen: list[int | None] = []
    token = ""
    while token or not seen:
        page = await admin.call("ListAdminChanges", tenant_id=tenant_id, page_size=4, page_token=token)
        seen += [json.loads(each.new_value_json).get("turns_per_minute") for each in page.changes]
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


async def test_old_and_new_values_are_recorded(admin: Admin) -> None:
    """Of the fields that a change concerns; what is created has no old values; no secret is in either."""
    tenant_id = await admin.tenant("Ada")
    key, _ = await admin.issue(tenant_id, display_name="bot", models=["openai/*"])
    await admin.call("UpdatePolicy", tenant_id=tenant_id, policy=tenant_pb2.Policy(turns_per_minute=3))
    policy = tenant_pb2.Policy(turns_per_minute=0, max_output_tokens=9)
    await admin.call("UpdatePolicy", tenant_id=tenant_id, policy=policy)
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key="")
    for _ in range(2):
        await admin.call("RevokeApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id)

    changes = list(reversed((await admin.call("ListAdminChanges", tenant_id=tenant_id)).changes))
    values = [(json.loads(each.old_value_json or "null"), json.loads(each.new_value_json)) for each in changes]
    made = {"api_key_id": key.api_key_id, "scopes": ["converse"], "display_name": "bot", "models": ["openai/*"]}
    provider_key = values[4][1]["provider_key_id"]
    revoked = {"api_key_id": key.api_key_id, "revoked": True}
    assert values == [
        (None, {"display_name": "Ada", "time_zone": "UTC"}),
        (None, UNLIMITED | made),
        ({"turns_per_minute": None}, {"turns_per_minute": 3}),
        ({"max_output_tokens": None, "turns_per_minute": 3}, {"max_output_tokens": 9, "turns_per_minute": 0}),
        ({"provider_key_id": None}, {"provider_key_id": provider_key}),
        ({"provider_key_id": provider_key}, {"provider_key_id": None}),
        (revoked | {"revoked": False}, revoked),
        (revoked, revoked),
    ]
    assert SECRET not in str(changes)
    assert len({each.change_id for each in changes}) == len(changes)


async def test_author_is_a_key_with_the_callers_address(admin: Admin, admin_of: Any, serve: Start) -> None:
    """Behind a trusted proxy it is the address that the proxy forwards; from another peer the header is ignored."""
    trusting: Admin = admin_of(await serve(trusted_proxies="127.0.0.0/8,::1/128"))
    peers = []
    for who in (trusting, admin):
        metadata = (("authorization", f"Bearer {who.key}"), ("x-forwarded-for", "10.9.8.7, 2001:db8::12:34"))
        answer = await who.stub.CreateTenant(pb.CreateTenantRequest(display_name="Ada"), metadata=metadata)
        (change,) = (await who.call("ListAdminChanges", tenant_id=answer.tenant.tenant_id)).changes
        assert (change.actor.kind, change.actor.id) == (tenant_pb2.ADMIN_ACTOR_KIND_KEY, who.key_id)
        peers.append(change.actor.peer)

    assert peers[0] == "2001:db8::12:34"
    assert peers[1] in ("127.0.0.1", "::1")


async def test_changes_are_listed_by_time(admin: Admin) -> None:
    """From a time on, before a time, both, and with pages; a token holds for its own range only."""
    tenant_id = await admin.tenant()
    for number in range(1, 6):
        await admin.set_policy(tenant_id, tenant_pb2.Policy(turns_per_minute=number))
    everything = (await admin.call("ListAdminChanges", tenant_id=tenant_id)).changes
    times = [each.time for each in everything]
    after, before = times[4], times[1]

    async def listed(**fields: Any) -> list[str]:
        found: list[str] = []
        token = ""
        while token or not found:
            page = await admin.call("ListAdminChanges", tenant_id=tenant_id, page_size=2, page_token=token, **fields)
            found += [each.change_id for each in page.changes]
            if not (token := page.next_page_token):
                break
        return found

    def expected(*, start: Any = None, end: Any = None) -> list[str]:
        def nanoseconds(time: Any) -> int:
            return int(time.ToNanoseconds())

        return [
            each.change_id
            for each in everything
            if (start is None or nanoseconds(each.time) >= nanoseconds(start))
            and (end is None or nanoseconds(each.time) < nanoseconds(end))
        ]

    assert await listed(start_time=after) == expected(start=after)
    assert await listed(end_time=before) == expected(end=before)
    assert await listed(start_time=after, end_time=before) == expected(start=after, end=before)
    token = (await admin.call("ListAdminChanges", tenant_id=tenant_id, page_size=1)).next_page_token
    refused = await admin.refused(
        "ListAdminChanges", tenant_id=tenant_id, start_time=after, page_size=1, page_token=token
    )
    assert list(refused.fields) == ["page_token"]
    for field, fields in (
        ("end_time", {"start_time": before, "end_time": after}),
        ("start_time", {"start_time": {"seconds": 2**62}}),
        ("end_time", {"end_time": {"seconds": 5, "nanos": -1}}),
    ):
        refused = await admin.refused("ListAdminChanges", tenant_id=tenant_id, **fields)
        assert list(refused.fields) == [field]


async def test_changes_of_earlier_builds_are_listed(admin: Admin) -> None:
    """They have an author alone: the id of a key, or else a user of the command line; and no old values."""
    tenant_id = await admin.tenant()
    now = datetime.now(UTC)
    admin.service.database["admin_changes"].insert_many(
        {"_id": f"change_{number}", "time": now, "by": by, "action": "SetPolicy", "tenant_id": tenant_id}
        | {"details": json.dumps({"turns_per_minute": 3}), **others}
        for number, by, others in (
            (1, admin.key_id, {}),
            (2, "ann", {}),
            (3, "later", {"kind": "robot", "peer": "", "old": ""}),
        )
    )
    changes = (await admin.call("ListAdminChanges", tenant_id=tenant_id)).changes
    found = {each.change_id: each for each in changes}

    kinds = (tenant_pb2.ADMIN_ACTOR_KIND_KEY, tenant_pb2.ADMIN_ACTOR_KIND_CLI, tenant_pb2.ADMIN_ACTOR_KIND_CLI)
    for number, (kind, by) in enumerate(zip(kinds, (admin.key_id, "ann", "later"), strict=True), 1):
        each = found[f"change_{number}"]
        assert (each.actor.kind, each.actor.id, each.actor.peer) == (kind, by, "")
        assert (each.method, each.old_value_json) == ("SetPolicy", "")
        assert json.loads(each.new_value_json) == {"turns_per_minute": 3}


async def test_change_that_cannot_be_recorded_is_not_made(backends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is inserted first: if that fails, nothing changes."""
    async with open_components(
        backends.settings(backends.empty_database(), encryption_keys=ENCRYPTION_KEY)
    ) as components:
        admin = components.administration
        tenant = await admin.lifecycle.create(ME, NewTenant(display_name="acme"))
        key, text = await admin.create_api_key(ME, tenant.tenant_id, TERMS)

        async def fail(**_: Any) -> None:
            raise StorageUnavailable("out of reach")

        monkeypatch.setattr(admin.changes, "record", fail)
        attempts = [
            admin.lifecycle.create(ME, NewTenant(display_name="else")),
            admin.lifecycle.update(ME, tenant.tenant_id, TenantChange(display_name="else")),
            admin.lifecycle.suspend(ME, tenant.tenant_id),
            admin.lifecycle.delete(ME, tenant.tenant_id),
            admin.create_api_key(ME, tenant.tenant_id, TERMS),
            admin.revoke_api_key(ME, tenant.tenant_id, key.key_id),
            admin.rotate_api_key(ME, tenant.tenant_id, key.key_id, overlap=timedelta(0)),
            admin.update_policy(ME, tenant.tenant_id, PolicyChange(policy=NO_POLICY)),
            admin.set_provider_key(ME, tenant.tenant_id, SECRET),
            admin.reseal_provider_keys(ME),
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
