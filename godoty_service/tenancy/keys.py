"""API keys: `gdt_<id>_<secret>`, shown once and kept as a hash. Owns `api_keys`."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection as Some
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, InvalidApiKey, KeyNotFound
from godoty_service.mongo import Collection, Document, Index
from godoty_service.tenancy.key_cache import KeyCache
from godoty_service.tenancy.principal import Principal, Scope

log = structlog.get_logger(__name__)

INDEXES = (Index(keys=[("tenant_id", 1), ("create_time", 1), ("_id", 1)]),)

_FORM = re.compile(r"gdt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()
_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key; its secret is not."""

    key_id: str
    tenant_id: str
    scopes: frozenset[Scope]
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Tell whether it opens anything."""
        return self.revoke_time is None and (self.expire_time is None or self.expire_time > now)


class ApiKeys:
    """Keys by id, with a short memory of those that were seen."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._keys = collection
        self._clock = clock
        self._cache = KeyCache()
        self._used: dict[str, datetime] = {}

    async def issue(
        self, tenant_id: str, *, scopes: frozenset[Scope], expire_time: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; returns it with its text, which is shown this once."""
        key = self.draft(tenant_id, scopes=scopes, expire_time=expire_time)
        return key, await self.keep(key)

    def draft(self, tenant_id: str, *, scopes: frozenset[Scope], expire_time: datetime | None = None) -> ApiKey:
        """Make a key that opens nothing before it is kept."""
        return ApiKey(
            key_id=secrets.token_hex(8),
            tenant_id=tenant_id,
            scopes=scopes,
            create_time=self._clock(),
            expire_time=expire_time,
        )

    async def keep(self, key: ApiKey) -> str:
        """Put a key that was drafted into force; returns its text, which is shown this once."""
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
        """Draft a key like another: its scopes, and from now on its lifetime."""
        lifetime = None if key.expire_time is None else key.expire_time - key.create_time
        expire_time = None if lifetime is None else self._clock() + lifetime
        return replace(self.draft(key.tenant_id, scopes=key.scopes), expire_time=expire_time)

    async def verify(self, text: str, lookup: AbstractContextManager[object] | None = None) -> Principal:
        """Tell who calls with a key.

        Args:
            text: The key.
            lookup: Entered around the look-up in the database of a key that is neither cached nor was good when it
                was looked up last; it may refuse that look-up by raising.

        Raises:
            InvalidApiKey: It is malformed, unknown, expired or revoked: which of them is not told.
        """
        form = _FORM.fullmatch(text)
        key_id, secret = form.groups() if form else ("", "")
        digest = _hash(secret)
        known = await self._find(key_id, digest, lookup or nullcontext()) if key_id else None
        # Compared also where there is no such key, so that the time tells nothing.
        matches = hmac.compare_digest(digest, known["hash"] if known else _NOBODY)
        now = self._clock()
        if known is None or not matches or not _read(known).in_force(now):
            raise InvalidApiKey("The API key is missing, unknown, expired or revoked.")
        self._used[key_id] = now
        return Principal(
            tenant_id=known["tenant_id"],
            key_id=key_id,
            scopes=_scopes(known),
        )

    async def ended(self, key_ids: Some[str]) -> set[str]:
        """Return which of some keys are in force no more, as the database has them now: revoked, expired or gone."""
        found = await self._keys.find(
            {"_id": {"$in": list(key_ids)}, "revoke_time": None},
            fields={"expire_time": 1},
        )
        now = self._clock()
        in_force = {each["_id"] for each in found if each["expire_time"] is None or each["expire_time"] > now}
        return set(key_ids) - in_force

    async def need(self, tenant_id: str, key_id: str, *, in_force: bool = False) -> ApiKey:
        """Read a key that the tenant must have.

        Raises:
            KeyNotFound: It has none of this id, or, where it must be in force, it is not.
        """
        found = await self._keys.find_one({"_id": key_id, "tenant_id": tenant_id})
        if found is None:
            raise KeyNotFound(f"The tenant has no key {key_id}.", metadata={"key_id": key_id})
        key = _read(found)
        if in_force and not key.in_force(self._clock()):
            raise KeyNotFound(f"The key {key_id} is expired or revoked.", metadata={"key_id": key_id})
        return key

    async def revoke(self, tenant_id: str, key_id: str) -> bool:
        """Put a key out of force; tells whether it was not before."""
        query = {"_id": key_id, "tenant_id": tenant_id, "revoke_time": None}
        changed = await self._keys.update_one(query, {"$set": {"revoke_time": self._clock()}})
        self._cache.forget(key_id)
        return changed

    async def expire(self, tenant_id: str, key_id: str, *, after: timedelta) -> None:
        """Have a key expire after a while, unless it does so sooner."""
        end = self._clock() + after
        later = {"$or": [{"expire_time": None}, {"expire_time": {"$gt": end}}]}
        await self._keys.update_one({"_id": key_id, "tenant_id": tenant_id, **later}, {"$set": {"expire_time": end}})
        self._cache.forget(key_id)

    async def page(self, tenant_id: str, *, after: tuple[datetime, str] | None, limit: int) -> list[ApiKey]:
        """Read a tenant's keys, the oldest first: those after a time and an id, or from the start."""
        query: Document = {"tenant_id": tenant_id}
        if after is not None:
            made, key_id = after
            query["$or"] = [{"create_time": {"$gt": made}}, {"create_time": made, "_id": {"$gt": key_id}}]
        return [
            _read(each) for each in await self._keys.find(query, sort=[("create_time", 1), ("_id", 1)], limit=limit)
        ]

    async def run(self, interval: float) -> None:
        """Write down every so many seconds which keys were used, for ever."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.record_use()
            except GodotyError as error:
                log.warning("key_use_not_recorded", error=str(error))

    async def record_use(self) -> None:
        """Write down when keys were last used: one write for all that were since the last time."""
        used, self._used = self._used, {}
        try:
            await self._keys.update_each(
                [({"_id": key_id}, {"$max": {"last_use_time": time}}) for key_id, time in used.items()]
            )
        except (GodotyError, asyncio.CancelledError):
            self._used = used | self._used
            raise

    async def _find(self, key_id: str, digest: str, lookup: AbstractContextManager[object]) -> Document | None:
        fresh, known = self._cache.get(key_id)
        if fresh:
            return known
        proven = known is not None and hmac.compare_digest(digest, known["hash"])
        with nullcontext() if proven else lookup:
            found = await self._keys.find_one({"_id": key_id})
        self._cache.put(key_id, found)
        return found


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
    """Read a key's scopes; one of a later build permits nothing here."""
    return frozenset(Scope(scope) for scope in document["scopes"] if scope in _SCOPES)


def _hash(secret: str) -> str:
    """Hash a secret. It has 256 random bits, so a fast hash is as safe as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()
