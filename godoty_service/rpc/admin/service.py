"""AdminService: one short method per RPC. `tenancy/admin.py` audits the changes."""

from collections.abc import Callable
from decimal import Decimal
from functools import partial

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import admin_service_pb2_grpc

from godoty_service.clock import Clock, utc_now
from godoty_service.ledger.adjustment_order import AdjustmentOrder
from godoty_service.ledger.entries import Adjustment
from godoty_service.metering.adjustments import Adjustments
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.money import format_usd
from godoty_service.rpc.admin import codec, key_codec, policy_codec, tenant_codec
from godoty_service.rpc.admin.authority import check_grant, check_revocation, check_tenant
from godoty_service.rpc.admin.codec import admin_request, change_message, parse_tenant_id
from godoty_service.rpc.admin.key_codec import key_message
from godoty_service.rpc.admin.policy_codec import policy_message
from godoty_service.rpc.admin.tenant_codec import tenant_message
from godoty_service.rpc.billing.codec import adjustment_message
from godoty_service.rpc.interceptor import CallContext
from godoty_service.rpc.pagination import PageRequest, decode_time
from godoty_service.tenancy.admin import Administration
from godoty_service.tenancy.audit import Actor, ActorKind
from godoty_service.tenancy.auth import Scope
from godoty_service.user_erasure import UserErasure

_SERVICE = pb.DESCRIPTOR.services_by_name["AdminService"]
SERVICE_NAME: str = _SERVICE.full_name
_OF_TENANT = frozenset({"CreateApiKey", "GetApiKey", "ListApiKeys", "RevokeApiKey", "RotateApiKey", "EraseUser"})
SCOPES = {
    f"/{SERVICE_NAME}/{method.name}": (Scope.ADMIN, *([Scope.TENANT_ADMIN] if method.name in _OF_TENANT else []))
    for method in _SERVICE.methods
}


# A suspended tenant's own keys still see what the others may do, and take it back.
WHILE_SUSPENDED = {f"/{SERVICE_NAME}/{name}" for name in ("EraseUser", "GetApiKey", "ListApiKeys", "RevokeApiKey")}


class CallAdjuster:
    """Adjusts the cost of calls for administrators: recorded in the audit log, then made."""

    def __init__(self, *, adjustments: Adjustments, administration: Administration) -> None:
        """Create the adjuster.

        Args:
            adjustments: Makes the adjustments.
            administration: Records them first.
        """
        self._adjustments = adjustments
        self._administration = administration

    async def adjust(self, actor: Actor, order: AdjustmentOrder) -> tuple[Adjustment, Decimal]:
        """Make an adjustment, or find the one that the same request made; return it and the call's total now.

        Args:
            actor: The author in the audit log.
            order: The adjustment to make.

        Raises:
            TenantNotFound: There is no such tenant.
            CallNotFound: The tenant has no such call.
            CallNotAdjustable: The call is pending or unresolved.
            AmountRefused: The resulting cost is impossible for a call.
            RequestIdReused: The request id was used for another adjustment.
        """
        found = await self._adjustments.find(order)
        if found is None:
            await self._administration.tenants.require(order.tenant_id)
            planned = await self._adjustments.preview(order)
            before = await self._adjustments.total(order.tenant_id, order.call_id)
            await self._administration.record_adjustment(
                actor,
                order.tenant_id,
                old={"call_id": order.call_id, "total_cost_usd": format_usd(before)},
                new=_values(order, planned),
            )
            found = await self._adjustments.adjust(order)
        return found, await self._adjustments.total(order.tenant_id, order.call_id)


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):
    """Tenants, their keys and their policies."""

    def __init__(
        self,
        *,
        administration: Administration,
        user_erasure: UserErasure,
        adjuster: CallAdjuster,
        catalogue: Callable[[], Catalogue | None],
        page_bytes: int,
        clock: Clock = utc_now,
    ) -> None:
        """Create the service.

        Args:
            administration: Makes the changes.
            user_erasure: Erases end users.
            adjuster: Adjusts the cost of calls.
            catalogue: Returns the provider's models, or None if they are unknown.
            page_bytes: Bytes at which a page ends.
            clock: Returns the current time.
        """
        self._admin = administration
        self._user_erasure = user_erasure
        self._adjuster = adjuster
        self._catalogue = catalogue
        self._page_bytes = page_bytes
        self._clock = clock

    async def CreateTenant(self, request: pb.CreateTenantRequest, call: CallContext) -> pb.CreateTenantResponse:
        """Create a tenant."""
        new, actor = tenant_codec.parse_new_tenant(request), _actor(call)
        tenant = await self._admin.lifecycle.create(actor, new, request=admin_request(request, actor))
        return pb.CreateTenantResponse(tenant=tenant_message(tenant))

    async def GetTenant(self, request: pb.GetTenantRequest, _: CallContext) -> pb.GetTenantResponse:
        """Return a tenant."""
        tenant = await self._admin.tenants.require(parse_tenant_id(request.tenant_id))
        return pb.GetTenantResponse(tenant=tenant_message(tenant))

    async def ListTenants(self, request: pb.ListTenantsRequest, _: CallContext) -> pb.ListTenantsResponse:
        """Return a page of tenants."""
        page = PageRequest(request, ("tenants", str(request.show_deleted)), str, str)
        after = (decode_time(page.position[0]), page.position[1]) if page.position else None
        found = await self._admin.tenants.page(after=after, limit=page.limit, deleted=request.show_deleted)
        tenants, token = page.cut(
            found,
            [tenant_message(each) for each in found[: page.size]],
            position=lambda each: [each.create_time.isoformat(), each.tenant_id],
            max_bytes=self._page_bytes,
        )
        return pb.ListTenantsResponse(tenants=tenants, next_page_token=token)

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, call: CallContext) -> pb.UpdateTenantResponse:
        """Change a tenant's display name or time zone."""
        tenant_id, change = tenant_codec.parse_tenant_change(request)
        tenant = await self._admin.lifecycle.update(_actor(call), tenant_id, change)
        return pb.UpdateTenantResponse(tenant=tenant_message(tenant))

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, call: CallContext) -> pb.SuspendTenantResponse:
        """Suspend a tenant."""
        tenant_id = parse_tenant_id(request.tenant_id)
        tenant = await self._admin.lifecycle.suspend(_actor(call), tenant_id, etag=request.etag)
        return pb.SuspendTenantResponse(tenant=tenant_message(tenant))

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, call: CallContext) -> pb.ResumeTenantResponse:
        """End a tenant's suspension."""
        tenant_id = parse_tenant_id(request.tenant_id)
        tenant = await self._admin.lifecycle.resume(_actor(call), tenant_id, etag=request.etag)
        return pb.ResumeTenantResponse(tenant=tenant_message(tenant))

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, call: CallContext) -> pb.DeleteTenantResponse:
        """Delete a tenant."""
        tenant_id = parse_tenant_id(request.tenant_id)
        tenant = await self._admin.lifecycle.delete(_actor(call), tenant_id, etag=request.etag)
        return pb.DeleteTenantResponse(tenant=tenant_message(tenant))

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, call: CallContext) -> pb.CreateApiKeyResponse:
        """Create an API key."""
        tenant_id, terms = key_codec.parse_new_key(request, now=self._clock())
        check_tenant(call.principal, tenant_id)
        check_grant(call.principal, terms, method="CreateApiKey")
        actor = _actor(call)
        key, text = await self._admin.create_api_key(actor, tenant_id, terms, request=admin_request(request, actor))
        return pb.CreateApiKeyResponse(api_key=key_message(key), text=text)

    async def GetApiKey(self, request: pb.GetApiKeyRequest, call: CallContext) -> pb.GetApiKeyResponse:
        """Return an API key."""
        tenant_id, key_id = key_codec.parse_key_ids(request)
        check_tenant(call.principal, tenant_id)
        await self._admin.tenants.require(tenant_id)
        return pb.GetApiKeyResponse(api_key=key_message(await self._admin.keys.require(tenant_id, key_id)))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, call: CallContext) -> pb.ListApiKeysResponse:
        """Return a page of a tenant's API keys."""
        tenant_id = parse_tenant_id(request.tenant_id)
        check_tenant(call.principal, tenant_id)
        await self._admin.tenants.require(tenant_id)
        page = PageRequest(request, ("api_keys", tenant_id), str, str)
        after = (decode_time(page.position[0]), page.position[1]) if page.position else None
        found = await self._admin.keys.page(tenant_id, after=after, limit=page.limit)
        keys, token = page.cut(
            found,
            [key_message(each) for each in found[: page.size]],
            position=lambda each: [each.create_time.isoformat(), each.key_id],
            max_bytes=self._page_bytes,
        )
        return pb.ListApiKeysResponse(api_keys=keys, next_page_token=token)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, call: CallContext) -> pb.RevokeApiKeyResponse:
        """Revoke an API key."""
        tenant_id, key_id = key_codec.parse_key_ids(request)
        check_tenant(call.principal, tenant_id)
        check = partial(check_revocation, call.principal)
        await self._admin.revoke_api_key(_actor(call), tenant_id, key_id, check=check)
        return pb.RevokeApiKeyResponse()

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, call: CallContext) -> pb.RotateApiKeyResponse:
        """Create a successor of an API key, which then expires after the overlap."""
        tenant_id, key_id, overlap = key_codec.parse_rotation(request)
        check_tenant(call.principal, tenant_id)
        check = partial(check_grant, call.principal, method="RotateApiKey")
        actor = _actor(call)
        key, text = await self._admin.rotate_api_key(
            actor, tenant_id, key_id, overlap=overlap, check=check, request=admin_request(request, actor)
        )
        return pb.RotateApiKeyResponse(api_key=key_message(key), text=text)

    async def GetPolicy(self, request: pb.GetPolicyRequest, _: CallContext) -> pb.GetPolicyResponse:
        """Return a tenant's policy."""
        tenant = await self._admin.tenants.require(parse_tenant_id(request.tenant_id))
        version = await self._admin.policies.read_version(tenant.tenant_id)
        has_key = await self._admin.provider_keys.has(tenant.tenant_id)
        return pb.GetPolicyResponse(policy=policy_message(version), has_provider_key=has_key)

    async def UpdatePolicy(self, request: pb.UpdatePolicyRequest, call: CallContext) -> pb.UpdatePolicyResponse:
        """Change a tenant's policy."""
        tenant_id, change = policy_codec.parse_policy_change(request)
        check = partial(policy_codec.check_policy, changed=change.fields, catalogue=self._catalogue())
        version = await self._admin.update_policy(_actor(call), tenant_id, change, check=check)
        return pb.UpdatePolicyResponse(policy=policy_message(version))

    async def SetProviderKey(self, request: pb.SetProviderKeyRequest, call: CallContext) -> pb.SetProviderKeyResponse:
        """Set or remove a tenant's own OpenRouter key."""
        tenant_id, secret = codec.parse_provider_key(request)
        await self._admin.set_provider_key(_actor(call), tenant_id, secret)
        return pb.SetProviderKeyResponse()

    async def AdjustCall(self, request: pb.AdjustCallRequest, call: CallContext) -> pb.AdjustCallResponse:
        """Adjust the cost of a model call."""
        order = codec.parse_adjustment(request, by=call.principal.key_id)
        adjustment, total = await self._adjuster.adjust(_actor(call), order)
        return pb.AdjustCallResponse(adjustment=adjustment_message(adjustment), total_cost_usd=format_usd(total))

    async def EraseUser(self, request: pb.EraseUserRequest, call: CallContext) -> pb.EraseUserResponse:
        """Erase an end user's conversations and name."""
        tenant_id, user = codec.parse_erasure(request)
        check_tenant(call.principal, tenant_id)
        order = await self._user_erasure.erase(_actor(call), tenant_id, user, request_id=request.request_id or None)
        return codec.erasure_message(order)

    async def ListAdminChanges(
        self, request: pb.ListAdminChangesRequest, _: CallContext
    ) -> pb.ListAdminChangesResponse:
        """Return a page of the audit log."""
        wanted = codec.parse_change_filter(request)
        page = PageRequest(request, ("admin_changes", repr(wanted)), str)
        before = page.position[0] if page.position else None
        found = await self._admin.changes.page(wanted, before=before, limit=page.limit, max_bytes=self._page_bytes)
        changes, token = page.cut(
            found,
            [change_message(each) for each in found[: page.size]],
            position=lambda each: [each.change_id],
            max_bytes=self._page_bytes,
        )
        return pb.ListAdminChangesResponse(changes=changes, next_page_token=token)


def _actor(call: CallContext) -> Actor:
    """Return the author of a call's changes."""
    return Actor(kind=ActorKind.KEY, id=call.principal.key_id, peer=call.peer)


def _values(order: AdjustmentOrder, adjustment: Adjustment) -> dict[str, object]:
    """Return what the audit log records of an adjustment."""
    amount_field = "cost_usd" if order.is_new_cost else "add_usd"
    return {
        "call_id": order.call_id,
        "adjustment_id": adjustment.entry_id,
        amount_field: format_usd(order.amount),
        "why": order.why,
        "by": order.by,
        "request_id": order.request_id,
        "above_bound": order.above_bound,
    }
