"""Tenants. Owns `tenants`, one document per tenant; that of a deleted one remains, so that its id is never reused."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import ClassVar

from godoty_service.aio.caching import TtlCache
from godoty_service.budgets.calendar import UTC_CALENDAR, UTC_ZONE, BudgetCalendar, ZonePeriod
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import TenantNotFound
from godoty_service.ids import new_id
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.tenancy.errors import TenantDeleted
from godoty_service.tenancy.request_ids import AdminRequest, request_fields

_CALENDAR_CACHED_FOR = 60.0  # seconds
_CACHED_CALENDARS = 10_000
# A change of the time zone holds from a month that begins later than this: all servers know it by then.
_ZONE_DELAY = timedelta(minutes=2)
_TO_ERASE = 100  # deleted tenants in one read


class TenantState(StrEnum):
    """What a tenant may do."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


_STATES = {state.value: state for state in TenantState}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A customer: the unit of billing and of data isolation.

    Attributes:
        tenant_id: The id, which never belongs to another tenant.
        display_name: The display name.
        create_time: When it was created.
        calendar: The days and months of its budgets.
        state: What it may do.
        update_time: When it was changed last; None: never.
        suspend_time: When it was suspended; None: it is not suspended.
        delete_time: When it was deleted; None: it is not deleted.
        erase_time: When its data were erased; None: they are not.
        revision: The number of changes.
    """

    tenant_id: str
    display_name: str
    create_time: datetime
    calendar: BudgetCalendar = UTC_CALENDAR
    state: TenantState = TenantState.ACTIVE
    update_time: datetime | None = None
    suspend_time: datetime | None = None
    delete_time: datetime | None = None
    erase_time: datetime | None = None
    revision: int = 0

    @property
    def time_zone(self) -> str:
        """The time zone of its budgets, which may come into force in the future."""
        return self.calendar.last.zone

    @property
    def etag(self) -> str:
        """Identifies this version of the tenant."""
        parts = [self.tenant_id, self.revision, self.display_name, self.time_zone, self.state.value]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def in_zone(self, zone: str, now: datetime) -> "Tenant":
        """Return the tenant with another time zone, from its next month on."""
        return replace(self, calendar=self.calendar.changed(zone, now + _ZONE_DELAY))


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantToErase:
    """A deleted tenant whose data are to be erased.

    Attributes:
        tenant_id: The tenant.
        delete_time: When it was deleted.
        owner: The server that erases the data; empty: none does yet.
    """

    tenant_id: str
    delete_time: datetime
    owner: str


class Tenants:
    """Tenants by id."""

    COLLECTION = "tenants"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("request_id", 1)], unique=True, where={"request_id": {"$exists": True}}),
        Index(keys=[("create_time", 1), ("_id", 1)]),
        Index(keys=[("delete_time", 1), ("_id", 1)], where={"erasure": {"$exists": True}}),
    )

    def __init__(
        self, collection: Collection, *, clock: Clock = utc_now, tick: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the store.

        Args:
            collection: `tenants`.
            clock: Returns the current time.
            tick: Returns the seconds of a monotonic clock.
        """
        self._tenants = collection
        self._clock = clock
        self._calendars: TtlCache[str, BudgetCalendar] = TtlCache(
            size=_CACHED_CALENDARS, ttl=_CALENDAR_CACHED_FOR, tick=tick
        )

    async def create(self, display_name: str) -> Tenant:
        """Create and insert a tenant."""
        return await self.insert(self.new(display_name))

    def new(self, display_name: str, *, tenant_id: str = "", time_zone: str = UTC_ZONE) -> Tenant:
        """Return a new tenant that is not inserted yet.

        Args:
            display_name: The display name.
            tenant_id: The id; empty: it is generated.
            time_zone: The name of its time zone.
        """
        return Tenant(
            tenant_id=tenant_id or new_id("tnt"),
            display_name=display_name,
            create_time=self._clock(),
            calendar=BudgetCalendar.of(time_zone),
        )

    async def insert(self, tenant: Tenant, request: AdminRequest | None = None) -> Tenant:
        """Insert a tenant that `new` returned.

        Raises:
            DuplicateKey: The tenant's id, or the request's, was used before.
        """
        await self._tenants.insert_one(
            {
                "_id": tenant.tenant_id,
                "name": tenant.display_name,
                "create_time": tenant.create_time,
                **_calendar_fields(tenant.calendar),
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
        """Return a tenant, also a deleted one, or None if it never existed."""
        found = await self._tenants.find_one({"_id": tenant_id})
        return _read(found) if found else None

    async def require(self, tenant_id: str) -> Tenant:
        """Return a tenant that must exist; it may be deleted.

        Raises:
            TenantNotFound: It does not exist.
        """
        tenant = await self.get(tenant_id)
        if tenant is None:
            raise TenantNotFound(f"There is no tenant {tenant_id}.", metadata={"tenant_id": tenant_id})
        return tenant

    async def require_changeable(self, tenant_id: str) -> Tenant:
        """Return a tenant that must not be deleted.

        Raises:
            TenantNotFound: It does not exist.
            TenantDeleted: It is deleted.
        """
        tenant = await self.require(tenant_id)
        if tenant.state is TenantState.DELETED:
            raise TenantDeleted.of(tenant_id)
        return tenant

    async def calendar(self, tenant_id: str) -> BudgetCalendar:
        """Return a tenant's days and months; the cached ones lack no change that is in force."""
        calendar = self._calendars.get(tenant_id)
        if calendar is None:
            calendar = await self._calendars.load(tenant_id, partial(self._read_calendar, tenant_id))
        return calendar

    async def page(self, *, after: tuple[datetime, str] | None, limit: int, deleted: bool = False) -> list[Tenant]:
        """Return tenants, oldest first.

        Args:
            after: Return those after this creation time and id; None: start with the oldest.
            limit: Maximum number of tenants; 0: no limit.
            deleted: Also return deleted ones.
        """
        query: Document = {} if deleted else {"state": {"$ne": TenantState.DELETED.value}}
        if after is not None:
            create_time, tenant_id = after
            query["$or"] = [
                {"create_time": {"$gt": create_time}},
                {"create_time": create_time, "_id": {"$gt": tenant_id}},
            ]
        found = await self._tenants.find(query, sort=[("create_time", 1), ("_id", 1)], limit=limit)
        return [_read(each) for each in found]

    async def update(self, old: Tenant, new: Tenant) -> Tenant | None:
        """Update a tenant that was read; return it as it is now, or None if it was changed meanwhile.

        The data of one that is deleted now are to be erased.
        """
        changed = replace(new, update_time=self._clock(), revision=old.revision + 1)
        begun = changed.state is TenantState.DELETED and old.state is not TenantState.DELETED
        fields = {
            "name": changed.display_name,
            "state": changed.state.value,
            "update_time": changed.update_time,
            "suspend_time": changed.suspend_time,
            "delete_time": changed.delete_time,
            "revision": changed.revision,
            **_calendar_fields(changed.calendar),
            **({"erasure": {"owner": ""}} if begun else {}),
        }
        updated = await self._tenants.update_one(
            {"_id": old.tenant_id, "revision": old.revision or None}, {"$set": fields}
        )
        self._calendars.forget(old.tenant_id)
        return changed if updated else None

    async def to_erase(self, *, deleted_before: datetime, after: TenantToErase | None = None) -> list[TenantToErase]:
        """Return the next tenants whose data are to be erased, in the order of their deletion.

        Args:
            deleted_before: Only those that were deleted before this time.
            after: The last one of the previous read; None: start with the one that was deleted first.
        """
        query: Document = {"erasure": {"$exists": True}, "delete_time": {"$lt": deleted_before}}
        if after is not None:
            query["delete_time"]["$gte"] = after.delete_time
            query["$or"] = [{"delete_time": {"$gt": after.delete_time}}, {"_id": {"$gt": after.tenant_id}}]
        found = await self._tenants.find(
            query, sort=[("delete_time", 1), ("_id", 1)], fields={"erasure": 1, "delete_time": 1}, limit=_TO_ERASE
        )
        return [
            TenantToErase(tenant_id=each["_id"], delete_time=each["delete_time"], owner=each["erasure"]["owner"])
            for each in found
        ]

    async def claim_erasure(self, tenant_id: str, *, owner: str, instead_of: str) -> bool:
        """Make a server the one that erases a tenant's data; return False if another one was meanwhile."""
        return await self._tenants.update_one(
            {"_id": tenant_id, "erasure.owner": instead_of}, {"$set": {"erasure.owner": owner}}
        )

    async def end_erasure(self, tenant_id: str) -> None:
        """Record that a tenant's data are erased."""
        await self._tenants.update_one(
            {"_id": tenant_id, "erasure": {"$exists": True}},
            {"$set": {"erase_time": self._clock()}, "$unset": {"erasure": ""}},
        )

    async def _read_calendar(self, tenant_id: str) -> BudgetCalendar:
        found = await self._tenants.find_one({"_id": tenant_id}, fields={"time_zones": 1})
        return _calendar(found or {})


def decode_tenant_state(value: str | None) -> TenantState:
    """Decode a state; a tenant without one is active, and one with a state of a later build counts as suspended."""
    return TenantState.ACTIVE if value is None else _STATES.get(value, TenantState.SUSPENDED)


def _calendar_fields(calendar: BudgetCalendar) -> Document:
    """Return the field of a calendar; that of a tenant without it is UTC."""
    if calendar == UTC_CALENDAR:
        return {"time_zones": []}
    periods = [{"zone": each.zone, "start": each.start, "first_day": each.first_day} for each in calendar.periods]
    return {"time_zones": periods}


def _calendar(document: Document) -> BudgetCalendar:
    periods = tuple(
        ZonePeriod(zone=each["zone"], start=each["start"], first_day=each["first_day"])
        for each in document.get("time_zones") or ()
    )
    return BudgetCalendar(periods) if periods else UTC_CALENDAR


def _read(document: Document) -> Tenant:
    """Convert a document; those of earlier builds have a name and a time of creation only."""
    return Tenant(
        tenant_id=document["_id"],
        display_name=document["name"],
        create_time=document["create_time"],
        calendar=_calendar(document),
        state=decode_tenant_state(document.get("state")),
        update_time=document.get("update_time"),
        suspend_time=document.get("suspend_time"),
        delete_time=document.get("delete_time"),
        erase_time=document.get("erase_time"),
        revision=document.get("revision", 0),
    )
