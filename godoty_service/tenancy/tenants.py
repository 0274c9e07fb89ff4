"""Tenants. Owns `tenants`."""

from dataclasses import dataclass
from datetime import datetime

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import TenantNotFound
from godoty_service.ids import new_id
from godoty_service.mongo import Collection, Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Who pays, and whose data is his alone."""

    tenant_id: str
    name: str
    create_time: datetime


class Tenants:
    """Tenants by id."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._tenants = collection
        self._clock = clock

    async def create(self, name: str) -> Tenant:
        """Make a tenant."""
        return await self.keep(self.draft(name))

    def draft(self, name: str) -> Tenant:
        """Make a tenant that is not kept yet."""
        return Tenant(tenant_id=new_id("tnt"), name=name, create_time=self._clock())

    async def keep(self, tenant: Tenant) -> Tenant:
        """Keep a tenant that was drafted."""
        await self._tenants.insert_one(
            {"_id": tenant.tenant_id, "name": tenant.name, "create_time": tenant.create_time}
        )
        return tenant

    async def get(self, tenant_id: str) -> Tenant | None:
        """Read a tenant."""
        found = await self._tenants.find_one({"_id": tenant_id})
        return _read(found) if found else None

    async def need(self, tenant_id: str) -> Tenant:
        """Read a tenant that must be there.

        Raises:
            TenantNotFound: It is not.
        """
        tenant = await self.get(tenant_id)
        if tenant is None:
            raise TenantNotFound(f"There is no tenant {tenant_id}.", metadata={"tenant_id": tenant_id})
        return tenant

    async def page(self, *, after: str | None, limit: int) -> list[Tenant]:
        """Read tenants, the oldest first: those after an id, or from the start."""
        query: Document = {} if after is None else {"_id": {"$gt": after}}
        return [_read(each) for each in await self._tenants.find(query, sort=[("_id", 1)], limit=limit)]


def _read(document: Document) -> Tenant:
    return Tenant(tenant_id=document["_id"], name=document["name"], create_time=document["create_time"])
