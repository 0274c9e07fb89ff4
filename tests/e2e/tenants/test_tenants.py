"""Tenants by gRPC: ids, names, time zones, etags and masks."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from godoty.v1 import tenant_pb2

from godoty_service.ids import new_id
from tests.e2e.tenants.conftest import Admin, Godoty

INVALID, EXISTS, ABORTED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
)
ACTIVE = tenant_pb2.TENANT_STATE_ACTIVE


def new_name() -> str:
    """Return an id that no other test uses."""
    return new_id("acme").replace("_", "-")


async def create(admin: Admin, **fields: Any) -> tenant_pb2.Tenant:
    """Create a tenant."""
    tenant: tenant_pb2.Tenant = (await admin.call("CreateTenant", **{"display_name": "Acme", **fields})).tenant
    return tenant


async def test_tenant_has_the_id_that_its_creator_chose(admin: Admin) -> None:
    """It is active, in UTC unless a time zone is named; another tenant with the id is refused, and not recorded."""
    tenant_id = new_name()
    tenant = await create(admin, tenant_id=tenant_id)
    assert (tenant.tenant_id, tenant.time_zone, tenant.state) == (tenant_id, "UTC", ACTIVE)
    assert tenant.update_time == tenant.create_time
    assert not any(
        tenant.HasField(name) for name in ("time_zone_start_time", "suspend_time", "delete_time", "erase_time")
    )
    failure = await admin.refused("CreateTenant", tenant_id=tenant_id, display_name="Another")

    assert (failure.code, failure.reason, failure.metadata) == (EXISTS, "TENANT_EXISTS", {"tenant_id": tenant_id})
    assert (await admin.call("GetTenant", tenant_id=tenant_id)).tenant == tenant
    assert [method for _, method, _ in await admin.changes(tenant_id)] == ["CreateTenant"]
    assert (await create(admin, time_zone="Europe/Berlin")).time_zone == "Europe/Berlin"


async def test_only_one_of_several_concurrent_requests_gets_an_id(admin: Admin) -> None:
    """With a request id, all repetitions of one request get the same tenant."""
    tenant_id, other_id = new_name(), new_name()
    attempts = (admin.call("CreateTenant", tenant_id=tenant_id, display_name=f"Acme {n}") for n in range(5))
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    made = [each for each in outcomes if not isinstance(each, BaseException)]
    assert len(made) == 1

    same = {"tenant_id": other_id, "display_name": "Acme", "request_id": other_id}
    tenants = await asyncio.gather(*(create(admin, **same) for _ in range(5)))
    assert {each.tenant_id for each in tenants} == {other_id}


@pytest.mark.parametrize(
    "tenant_id",
    ["ab", "a" * 64, "Acme", "1acme", "-acme", "acme-", "ac me", "ac_me", "ac.me", "acmé", "tnt_01a2", "a\n\n", "$ne"],
)
async def test_id_of_other_characters_is_refused(admin: Admin, tenant_id: str) -> None:
    """3 to 63 lower-case letters, digits and hyphens, from a letter to no hyphen."""
    failure = await admin.refused("CreateTenant", tenant_id=tenant_id, display_name="Acme")

    assert (failure.code, list(failure.fields)) == (INVALID, ["tenant_id"])


@pytest.mark.parametrize(
    "zone",
    [
        *("Mars/Olympus", "europe/berlin", "../../etc/passwd", "UTC+1", "x" * 64, "/"),
        *("localtime", "Factory", "posixrules", "posix/UTC", "right/UTC"),  # not the same on all hosts
    ],
)
async def test_unknown_time_zone_is_refused(admin: Admin, zone: str) -> None:
    """At the creation, and as a change; nothing is recorded of it."""
    tenant = await create(admin, tenant_id=new_name())
    failure = await admin.refused("CreateTenant", display_name="Acme", time_zone=zone)
    assert (failure.code, list(failure.fields)) == (INVALID, ["time_zone"])
    failure = await admin.refused("UpdateTenant", tenant_id=tenant.tenant_id, tenant={"time_zone": zone})

    assert (failure.code, list(failure.fields)) == (INVALID, ["tenant.time_zone"])
    assert len(await admin.changes(tenant.tenant_id)) == 1


async def test_name_and_time_zone_are_changed(admin: Admin) -> None:
    """Each is recorded with its old value; a new zone is in force from the next month of the old one."""
    zone = ZoneInfo("America/New_York")
    tenant = await create(admin, tenant_id=new_name(), time_zone=zone.key)
    renamed = (await admin.call("UpdateTenant", tenant_id=tenant.tenant_id, tenant={"display_name": "Ada"})).tenant
    assert (renamed.display_name, renamed.time_zone) == ("Ada", zone.key)
    assert renamed.etag != tenant.etag
    assert renamed.update_time.ToDatetime() > tenant.update_time.ToDatetime()
    moved = (await admin.call("UpdateTenant", tenant_id=tenant.tenant_id, tenant={"time_zone": "Asia/Tokyo"})).tenant
    local = (datetime.now(UTC) + timedelta(minutes=2)).astimezone(zone)
    month = (local.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    assert moved.time_zone == "Asia/Tokyo"
    assert moved.time_zone_start_time.ToDatetime(tzinfo=UTC) == month.replace(tzinfo=None).replace(tzinfo=zone)
    back = (await admin.call("UpdateTenant", tenant_id=tenant.tenant_id, tenant={"time_zone": zone.key})).tenant

    assert (back.time_zone, back.HasField("time_zone_start_time")) == (zone.key, False)
    assert (await admin.call("GetTenant", tenant_id=tenant.tenant_id)).tenant == back
    changes = (await admin.call("ListAdminChanges", tenant_id=tenant.tenant_id)).changes
    values = [(json.loads(each.old_value_json), json.loads(each.new_value_json)) for each in changes[:-1]]
    assert values[::-1] == [
        ({"display_name": "Acme"}, {"display_name": "Ada"}),
        ({"time_zone": zone.key}, {"time_zone": "Asia/Tokyo"}),
        ({"time_zone": "Asia/Tokyo"}, {"time_zone": zone.key}),
    ]


async def test_mask_names_what_changes(admin: Admin) -> None:
    """What it does not name stays; an empty time zone in it is UTC, an empty name is none."""
    tenant_id = (await create(admin, time_zone="Asia/Tokyo")).tenant_id
    both = {"display_name": "Ada", "time_zone": "Europe/Berlin"}
    named = await admin.call("UpdateTenant", tenant_id=tenant_id, tenant=both, update_mask={"paths": ["display_name"]})
    assert (named.tenant.display_name, named.tenant.time_zone) == ("Ada", "Asia/Tokyo")
    everything = await admin.call(
        "UpdateTenant", tenant_id=tenant_id, tenant={"display_name": "Bea"}, update_mask={"paths": ["*"]}
    )
    assert (everything.tenant.display_name, everything.tenant.time_zone) == ("Bea", "UTC")

    for fields, wrong in (
        ({"tenant": {"display_name": "Ada"}, "update_mask": {"paths": ["state"]}}, "update_mask.paths[0]"),
        ({"tenant": {"display_name": "Ada"}, "update_mask": {}}, "update_mask.paths"),
        ({"tenant": {}}, "update_mask"),
        ({}, "tenant"),
        ({"tenant": {}, "update_mask": {"paths": ["display_name"]}}, "tenant.display_name"),
        ({"tenant": {"state": "TENANT_STATE_DELETED", "etag": "x"}}, "update_mask"),
    ):
        failure = await admin.refused("UpdateTenant", tenant_id=tenant_id, **fields)
        assert (failure.code, list(failure.fields)) == (INVALID, [wrong])


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("UpdateTenant", {"tenant": {"display_name": "Bea"}}),
        ("SuspendTenant", {}),
        ("ResumeTenant", {}),
        ("DeleteTenant", {}),
    ],
)
async def test_change_of_another_version_is_refused(admin: Admin, method: str, fields: dict[str, Any]) -> None:
    """With the present etag in the error, and nothing is recorded; the present etag is accepted."""
    tenant = await create(admin)
    await admin.call("UpdateTenant", tenant_id=tenant.tenant_id, tenant={"display_name": "Ada"})
    failure = await admin.refused(method, tenant_id=tenant.tenant_id, etag=tenant.etag, **fields)
    present = (await admin.call("GetTenant", tenant_id=tenant.tenant_id)).tenant

    assert (failure.code, failure.reason) == (ABORTED, "ETAG_MISMATCH")
    assert failure.metadata == {"etag": present.etag}
    assert [each for _, each, _ in await admin.changes(tenant.tenant_id)] == ["UpdateTenant", "CreateTenant"]
    await admin.call(method, tenant_id=tenant.tenant_id, etag=present.etag, **fields)


async def test_concurrent_changes_are_all_made(admin: Admin) -> None:
    """A change without an etag that another one overtakes is made on top of it."""
    tenant_id = (await create(admin)).tenant_id
    changes: list[tuple[str, dict[str, Any]]] = [
        ("UpdateTenant", {"tenant": {"display_name": "Ada"}}),
        ("UpdateTenant", {"tenant": {"time_zone": "Asia/Tokyo"}}),
        ("SuspendTenant", {}),
    ]
    await asyncio.gather(*(admin.call(method, tenant_id=tenant_id, **fields) for method, fields in changes))
    tenant = (await admin.call("GetTenant", tenant_id=tenant_id)).tenant

    assert (tenant.display_name, tenant.time_zone) == ("Ada", "Asia/Tokyo")
    assert tenant.state == tenant_pb2.TENANT_STATE_SUSPENDED


async def test_repeated_suspension_and_resumption_change_nothing(admin: Admin) -> None:
    """Each is recorded once; the time of the suspension is that of the first."""
    tenant_id = (await create(admin)).tenant_id
    first, second = [(await admin.call("SuspendTenant", tenant_id=tenant_id)).tenant for _ in range(2)]
    assert (first, first.state) == (second, tenant_pb2.TENANT_STATE_SUSPENDED)
    assert abs(first.suspend_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    third, fourth = [(await admin.call("ResumeTenant", tenant_id=tenant_id)).tenant for _ in range(2)]

    assert (third, third.state, third.HasField("suspend_time")) == (fourth, ACTIVE, False)
    assert [(method, new) for _, method, new in await admin.changes(tenant_id)][:-1] == [
        ("ResumeTenant", {"state": "active"}),
        ("SuspendTenant", {"state": "suspended"}),
    ]


def test_commands_do_what_the_methods_do(godoty: Godoty) -> None:
    """`godoty tenant create | update | suspend | resume | delete | list | show`."""
    tenant = new_name()
    assert godoty("tenant", "create", "Acme", "--id", tenant, "--time-zone", "Asia/Tokyo").strip() == tenant
    updated = json.loads(godoty("tenant", "update", tenant, "--name", "Ada"))
    assert (updated["display_name"], updated["time_zone"]) == ("Ada", "Asia/Tokyo")
    suspended = json.loads(godoty("tenant", "suspend", tenant, "--etag", updated["etag"]))
    assert suspended["state"] == "TENANT_STATE_SUSPENDED"
    assert json.loads(godoty("tenant", "resume", tenant))["state"] == "TENANT_STATE_ACTIVE"
    with pytest.raises(SystemExit):
        godoty("tenant", "delete", tenant, typed="n\n")
    assert tenant in godoty("tenant", "list")
    assert json.loads(godoty("tenant", "delete", tenant, "--yes"))["state"] == "TENANT_STATE_DELETED"

    assert tenant not in godoty("tenant", "list")
    assert tenant in godoty("tenant", "list", "--deleted")
    assert json.loads(godoty("tenant", "show", tenant))["tenant"]["state"] == "TENANT_STATE_DELETED"
