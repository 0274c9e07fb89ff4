"""Creates, changes, suspends, resumes and deletes tenants; each change is recorded before it is made.

A change of the state takes effect on every server within 5 seconds: `ApiKeys` reads it with the keys of the tenant.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from godoty_service.budgets.calendar import UTC_ZONE
from godoty_service.clock import Clock
from godoty_service.errors import DuplicateKey
from godoty_service.tenancy.api_keys import ApiKeys
from godoty_service.tenancy.audit import Actor, AdminChanges, Values
from godoty_service.tenancy.errors import EtagMismatch, TenantDeleted, TenantExists
from godoty_service.tenancy.request_ids import AdminRequest
from godoty_service.tenancy.tenants import Tenant, Tenants, TenantState

_ATTEMPTS = 20  # of a change that others' changes overtake


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTenant:
    """What a new tenant is created with.

    Attributes:
        display_name: The display name.
        tenant_id: The id; empty: it is generated.
        time_zone: The name of the time zone of its budgets.
    """

    display_name: str
    tenant_id: str = ""
    time_zone: str = UTC_ZONE


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChange:
    """New values of a tenant; None: unchanged.

    Attributes:
        display_name: The display name.
        time_zone: The name of the time zone of its budgets, from its next month on.
        etag: The version that the change is based on; empty: any.
    """

    display_name: str | None = None
    time_zone: str | None = None
    etag: str = ""

    def values(self, tenant: Tenant) -> Values:
        """Return a tenant's values of the fields that change."""
        fields = ("display_name", "time_zone")
        return {name: getattr(tenant, name) for name in fields if getattr(self, name) is not None}


class TenantLifecycle:
    """Makes changes to tenants."""

    def __init__(self, *, tenants: Tenants, keys: ApiKeys, changes: AdminChanges, clock: Clock) -> None:
        """Create the service.

        Args:
            tenants: The tenants.
            keys: Their API keys.
            changes: The audit log.
            clock: Returns the current time.
        """
        self._tenants = tenants
        self._keys = keys
        self._changes = changes
        self._clock = clock

    async def create(self, actor: Actor, new: NewTenant, *, request: AdminRequest | None = None) -> Tenant:
        """Create a tenant, or return the one that the same request created.

        Raises:
            RequestIdReused: The request's id was used for another request.
            TenantExists: The tenant's id is, or was, that of another tenant.
        """
        if request is not None and (found := await self._tenants.of_request(request)) is not None:
            return found
        if new.tenant_id and await self._tenants.get(new.tenant_id) is not None:
            return await self._created_meanwhile(new.tenant_id, request)
        tenant = self._tenants.new(new.display_name, tenant_id=new.tenant_id, time_zone=new.time_zone)
        values = {"display_name": tenant.display_name, "time_zone": tenant.time_zone}
        await self._changes.record(actor=actor, method="CreateTenant", tenant_id=tenant.tenant_id, old=None, new=values)
        try:
            return await self._tenants.insert(tenant, request)
        except DuplicateKey:
            return await self._created_meanwhile(tenant.tenant_id, request)

    async def _created_meanwhile(self, tenant_id: str, request: AdminRequest | None) -> Tenant:
        """Return the tenant that the same request created a moment ago.

        Raises:
            RequestIdReused: The request's id was used for another request.
            TenantExists: Another request created the tenant of this id.
        """
        if request is not None and (found := await self._tenants.of_request(request)) is not None:
            return found
        raise TenantExists.of(tenant_id)

    async def update(self, actor: Actor, tenant_id: str, change: TenantChange) -> Tenant:
        """Change a tenant's display name or time zone.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            EtagMismatch: It is not the version that the change is based on.
        """

        def changed(tenant: Tenant) -> Tenant:
            if change.display_name is not None:
                tenant = replace(tenant, display_name=change.display_name)
            return tenant if change.time_zone is None else tenant.in_zone(change.time_zone, self._clock())

        return await self._change(actor, "UpdateTenant", tenant_id, changed, values=change.values, etag=change.etag)

    async def suspend(self, actor: Actor, tenant_id: str, *, etag: str = "") -> Tenant:
        """Suspend a tenant: on every server within 5 seconds, it makes no further model call.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            EtagMismatch: It is not the version that the change is based on.
        """

        def suspended(tenant: Tenant) -> Tenant:
            if tenant.state is TenantState.SUSPENDED:
                return tenant
            return replace(tenant, state=TenantState.SUSPENDED, suspend_time=self._clock())

        return await self._change(actor, "SuspendTenant", tenant_id, suspended, values=_state, etag=etag)

    async def resume(self, actor: Actor, tenant_id: str, *, etag: str = "") -> Tenant:
        """End a tenant's suspension.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            EtagMismatch: It is not the version that the change is based on.
        """

        def resumed(tenant: Tenant) -> Tenant:
            return replace(tenant, state=TenantState.ACTIVE, suspend_time=None)

        return await self._change(actor, "ResumeTenant", tenant_id, resumed, values=_state, etag=etag)

    async def delete(self, actor: Actor, tenant_id: str, *, etag: str = "") -> Tenant:
        """Delete a tenant; `TenantErasure` then erases its data. Deleting it again has no effect.

        Raises:
            TenantNotFound: There is no such tenant.
            EtagMismatch: It is not the version that the deletion is based on.
        """

        def deleted(tenant: Tenant) -> Tenant:
            return replace(tenant, state=TenantState.DELETED, suspend_time=None, delete_time=self._clock())

        try:
            tenant = await self._change(actor, "DeleteTenant", tenant_id, deleted, values=_state, etag=etag)
        except TenantDeleted:
            tenant = await self._tenants.require(tenant_id)
        # Servers of earlier builds know no deleted tenants. If this is not reached, the erasure does it.
        await self._keys.revoke_all(tenant_id)
        return tenant

    async def _change(
        self,
        actor: Actor,
        method: str,
        tenant_id: str,
        changed: Callable[[Tenant], Tenant],
        *,
        values: Callable[[Tenant], Values],
        etag: str,
    ) -> Tenant:
        """Record a change and make it; a tenant that is already as wanted is not changed.

        Args:
            actor: The author.
            method: The method, for the audit log.
            tenant_id: The tenant.
            changed: Returns a tenant with the change.
            values: Returns the values of a tenant that are recorded.
            etag: The version that the change is based on; empty: any.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            EtagMismatch: It is not the version that the change is based on.
        """
        old = await self._tenants.require_changeable(tenant_id)
        for _ in range(_ATTEMPTS):
            if etag not in ("", old.etag):
                break
            new = changed(old)
            if new == old:
                return old
            await self._changes.record(
                actor=actor, method=method, tenant_id=tenant_id, old=values(old), new=values(new)
            )
            if (updated := await self._tenants.update(old, new)) is not None:
                return updated
            old = await self._tenants.require_changeable(tenant_id)
        raise EtagMismatch(
            "The tenant was changed meanwhile: read it again, and send the change with its etag.",
            metadata={"etag": old.etag},
        )


def _state(tenant: Tenant) -> Values:
    return {"state": tenant.state.value}
