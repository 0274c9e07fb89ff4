"""API keys: `gdt_<id>_<secret>`, shown once and stored as a hash. Owns `api_keys`."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection as AbstractCollection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, InvalidApiKey, KeyNotFound
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.tenancy.auth import Principal, Scope
from godoty_service.tenancy.key_cache import KeyCache

_FORM = re.compile(r"gdt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_UNMATCHABLE_HASH = hashlib.sha256(b"").hexdigest()
_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key without its secret, which is not stored."""

    key_id: str
    tenant_id: str
    scopes: frozenset[Scope]
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoke_time is None and (self.expire_time is None or self.expire_time > now)


class ApiKeys:
    """Keys by id, cached for 3 seconds."""

    COLLECTION = "api_keys"
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("tenant_id", 1), ("create_time", 1), ("_id", 1)]),)

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._keys = collection
        self._clock = clock
        self._cache = KeyCache()
        self._used: dict[str, datetime] = {}

    async def issue(
        self, tenant_id: str, *, scopes: frozenset[Scope], expire_time: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """Create and insert a key; return it with its text, which is shown only this once."""
        key = self.new(tenant_id, scopes=scopes, expire_time=expire_time)
        return key, await self.insert(key)

    def new(self, tenant_id: str, *, scopes: frozenset[Scope], expire_time: datetime | None = None) -> ApiKey:
        """Return a new key, which is invalid until it is inserted."""
        return ApiKey(
            key_id=secrets.token_hex(8),
            tenant_id=tenant_id,
            scopes=scopes,
            create_time=self._clock(),
            expire_time=expire_time,
        )

    async def insert(self, key: ApiKey) -> str:
        """Insert a key that `new` returned; return its text, which is shown only this once."""
        secret = secrets.token_urlsafe(32)
        await self._keys.insert_one(
            {
                "_id": key.key_id,
                "tenant_id": key.tenant_id,
                "hash": _hash(secret),
                "scopes": sorted(scope.value for scope in key.scopes),
                "create_time": key.create_time,
                "expire_time": key.expire_time,
                "revoke_time": None,
            }
        )
        return f"gdt_{key.key_id}_{secret}"

    def successor(self, key: ApiKey) -> ApiKey:
        """Return a new key with another's scopes and, starting now, its lifetime."""
        lifetime = None if key.expire_time is None else key.expire_time - key.create_time
        expire_time = None if lifetime is None else self._clock() + lifetime
        return replace(self.new(key.tenant_id, scopes=key.scopes), expire_time=expire_time)

    async def verify(self, text: str, lookup: AbstractContextManager[object] | None = None) -> Principal:
        """Return the caller that a key authenticates.

        Args:
            text: The key.
            lookup: Entered around the database look-up of a key that is neither cached nor was valid at its last
                look-up; it may refuse that look-up by raising.

        Raises:
            InvalidApiKey: The key is malformed, unknown, expired or revoked; the text does not distinguish them.
        """
        form = _FORM.fullmatch(text)
        key_id, secret = form.groups() if form else ("", "")
        digest = _hash(secret)
        known = await self._find(key_id, digest, lookup or nullcontext()) if key_id else None
        # Compare even if there is no such key, so that the response time reveals nothing.
        matches = hmac.compare_digest(digest, known["hash"] if known else _UNMATCHABLE_HASH)
        now = self._clock()
        if known is None or not matches or not _read(known).in_force(now):
            raise InvalidApiKey("The API key is missing, unknown, expired or revoked.")
        self._used[key_id] = now
        return Principal(
            tenant_id=known["tenant_id"],
            key_id=key_id,
            scopes=_scopes(known),
        )

    async def ended(self, key_ids: AbstractCollection[str]) -> set[str]:
        """Return which of some keys are no longer in force according to the database: revoked, expired or gone."""
        found = await self._keys.find(
            {"_id": {"$in": list(key_ids)}, "revoke_time": None},
            fields={"expire_time": 1},
        )
        now = self._clock()
        in_force = {each["_id"] for each in found if each["expire_time"] is None or each["expire_time"] > now}
        return set(key_ids) - in_force

    async def require(self, tenant_id: str, key_id: str, *, in_force: bool = False) -> ApiKey:
        """Return a key that the tenant must have.

        Args:
            tenant_id: The tenant.
            key_id: The key.
            in_force: The key must be neither expired nor revoked.

        Raises:
            KeyNotFound: The tenant has no such key, or it must be in force and is not.
        """
        found = await self._keys.find_one({"_id": key_id, "tenant_id": tenant_id})
        if found is None:
            raise KeyNotFound(f"The tenant has no key {key_id}.", metadata={"key_id": key_id})
        key = _read(found)
        if in_force and not key.in_force(self._clock()):
            raise KeyNotFound(f"The key {key_id} is expired or revoked.", metadata={"key_id": key_id})
        return key

    async def revoke(self, tenant_id: str, key_id: str) -> bool:
        """Revoke a key; return False if it was revoked already."""
        query = {"_id": key_id, "tenant_id": tenant_id, "revoke_time": None}
        changed = await self._keys.update_one(query, {"$set": {"revoke_time": self._clock()}})
        self._cache.forget(key_id)
        return changed

    async def expire(self, tenant_id: str, key_id: str, *, after: timedelta) -> None:
        """Set a key's expiry time to `after` from now, unless it expires sooner."""
        end = self._clock() + after
        later = {"$or": [{"expire_time": None}, {"expire_time": {"$gt": end}}]}
        await self._keys.update_one({"_id": key_id, "tenant_id": tenant_id, **later}, {"$set": {"expire_time": end}})
        self._cache.forget(key_id)

    async def page(self, tenant_id: str, *, after: tuple[datetime, str] | None, limit: int) -> list[ApiKey]:
        """Return a tenant's keys, oldest first.

        Args:
            tenant_id: The tenant.
            after: Return those after this creation time and id; None: start with the oldest.
            limit: Maximum number of keys; 0: no limit.
        """
        query: Document = {"tenant_id": tenant_id}
        if after is not None:
            create_time, key_id = after
            query["$or"] = [
                {"create_time": {"$gt": create_time}},
                {"create_time": create_time, "_id": {"$gt": key_id}},
            ]
        return [
            _read(each) for each in await self._keys.find(query, sort=[("create_time", 1), ("_id", 1)], limit=limit)
        ]

    async def run(self, interval: float) -> None:
        """Record the use of keys every `interval` seconds, until cancelled."""
        await run_every(interval, self.record_use, failure="key_use_not_recorded")

    async def record_use(self) -> None:
        """Update the last use time of all keys used since the previous update, in one write."""
        used, self._used = self._used, {}
        try:
            await self._keys.update_each(
                [({"_id": key_id}, {"$max": {"last_use_time": time}}) for key_id, time in used.items()]
            )
        except (GodotyError, asyncio.CancelledError):
            self._used = used | self._used
            raise

    async def _find(self, key_id: str, digest: str, lookup: AbstractContextManager[object]) -> Document | None:
        """Return a key's document. Concurrent calls share a read: a burst with a new key is no guessing."""
        known, fresh = self._cache.peek(key_id)
        if fresh:
            return known
        proven = known is not None and hmac.compare_digest(digest, known["hash"])

        async def read() -> Document | None:
            with nullcontext() if proven else lookup:
                return await self._keys.find_one({"_id": key_id})

        return await self._cache.load(key_id, read)


def _read(document: Document) -> ApiKey:
    return ApiKey(
        key_id=document["_id"],
        tenant_id=document["tenant_id"],
        scopes=_scopes(document),
        create_time=document["create_time"],
        expire_time=document["expire_time"],
        revoke_time=document["revoke_time"],
        last_use_time=document.get("last_use_time"),
    )


def _scopes(document: Document) -> frozenset[Scope]:
    """Return a key's scopes; a scope of a later build is ignored."""
    return frozenset(Scope(scope) for scope in document["scopes"] if scope in _SCOPES)


def _hash(secret: str) -> str:
    """Hash a secret. It has 256 random bits, so a fast hash is as safe as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()
