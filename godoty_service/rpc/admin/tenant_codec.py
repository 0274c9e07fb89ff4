"""Converts between `Tenant` of tenant.proto and its domain value, and checks the requests that create and change it."""

import re

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import tenant_pb2

from godoty_service.budgets.calendar import UTC_ZONE
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import COUNTS, Violations
from godoty_service.tenancy.lifecycle import NewTenant, TenantChange
from godoty_service.tenancy.tenants import Tenant

_MAX_NAME = 200  # characters
_TENANT_ID = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")  # generated ones have an underscore
_FIELDS = ("display_name", "time_zone")  # that can be changed
_ALL = "*"  # of a mask: all fields


def parse_new_tenant(request: pb.CreateTenantRequest) -> NewTenant:
    """Return the tenant to create.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    if request.tenant_id and not _TENANT_ID.fullmatch(request.tenant_id):
        violations.add("tenant_id", f"must match {_TENANT_ID.pattern}, or be empty")
    _check_name("display_name", request.display_name, violations)
    if request.time_zone:
        violations.check_time_zone("time_zone", request.time_zone)
    violations.check_caller_id("request_id", request.request_id)
    violations.raise_if_any()
    return NewTenant(
        display_name=request.display_name, tenant_id=request.tenant_id, time_zone=request.time_zone or UTC_ZONE
    )


def parse_tenant_change(request: pb.UpdateTenantRequest) -> tuple[str, TenantChange]:
    """Return the tenant's id and the change.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    message = request.tenant
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    if not request.HasField("tenant"):
        violations.add("tenant", "must be set")
    changed = _parse_mask(request, violations)
    if "display_name" in changed:
        _check_name("tenant.display_name", message.display_name, violations)
    if "time_zone" in changed and message.time_zone:
        violations.check_time_zone("tenant.time_zone", message.time_zone)
    violations.raise_if_any()
    change = TenantChange(
        display_name=message.display_name if "display_name" in changed else None,
        time_zone=(message.time_zone or UTC_ZONE) if "time_zone" in changed else None,
        etag=request.etag,
    )
    return request.tenant_id, change


def tenant_message(tenant: Tenant) -> tenant_pb2.Tenant:
    """Convert a tenant."""
    last = tenant.calendar.last
    times = {
        "time_zone_start_time": last.start,
        "suspend_time": tenant.suspend_time,
        "delete_time": tenant.delete_time,
        "erase_time": tenant.erase_time,
    }
    return tenant_pb2.Tenant(
        tenant_id=tenant.tenant_id,
        display_name=tenant.display_name,
        time_zone=last.zone,
        state=f"TENANT_STATE_{tenant.state.name}",
        create_time=timestamp(tenant.create_time),
        update_time=timestamp(tenant.update_time or tenant.create_time),
        etag=tenant.etag,
        **{name: timestamp(time) for name, time in times.items() if time is not None},
    )


def _parse_mask(request: pb.UpdateTenantRequest, violations: Violations) -> frozenset[str]:
    """Return the names of the fields that change; add a violation if the mask is invalid."""
    if not request.HasField("update_mask"):
        changed = frozenset(name for name in _FIELDS if getattr(request.tenant, name))
        if not changed and request.HasField("tenant"):
            violations.add("update_mask", 'must name a field, or the tenant must set one; "*" changes all fields')
        return changed
    paths = request.update_mask.paths[: COUNTS["paths"] + 1]
    if not paths or len(paths) > COUNTS["paths"]:
        violations.add("update_mask.paths", f"must be 1 to {COUNTS['paths']}, or the mask must be unset")
    for index, path in enumerate(paths):
        if path not in _FIELDS and path != _ALL:
            violations.add(f"update_mask.paths[{index}]", f"must be display_name, time_zone or *, not {path}")
    return frozenset(_FIELDS if _ALL in paths else paths)


def _check_name(field: str, name: str, violations: Violations) -> None:
    if len(name) > _MAX_NAME or not name.strip() or not name.isprintable():
        violations.add(field, f"must have 1 to {_MAX_NAME} printable characters")
