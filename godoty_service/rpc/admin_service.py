"""AdminService: one short method an RPC. What it changes is recorded by tenancy/administration.py."""

from collections.abc import Callable
from datetime import datetime

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import admin_service_pb2_grpc

from godoty_service.clock import Clock, utc_now
from godoty_service.metering.catalogue import Catalogue
from godoty_service.metering.money import format_usd
from godoty_service.rpc import admin_requests
from godoty_service.rpc.admin_messages import change_message, key_message, policy_message, tenant_message
from godoty_service.rpc.billing_messages import adjustment_message
from godoty_service.rpc.call_adjuster import CallAdjuster, adjustment_order
from godoty_service.rpc.edge import Call
from godoty_service.rpc.paging import fitting, page_size, read_place, read_time, write_token
from godoty_service.tenancy.administration import Administration
from godoty_service.tenancy.principal import Scope

_SERVICE = pb.DESCRIPTOR.services_by_name["AdminService"]
SERVICE_NAME: str = _SERVICE.full_name
SCOPES = {f"/{SERVICE_NAME}/{method.name}": (Scope.ADMIN,) for method in _SERVICE.methods}
_PAGE = 100


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):
    """Tenants, their keys and what they may do."""

    def __init__(
        self,
        *,
        administration: Administration,
        adjuster: CallAdjuster,
        catalogue: Callable[[], Catalogue | None],
        page_bytes: int,
        clock: Clock = utc_now,
    ) -> None:
        """Build the service.

        Args:
            administration: Makes the changes.
            adjuster: Corrects what calls cost.
            catalogue: Tells the models that there are; None: not known.
            page_bytes: Bytes after which a page ends.
            clock: Tells the time.
        """
        self._admin = administration
        self._adjuster = adjuster
        self._catalogue = catalogue
        self._page_bytes = page_bytes
        self._clock = clock

    async def CreateTenant(self, request: pb.CreateTenantRequest, call: Call) -> pb.CreateTenantResponse:
        """Make a tenant."""
        name = admin_requests.tenant_name(request.name)
        tenant = await self._admin.create_tenant(call.principal.key_id, name=name)
        return pb.CreateTenantResponse(tenant=tenant_message(tenant))

    async def GetTenant(self, request: pb.GetTenantRequest, _: Call) -> pb.GetTenantResponse:
        """Read a tenant."""
        tenant = await self._admin.tenants.need(admin_requests.tenant_id(request.tenant_id))
        return pb.GetTenantResponse(tenant=tenant_message(tenant))

    async def ListTenants(self, request: pb.ListTenantsRequest, _: Call) -> pb.ListTenantsResponse:
        """Read a page of tenants."""
        query = ("tenants",)
        size = page_size(request.page_size, default=_PAGE)
        place = read_place(request.page_token, query, str)
        page = await self._admin.tenants.page(after=place[0] if place else None, limit=size + 1)
        tenants = fitting([tenant_message(each) for each in page[:size]], most_bytes=self._page_bytes)
        response = pb.ListTenantsResponse(tenants=tenants)
        if len(page) > len(tenants):
            response.next_page_token = write_token(query, [tenants[-1].tenant_id])
        return response

    async def IssueKey(self, request: pb.IssueKeyRequest, call: Call) -> pb.IssueKeyResponse:
        """Make a key."""
        wanted = admin_requests.new_key(request, now=self._clock())
        key, text = await self._admin.issue_key(
            call.principal.key_id, wanted.tenant_id, scopes=wanted.scopes, expire_time=wanted.expire_time
        )
        return pb.IssueKeyResponse(key=key_message(key), text=text)

    async def ListKeys(self, request: pb.ListKeysRequest, _: Call) -> pb.ListKeysResponse:
        """Read a page of a tenant's keys."""
        tenant = await self._admin.tenants.need(admin_requests.tenant_id(request.tenant_id))
        query = ("keys", tenant.tenant_id)
        size = page_size(request.page_size, default=_PAGE)
        page = await self._admin.keys.page(
            tenant.tenant_id, after=_key_place(request.page_token, query), limit=size + 1
        )
        keys = fitting([key_message(each) for each in page[:size]], most_bytes=self._page_bytes)
        response = pb.ListKeysResponse(keys=keys)
        if len(page) > len(keys):
            last = page[len(keys) - 1]
            response.next_page_token = write_token(query, [last.create_time.isoformat(), last.key_id])
        return response

    async def RevokeKey(self, request: pb.RevokeKeyRequest, call: Call) -> pb.RevokeKeyResponse:
        """Put a key out of force."""
        await self._admin.revoke_key(call.principal.key_id, *admin_requests.key(request))
        return pb.RevokeKeyResponse()

    async def RotateKey(self, request: pb.RotateKeyRequest, call: Call) -> pb.RotateKeyResponse:
        """Make a key like another, which expires after a while."""
        tenant_id, key_id = admin_requests.key(request)
        overlap = admin_requests.overlap(request)
        key, text = await self._admin.rotate_key(call.principal.key_id, tenant_id, key_id, overlap=overlap)
        return pb.RotateKeyResponse(key=key_message(key), text=text)

    async def GetPolicy(self, request: pb.GetPolicyRequest, _: Call) -> pb.GetPolicyResponse:
        """Read what a tenant may do."""
        tenant = await self._admin.tenants.need(admin_requests.tenant_id(request.tenant_id))
        policy = await self._admin.policies.read(tenant.tenant_id)
        has_key = await self._admin.provider_keys.has(tenant.tenant_id)
        return pb.GetPolicyResponse(policy=policy_message(policy), has_provider_key=has_key)

    async def SetPolicy(self, request: pb.SetPolicyRequest, call: Call) -> pb.SetPolicyResponse:
        """Say what a tenant may do."""
        tenant_id, policy = admin_requests.policy(request, catalogue=self._catalogue())
        await self._admin.set_policy(call.principal.key_id, tenant_id, policy)
        return pb.SetPolicyResponse(policy=policy_message(policy))

    async def SetProviderKey(self, request: pb.SetProviderKeyRequest, call: Call) -> pb.SetProviderKeyResponse:
        """Give a tenant an OpenRouter key of its own."""
        tenant_id, secret = admin_requests.provider_key(request)
        await self._admin.set_provider_key(call.principal.key_id, tenant_id, secret)
        return pb.SetProviderKeyResponse()

    async def AdjustCall(self, request: pb.AdjustCallRequest, call: Call) -> pb.AdjustCallResponse:
        """Correct what a model call cost."""
        order = adjustment_order(request, by=call.principal.key_id)
        adjustment, total = await self._adjuster.adjust(call.principal.key_id, order)
        return pb.AdjustCallResponse(adjustment=adjustment_message(adjustment), total_cost_usd=format_usd(total))

    async def ListAdminChanges(self, request: pb.ListAdminChangesRequest, _: Call) -> pb.ListAdminChangesResponse:
        """Read a page of what was changed."""
        tenant_id = admin_requests.tenant_id(request.tenant_id) if request.tenant_id else None
        query = ("admin_changes", tenant_id or "")
        size = page_size(request.page_size, default=_PAGE)
        place = read_place(request.page_token, query, str)
        page = await self._admin.changes.page(
            tenant_id=tenant_id, before=place[0] if place else None, limit=size + 1, most_bytes=self._page_bytes
        )
        changes = fitting([change_message(each) for each in page[:size]], most_bytes=self._page_bytes)
        response = pb.ListAdminChangesResponse(changes=changes)
        if len(page) > len(changes):
            response.next_page_token = write_token(query, [page[len(changes) - 1].change_id])
        return response


def _key_place(token: str, query: tuple[str, ...]) -> tuple[datetime, str] | None:
    place = read_place(token, query, str, str)
    return (read_time(place[0]), place[1]) if place else None
