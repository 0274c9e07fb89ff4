"""Tenants' own OpenRouter keys, encrypted at rest. Owns `provider_keys`, one document per key.

A replaced or removed key stays readable for a day, because only it can read the generation records of the calls that
it made; then a TTL index deletes it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import ClassVar

from godoty_service.aio.caching import TtlCache
from godoty_service.clock import Clock, utc_now
from godoty_service.ids import key_id_of, new_id
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.tenancy.encryption import SecretBox

_RETENTION = timedelta(hours=25)  # longer than reconciliation waits for a record
_CACHED_FOR = 3.0  # seconds until a change applies on every server
_CACHED_KEYS = 10_000
_ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """A provider key. `key_id` identifies it without revealing the secret."""

    key_id: str
    secret: str = field(repr=False)


class ProviderKeys:
    """Provider keys by tenant, cached for 3 seconds."""

    COLLECTION = "provider_keys"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("_id", -1)]),
        Index(keys=[("key_id", 1)]),
        Index(keys=[("delete_time", 1)], expire_after=0),
    )

    def __init__(
        self,
        collection: Collection,
        *,
        sealer: SecretBox,
        clock: Clock = utc_now,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the store.

        Args:
            collection: `provider_keys`.
            sealer: Encrypts and decrypts the keys.
            clock: Returns the current time.
            tick: Returns the seconds of a monotonic clock.
        """
        self._keys = collection
        self._secret_box = sealer
        self._clock = clock
        self._cache: TtlCache[str, ProviderKey | None] = TtlCache(size=_CACHED_KEYS, ttl=_CACHED_FOR, tick=tick)
        self._readable: TtlCache[str, frozenset[str]] = TtlCache(size=1, ttl=_CACHED_FOR, tick=tick)

    async def get(self, tenant_id: str) -> ProviderKey | None:
        """Return a tenant's own key, at most 3 seconds old, or None if it has none.

        Raises:
            ProviderKeysOff: It has one that this server cannot decrypt.
        """
        key, fresh = self._cache.peek(tenant_id)
        return key if fresh else await self._cache.load(tenant_id, partial(self._read, tenant_id))

    async def has(self, tenant_id: str) -> bool:
        """Return whether a tenant has its own key, even one that this server cannot decrypt."""
        return await self._current(tenant_id) is not None

    async def current_id(self, tenant_id: str) -> str | None:
        """Return the id of a tenant's own key, even of one that this server cannot decrypt, or None if it has none."""
        found = await self._current(tenant_id)
        return None if found is None else str(found["key_id"])

    async def by_key_id(self, key_id: str) -> str | None:
        """Return the secret of any tenant's key, including one replaced in the last day, or None if there is none.

        Raises:
            ProviderKeysOff: There is one that this server cannot decrypt.
        """
        found = await self._keys.find_one({"key_id": key_id}, sort=[("_id", -1)])
        return None if found is None else self._decrypt(found).secret

    async def readable_ids(self) -> frozenset[str]:
        """Return the ids of all keys that `by_key_id` can decrypt, at most 3 seconds old."""
        ids = self._readable.get(_ALL)
        return ids if ids is not None else await self._readable.load(_ALL, self._read_readable_ids)

    def seal(self, tenant_id: str, secret: str) -> Document:
        """Return the document that `insert` takes: a tenant's key, encrypted.

        Raises:
            ProviderKeysOff: The server has no encryption key.
        """
        now = self._clock()
        return {
            "_id": new_id("pkey", made=now),
            "tenant_id": tenant_id,
            "key_id": key_id_of(secret),
            "sealed": self._secret_box.seal(secret, owner=tenant_id),
            "create_time": now,
        }

    async def insert(self, sealed: Document) -> None:
        """Insert a tenant's key, which replaces its older ones."""
        await self._keys.insert_one(sealed)
        await self._retire(sealed["tenant_id"], before=sealed["_id"])

    async def remove(self, tenant_id: str) -> None:
        """Remove a tenant's keys, so that it uses the service's."""
        await self._retire(tenant_id, before=new_id("pkey", made=self._clock()))

    async def key_ids(self, tenant_id: str) -> set[str]:
        """Return the ids of all keys of a tenant that are stored, also of replaced ones."""
        found = await self._keys.find({"tenant_id": tenant_id}, fields={"key_id": 1})
        return {each["key_id"] for each in found}

    async def erase(self, tenant_id: str) -> None:
        """Delete a tenant's keys: the records of its calls cannot be read any more."""
        await self._keys.delete_all({"tenant_id": tenant_id})
        self._cache.forget(tenant_id)

    async def reseal(self) -> int:
        """Re-encrypt with the first encryption key what others encrypted; return the number of keys changed.

        Raises:
            ProviderKeysOff: One cannot be decrypted.
        """
        changed = 0
        async for each in self._keys.iterate({}):
            if not self._secret_box.is_current(each["sealed"]):
                sealed = self._secret_box.seal(self._decrypt(each).secret, owner=each["tenant_id"])
                query = {"_id": each["_id"], "sealed": each["sealed"]}
                changed += await self._keys.update_one(query, {"$set": {"sealed": sealed}})
        return changed

    async def _read(self, tenant_id: str) -> ProviderKey | None:
        found = await self._current(tenant_id)
        return None if found is None else self._decrypt(found)

    async def _read_readable_ids(self) -> frozenset[str]:
        found = await self._keys.find({}, fields={"key_id": 1, "sealed": 1})
        return frozenset(each["key_id"] for each in found if self._secret_box.can_open(each["sealed"]))

    async def _current(self, tenant_id: str) -> Document | None:
        return await self._keys.find_one({"tenant_id": tenant_id, "delete_time": None}, sort=[("_id", -1)])

    async def _retire(self, tenant_id: str, *, before: str) -> None:
        """Retire older keys, so that of two set at the same time the later one remains."""
        await self._keys.update_many(
            {"tenant_id": tenant_id, "delete_time": None, "_id": {"$lt": before}},
            {"$set": {"delete_time": self._clock() + _RETENTION}},
        )
        self._cache.forget(tenant_id)

    def _decrypt(self, document: Document) -> ProviderKey:
        secret = self._secret_box.open(document["sealed"], owner=document["tenant_id"])
        return ProviderKey(key_id=document["key_id"], secret=secret)
