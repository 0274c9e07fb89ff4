"""Tenants' own OpenRouter keys, encrypted at rest. Owns `provider_keys`.

One document a key. A key that was replaced or removed stays readable for a while, because the records of the calls
that it made can be read with no other; then the database deletes it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from godoty_service.clock import Clock, utc_now
from godoty_service.ids import key_id_of, new_id
from godoty_service.mongo import Collection, Document, Index
from godoty_service.tenancy.sealing import Sealer

INDEXES = (
    Index(keys=[("tenant_id", 1), ("_id", -1)]),
    Index(keys=[("key_id", 1)]),
    Index(keys=[("delete_time", 1)], expire_after=0),
)

_KEPT_FOR = timedelta(hours=25)  # longer than reconciliation waits for a record
_CACHED_FOR = 3.0  # seconds until a change holds on every server
_CACHED_KEYS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """A key: `key_id` names it without telling it."""

    key_id: str
    secret: str = field(repr=False)


class ProviderKeys:
    """Provider keys by tenant, with a short memory of those that were read."""

    def __init__(
        self,
        collection: Collection,
        *,
        sealer: Sealer,
        clock: Clock = utc_now,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep provider keys.

        Args:
            collection: `provider_keys`.
            sealer: Encrypts them.
            clock: Tells the time.
            tick: Seconds of a clock that never turns back.
        """
        self._keys = collection
        self._sealer = sealer
        self._clock = clock
        self._tick = tick
        self._seen: dict[str, tuple[float, ProviderKey | None]] = {}
        self._readable: tuple[float, frozenset[str]] = (-_CACHED_FOR, frozenset())

    async def get(self, tenant_id: str) -> ProviderKey | None:
        """Read a tenant's own key, at most 3 seconds old; None: it has none.

        Raises:
            ProviderKeysOff: It has one, and the server cannot decrypt it.
        """
        seen, now = self._seen.get(tenant_id), self._tick()
        if seen is not None and now - seen[0] < _CACHED_FOR:
            return seen[1]
        found = await self._current(tenant_id)
        key = None if found is None else self._opened(found)
        if len(self._seen) >= _CACHED_KEYS:
            self._seen.clear()
        self._seen[tenant_id] = (now, key)
        return key

    async def has(self, tenant_id: str) -> bool:
        """Tell whether a tenant has a key of its own, readable or not."""
        return await self._current(tenant_id) is not None

    async def by_key_id(self, key_id: str) -> str | None:
        """Read the secret of any tenant's key, also of one that was replaced in the last day; None: there is none.

        Raises:
            ProviderKeysOff: There is one, and the server cannot decrypt it.
        """
        found = await self._keys.find_one({"key_id": key_id}, sort=[("_id", -1)])
        return None if found is None else self._opened(found).secret

    async def readable_ids(self) -> frozenset[str]:
        """Tell the ids of all keys that `by_key_id` can read, at most 3 seconds old."""
        read, ids = self._readable
        now = self._tick()
        if now - read >= _CACHED_FOR:
            found = await self._keys.find({}, fields={"key_id": 1, "sealed": 1})
            ids = frozenset(each["key_id"] for each in found if self._sealer.knows(each["sealed"]))
            self._readable = (now, ids)
        return ids

    def seal(self, tenant_id: str, secret: str) -> Document:
        """Make what `keep` keeps: a key of a tenant, encrypted.

        Raises:
            ProviderKeysOff: The server has no encryption key.
        """
        now = self._clock()
        return {
            "_id": new_id("pkey", made=now),
            "tenant_id": tenant_id,
            "key_id": key_id_of(secret),
            "sealed": self._sealer.seal(secret, owner=tenant_id),
            "create_time": now,
        }

    async def keep(self, sealed: Document) -> None:
        """Have a tenant use a key from now on, and no other."""
        await self._keys.insert_one(sealed)
        await self._retire(sealed["tenant_id"], before=sealed["_id"])

    async def remove(self, tenant_id: str) -> None:
        """Have a tenant use the service's key from now on."""
        await self._retire(tenant_id, before=new_id("pkey", made=self._clock()))

    async def reseal(self) -> int:
        """Encrypt anew, with the first encryption key, what others encrypted; tells how many keys there were.

        Raises:
            ProviderKeysOff: One cannot be decrypted.
        """
        changed = 0
        async for each in self._keys.iterate({}):
            if not self._sealer.is_current(each["sealed"]):
                sealed = self._sealer.seal(self._opened(each).secret, owner=each["tenant_id"])
                query = {"_id": each["_id"], "sealed": each["sealed"]}
                changed += await self._keys.update_one(query, {"$set": {"sealed": sealed}})
        return changed

    async def _current(self, tenant_id: str) -> Document | None:
        return await self._keys.find_one({"tenant_id": tenant_id, "delete_time": None}, sort=[("_id", -1)])

    async def _retire(self, tenant_id: str, *, before: str) -> None:
        """Put older keys out of use. Of two that are set at once, the later one so stays."""
        await self._keys.update_many(
            {"tenant_id": tenant_id, "delete_time": None, "_id": {"$lt": before}},
            {"$set": {"delete_time": self._clock() + _KEPT_FOR}},
        )
        self._seen.pop(tenant_id, None)

    def _opened(self, document: Document) -> ProviderKey:
        secret = self._sealer.open(document["sealed"], owner=document["tenant_id"])
        return ProviderKey(key_id=document["key_id"], secret=secret)
