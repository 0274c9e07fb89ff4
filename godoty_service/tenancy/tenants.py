"""Tenants. Owns `tenants`."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import TenantNotFound
from godoty_service.ids import new_id
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.tenancy.request_ids import AdminRequest, request_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A customer: the unit of billing and of data isolation."""

    tenant_id: str
    name: str
    create_time: datetime


class Tenants:
    """Tenants by id."""

    COLLECTION = "tenants"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("request_id", 1)], unique=True, where={"request_id": {"$exists": True}}),
    )

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._tenants = collection
        self._clock = clock

    async def create(self, name: str) -> Tenant:
        """Create and insert a tenant."""
        return await self.insert(self.new(name))

    def new(self, name: str) -> Tenant:
        """Return a new tenant that is not inserted yet."""
        return Tenant(tenant_id=new_id("tnt"), name=name, create_time=self._clock())

    async def insert(self, tenant: Tenant, request: AdminRequest | None = None) -> Tenant:
        """Insert a tenant that `new` returned.

        Raises:
            DuplicateKey: The request's id was used before.
        """
        await self._tenants.insert_one(
            {
                "_id": tenant.tenant_id,
                "name": tenant.name,
                "create_time": tenant.create_time,
                **request_fields(request),
            }
        )
        return tenant

    async def of_request(self, request: AdminRequest) -> Tenant | None:
        """Return the tenant that a request created, or None.

        Raises:
            RequestIdReused: The request's id was used for another request.
        """
        found = await self._tenants.find_one({"request_id": request.request_id})
        if found is None:
            return None
        request.check_same(found)
        return _read(found)

    async def get(self, tenant_id: str) -> Tenant | None:
        """Return a tenant, or None if it does not exist."""
        found = await self._tenants.find_one({"_id": tenant_id})
        return _read(found) if found else None

    async def require(self, tenant_id: str) -> Tenant:
        """Return a tenant that must exist.

        Raises:
            TenantNotFound: It does not exist.
        """
        tenant = await self.get(tenant_id)
        if tenant is None:
            raise TenantNotFound(f"There is no tenant {tenant_id}.", metadata={"tenant_id": tenant_id})
        return tenant

    async def page(self, *, after: str | None, limit: int) -> list[Tenant]:
        """Return tenants, oldest first.

        Args:
            after: Return those after this id; None: start with the oldest.
            limit: Maximum number of tenants; 0: no limit.
        """
        query: Document = {} if after is None else {"_id": {"$gt": after}}
        return [_read(each) for each in await self._tenants.find(query, sort=[("_id", 1)], limit=limit)]


def _read(document: Document) -> Tenant:
    return Tenant(tenant_id=document["_id"], name=document["name"], create_time=document["create_time"])
