"""The references of end users, by name. Owns the collection `users`, the only one that has names of end users.

A document has these fields:

_id          The reference: random, so that neither the name nor another tenant's user can be derived from it.
tenant_id    The tenant.
name         The name that the tenant's requests have; absent once its erasure was ordered.
create_time  When a turn named the user for the first time.
erase        The erasure of the user (`erasures.py`); absent: none was ordered.

The reference of a name is cached. Every second each server reads which erasures were ordered, so a cached reference was
valid a moment ago. A turn that gives a session its end user confirms the reference after that (`confirm`): a server
that could not read them for longer than `FRESH` reads the name again. An erasure waits for longer than that before it
looks for sessions for the last time.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Collection as Some
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from godoty_service.aio.caching import TtlCache
from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document, Index

FRESH = 2.5  # seconds after which a reference that was not read again may be that of an erased user
_POLL = 1.0  # seconds between two reads of the erasures that were ordered
_OVERLAP = timedelta(seconds=30)  # of two reads: clocks differ, and a write is visible after its time
_CACHED = 50_000  # names
_CACHED_FOR = 600.0  # seconds
_READ_AT_ONCE = 1_000  # users
_NAMED = {"$gt": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndUser:
    """An end user that a request names.

    Attributes:
        reference: The reference.
        name: The name.
        read_at: When the read of the reference began, in seconds of the monotonic clock.
    """

    reference: str
    name: str
    read_at: float = 0.0


class UserReferences:
    """References and names of end users, by tenant."""

    COLLECTION = "users"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("name", 1)], unique=True, where={"name": _NAMED}),
        Index(keys=[("tenant_id", 1), ("erase.name", 1)], where={"erase.name": _NAMED}),
        Index(keys=[("tenant_id", 1), ("erase.request_id", 1)], unique=True, where={"erase.request_id": _NAMED}),
        Index(keys=[("erase.owner", 1)], where={"erase.owner": {"$exists": True}}),
        Index(keys=[("erase.time", 1)], where={"erase.time": {"$exists": True}}),
    )

    def __init__(
        self, collection: Collection, *, clock: Clock = utc_now, tick: Callable[[], float] = time.monotonic
    ) -> None:
        """Create it with an empty cache.

        Args:
            collection: `users`.
            clock: The database's time.
            tick: Seconds of a monotonic clock.
        """
        self._users = collection
        self._clock = clock
        self._tick = tick
        self._cache: TtlCache[tuple[str, str], EndUser] = TtlCache(size=_CACHED, ttl=_CACHED_FOR, tick=tick)
        self._erased: TtlCache[str, bool] = TtlCache(size=_CACHED, ttl=2 * _CACHED_FOR, tick=tick)
        self._polled_at = float("-inf")  # when the last successful read of erasures began
        self._polled_until: datetime | None = None

    async def run(self) -> None:
        """Read which erasures were ordered, every second until cancelled."""
        await run_every(_POLL, self.poll, failure="erasures_not_read")

    async def poll(self) -> None:
        """Read which erasures were ordered since the last read: the references of these users are not used again."""
        began, now = self._tick(), self._clock()
        since = (self._polled_until or now) - _OVERLAP
        for each in await self._users.find({"erase.time": {"$gte": since}}, fields={"_id": 1}):
            self._erased.put(each["_id"], value=True)
        self._polled_at, self._polled_until = began, now

    async def of_name(self, tenant_id: str, name: str) -> EndUser:
        """Return the user of a name, from memory in the usual case; a name that is not known becomes a new user."""
        key = (tenant_id, name)
        found = self._cache.get(key)
        if found is not None and self._erased.get(found.reference) is None:
            return found
        if found is not None:
            self._cache.forget(key)
        return await self._cache.load(key, lambda: self._read_or_create(tenant_id, name))

    async def confirm(self, tenant_id: str, user: EndUser) -> bool:
        """Return whether a user was not erased when the caller's last write was acknowledged.

        If so, an erasure that is ordered later sees that write.
        """
        if self._erased.get(user.reference) is not None:
            return False
        if self._tick() - max(user.read_at, self._polled_at) < FRESH:
            return True
        read_at = self._tick()
        if await self.find(tenant_id, user.name) == user.reference:
            self._cache.put(
                (tenant_id, user.name), EndUser(reference=user.reference, name=user.name, read_at=read_at), read_at
            )
            return True
        self._cache.forget((tenant_id, user.name))
        return False

    async def is_erased(self, tenant_id: str, reference: str) -> bool:
        """Return whether the erasure of a user was ordered."""
        query = {"_id": reference, "tenant_id": tenant_id, "erase": {"$exists": True}}
        return await self._users.find_one(query, fields={"_id": 1}) is not None

    async def find(self, tenant_id: str, name: str) -> str | None:
        """Return the reference of a name as the database has it; None: it has none."""
        found = await self._users.find_one({"tenant_id": tenant_id, "name": name}, fields={"_id": 1})
        return found["_id"] if found else None

    async def find_all(self, tenant_id: str, names: Some[str]) -> dict[str, str]:
        """Return the references of those of these names that have one."""
        found: dict[str, str] = {}
        for some in _pieces(names):
            query = {"tenant_id": tenant_id, "name": {"$in": some}}
            found.update({each["name"]: each["_id"] for each in await self._users.find(query, fields={"name": 1})})
        return found

    async def of_names(self, tenant_id: str, names: Some[str]) -> dict[str, str]:
        """Return the references of names that stored data has; those that are not known become new users.

        A name that is being erased is that of the erased user, also if a new user has it by now: the data is older
        than the erasure.

        Raises:
            StorageError: Some could not be read or inserted.
        """
        found = await self.owners(tenant_id, names)
        while missing := [each for each in names if each not in found]:
            for some in _pieces(missing):
                for error in await self._users.insert_each([self._new(tenant_id, each) for each in some]):
                    if error is not None and not isinstance(error, DuplicateKey):
                        raise error
            found.update(await self.find_all(tenant_id, missing))  # also of those that another server inserted
        return found

    async def owners(self, tenant_id: str, names: Some[str]) -> dict[str, str]:
        """Return the references of those of these names in stored data that have one; a new user owns none of it."""
        found: dict[str, str] = {}
        for some in _pieces(names):
            query = {"tenant_id": tenant_id, "erase.name": {"$in": some}}
            erased = await self._users.find(query, fields={"erase.name": 1}, sort=[("erase.time", -1)])
            found.update({each["erase"]["name"]: each["_id"] for each in erased})  # the oldest of two
        return found | await self.find_all(tenant_id, [each for each in names if each not in found])

    async def stored_name(self, tenant_id: str, reference: str) -> str | None:
        """Return the name that a user's stored data may have, also while it is being erased; None: there is none."""
        query = {"_id": reference, "tenant_id": tenant_id}
        document = await self._users.find_one(query, fields={"name": 1, "erase.name": 1}) or {}
        return document.get("name") or (document.get("erase") or {}).get("name")

    async def names(self, tenant_id: str, references: Iterable[str | None]) -> dict[str, str]:
        """Return the names of those of these users that have one, by reference: an erased user has none."""
        found: dict[str, str] = {}
        for some in _pieces({each for each in references if each}):
            query = {"_id": {"$in": some}, "tenant_id": tenant_id}
            for each in await self._users.find(query, fields={"name": 1}):
                if "name" in each:
                    found[each["_id"]] = each["name"]
        return found

    async def fill_names(self, tenant_id: str, documents: Sequence[Document]) -> None:
        """Set the field `user` of those of some ledger entries that have a reference; an erased user has no name."""
        names = await self.names(tenant_id, {each.get("user_reference") for each in documents})
        for each in documents:
            if (reference := each.get("user_reference")) is not None:
                each["user"] = names.get(reference)

    async def forget_tenant(self, tenant_id: str) -> None:
        """Delete all users of a tenant: its entries keep references without a name."""
        while found := await self._users.find({"tenant_id": tenant_id}, fields={"_id": 1}, limit=_READ_AT_ONCE):
            await self._users.delete_many({"tenant_id": tenant_id, "_id": {"$in": [each["_id"] for each in found]}})

    async def _read_or_create(self, tenant_id: str, name: str) -> EndUser:
        while True:
            read_at = self._tick()
            reference = await self.find(tenant_id, name)
            if reference is not None:
                return EndUser(reference=reference, name=name, read_at=read_at)
            document = self._new(tenant_id, name)
            try:
                await self._users.insert_one(document)
            except DuplicateKey:  # another server was first
                continue
            return EndUser(reference=document["_id"], name=name, read_at=read_at)

    def _new(self, tenant_id: str, name: str) -> Document:
        reference = f"user_{secrets.token_hex(14)}"
        return {"_id": reference, "tenant_id": tenant_id, "name": name, "create_time": self._clock()}


def _pieces(values: Some[str]) -> Iterator[list[str]]:
    """Yield the values in lists that one operation reads."""
    ordered = list(values)
    for start in range(0, len(ordered), _READ_AT_ONCE):
        yield ordered[start : start + _READ_AT_ONCE]
