"""Tenants, API keys and policies (scope admin)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from godoty.calls import Call, Pages
from godoty.codec import all_from, enum_number, from_message, to_amount, to_duration, to_message, to_timestamp
from godoty.types import (
    AdjustedCall,
    AdminChange,
    ApiKey,
    ApiScope,
    CreatedApiKey,
    Erasure,
    Policy,
    RotatedApiKey,
    Tenant,
    TenantPolicy,
)
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import tenant_pb2


def create_tenant(display_name: str, *, tenant_id: str = "", time_zone: str = "", request_id: str = "") -> Call[Tenant]:
    """Create a tenant; the same request with the same id returns the tenant that it created before."""
    request = pb.CreateTenantRequest(
        tenant_id=tenant_id, display_name=display_name, time_zone=time_zone, request_id=request_id
    )
    return Call("AdminService.CreateTenant", request, _tenant)


def get_tenant(tenant_id: str) -> Call[Tenant]:
    """Return a tenant, also a deleted one."""
    return Call("AdminService.GetTenant", pb.GetTenantRequest(tenant_id=tenant_id), _tenant)


def list_tenants(*, show_deleted: bool = False, page_size: int = 0) -> Pages[Tenant]:
    """Yield the tenants, oldest first."""
    request = pb.ListTenantsRequest(show_deleted=show_deleted, page_size=page_size)
    return Pages("AdminService.ListTenants", request, lambda page: all_from(Tenant, page.tenants))


def update_tenant(
    tenant_id: str, *, display_name: str | None = None, time_zone: str | None = None, etag: str = ""
) -> Call[Tenant]:
    """Change a tenant's display name or time zone; what is None remains."""
    changes = {"display_name": display_name, "time_zone": time_zone}
    request = pb.UpdateTenantRequest(tenant_id=tenant_id, etag=etag)
    for name, value in changes.items():
        if value is not None:
            setattr(request.tenant, name, value)
            request.update_mask.paths.append(name)
    return Call("AdminService.UpdateTenant", request, _tenant)


def suspend_tenant(tenant_id: str, *, etag: str = "") -> Call[Tenant]:
    """Suspend a tenant."""
    request = pb.SuspendTenantRequest(tenant_id=tenant_id, etag=etag)
    return Call("AdminService.SuspendTenant", request, _tenant)


def resume_tenant(tenant_id: str, *, etag: str = "") -> Call[Tenant]:
    """End a tenant's suspension."""
    return Call("AdminService.ResumeTenant", pb.ResumeTenantRequest(tenant_id=tenant_id, etag=etag), _tenant)


def delete_tenant(tenant_id: str, *, etag: str = "") -> Call[Tenant]:
    """Delete a tenant for good; its ledger remains."""
    return Call("AdminService.DeleteTenant", pb.DeleteTenantRequest(tenant_id=tenant_id, etag=etag), _tenant)


def create_api_key(
    tenant_id: str,
    scopes: Sequence[ApiScope | str],
    *,
    display_name: str = "",
    operator: bool = False,
    models: Sequence[str] = (),
    turns_per_minute: int | None = None,
    expire_time: datetime | None = None,
    request_id: str = "",
) -> Call[CreatedApiKey]:
    """Create an API key, whose text is in this result only.

    Args:
        tenant_id: The tenant.
        scopes: "converse", "billing", "agents", "admin".
        display_name: The name for people.
        operator: The key is the operator's: its scope admin holds for all tenants.
        models: The models that its turns may request; empty for those that the policy allows.
        turns_per_minute: The most turns that it starts in a minute. None: no bound of its own.
        expire_time: The time of expiry. None: it does not expire.
        request_id: The same id creates no second key, but `ApiKeyCreated`.
    """
    request = pb.CreateApiKeyRequest(
        tenant_id=tenant_id,
        display_name=display_name,
        scopes=[enum_number(tenant_pb2.ApiScope.DESCRIPTOR, each) for each in scopes],  # type: ignore[misc] # numbers
        operator=operator,
        models=models,
        turns_per_minute=turns_per_minute,
        expire_time=to_timestamp(expire_time) if expire_time is not None else None,
        request_id=request_id,
    )
    return Call("AdminService.CreateApiKey", request, lambda response: from_message(CreatedApiKey, response))


def get_api_key(tenant_id: str, api_key_id: str) -> Call[ApiKey]:
    """Return an API key, without its secret."""
    request = pb.GetApiKeyRequest(tenant_id=tenant_id, api_key_id=api_key_id)
    return Call("AdminService.GetApiKey", request, lambda response: from_message(ApiKey, response.api_key))


def list_api_keys(tenant_id: str, *, page_size: int = 0) -> Pages[ApiKey]:
    """Yield a tenant's API keys, without their secrets, oldest first."""
    request = pb.ListApiKeysRequest(tenant_id=tenant_id, page_size=page_size)
    return Pages("AdminService.ListApiKeys", request, lambda page: all_from(ApiKey, page.api_keys))


def revoke_api_key(tenant_id: str, api_key_id: str) -> Call[None]:
    """Revoke an API key, on every server within 5 seconds."""
    request = pb.RevokeApiKeyRequest(tenant_id=tenant_id, api_key_id=api_key_id)
    return Call("AdminService.RevokeApiKey", request, lambda _: None)


def rotate_api_key(
    tenant_id: str, api_key_id: str, *, overlap: timedelta = timedelta(), request_id: str = ""
) -> Call[RotatedApiKey]:
    """Create a successor of an API key; the old one expires after `overlap`, at most 30 days."""
    request = pb.RotateApiKeyRequest(
        tenant_id=tenant_id, api_key_id=api_key_id, overlap=to_duration(overlap), request_id=request_id
    )
    return Call("AdminService.RotateApiKey", request, lambda response: from_message(RotatedApiKey, response))


def get_policy(tenant_id: str) -> Call[TenantPolicy]:
    """Return a tenant's policy."""
    request = pb.GetPolicyRequest(tenant_id=tenant_id)
    return Call("AdminService.GetPolicy", request, lambda response: from_message(TenantPolicy, response))


def update_policy(tenant_id: str, policy: Policy, *, update_mask: Sequence[str] = (), etag: str = "") -> Call[Policy]:
    """Change fields of a tenant's policy, and return all of it.

    Args:
        tenant_id: The tenant.
        policy: The new values.
        update_mask: The fields to change; ("*",) for all. Empty: those that are set in `policy`.
        etag: That of the policy that the change is based on; `EtagMismatch` if it has changed since. Empty: any.
    """
    request = pb.UpdatePolicyRequest(tenant_id=tenant_id, policy=to_message(tenant_pb2.Policy, policy), etag=etag)
    if update_mask:
        request.update_mask.paths.extend(update_mask)
    return Call("AdminService.UpdatePolicy", request, lambda response: from_message(Policy, response.policy))


def set_provider_key(tenant_id: str, provider_key: str) -> Call[None]:
    """Set the tenant's own OpenRouter key; empty removes it."""
    request = pb.SetProviderKeyRequest(tenant_id=tenant_id, provider_key=provider_key)
    return Call("AdminService.SetProviderKey", request, lambda _: None)


def adjust_call(
    tenant_id: str,
    call_id: str,
    *,
    request_id: str,
    why: str,
    cost_usd: Decimal | str | None = None,
    add_usd: Decimal | str | None = None,
    above_bound: bool = False,
) -> Call[AdjustedCall]:
    """Correct the cost of a model call by a new ledger entry.

    Args:
        tenant_id: The tenant.
        call_id: The call.
        request_id: The id of this adjustment: the same one again changes nothing.
        why: The reason.
        cost_usd: The call's new total.
        add_usd: In its place, the amount to add to the total.
        above_bound: Allow a total above the call's upper bound.
    """
    request = pb.AdjustCallRequest(
        tenant_id=tenant_id, call_id=call_id, why=why, request_id=request_id, above_bound=above_bound
    )
    if cost_usd is not None:
        request.cost_usd = to_amount(cost_usd)
    if add_usd is not None:
        request.add_usd = to_amount(add_usd)
    return Call("AdminService.AdjustCall", request, lambda response: from_message(AdjustedCall, response))


def erase_user(tenant_id: str, user: str, *, request_id: str = "") -> Call[Erasure]:
    """Erase an end user: sessions, turns and the name; ledger entries remain, under a reference."""
    request = pb.EraseUserRequest(tenant_id=tenant_id, user=user, request_id=request_id)
    return Call("AdminService.EraseUser", request, lambda response: from_message(Erasure, response))


def list_changes(
    *,
    tenant_id: str = "",
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    page_size: int = 0,
) -> Pages[AdminChange]:
    """Yield the recorded changes, newest first."""
    request = pb.ListAdminChangesRequest(tenant_id=tenant_id, page_size=page_size)
    if start_time is not None:
        request.start_time.CopyFrom(to_timestamp(start_time))
    if end_time is not None:
        request.end_time.CopyFrom(to_timestamp(end_time))
    return Pages("AdminService.ListAdminChanges", request, lambda page: all_from(AdminChange, page.changes))


def _tenant(response: pb.GetTenantResponse) -> Tenant:
    return from_message(Tenant, response.tenant)
