"""API keys: `gdt_<id>_<secret>`, shown once and stored as a hash. Owns `api_keys`."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection as AbstractCollection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import ApiKeyNotFound, GodotyError, InvalidApiKey
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.tenancy.auth import NO_KEY_LIMITS, KeyLimits, Principal, Scope
from godoty_service.tenancy.key_cache import KeyCache
from godoty_service.tenancy.request_ids import AdminRequest, request_fields
from godoty_service.tenancy.tenants import Tenants, TenantState, decode_tenant_state

_FORM = re.compile(r"gdt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_UNMATCHABLE_HASH = hashlib.sha256(b"").hexdigest()
_SCOPES = frozenset(Scope)
_MAX_ERASED = 500  # keys in one operation
# Reads the state of a key's tenant with the key, in one operation: what the cache has of a key, it has of its tenant.
_WITH_TENANT_STATE: tuple[Document, ...] = (
    {
        "$lookup": {
            "from": Tenants.COLLECTION,
            "localField": "tenant_id",
            "foreignField": "_id",
            "as": "tenant_state",
            "pipeline": [{"$project": {"state": 1}}],
        }
    },
    {"$set": {"tenant_state": {"$first": "$tenant_state.state"}}},
)


class KeyState(StrEnum):
    """Whether a turn that a key started may continue.

    Attributes:
        IN_FORCE: It may.
        TENANT_SUSPENDED: It may make no further model call, unless the tenant is resumed.
        ENDED: The key is revoked, expired or deleted: it may make no further model call.
        TENANT_DELETED: It must be cancelled.
    """

    IN_FORCE = "in_force"
    TENANT_SUSPENDED = "tenant_suspended"
    ENDED = "ended"
    TENANT_DELETED = "tenant_deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key without its secret, which is not stored."""

    key_id: str
    tenant_id: str
    scopes: frozenset[Scope]
    create_time: datetime
    display_name: str = ""
    limits: KeyLimits = NO_KEY_LIMITS
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoke_time is None and (self.expire_time is None or self.expire_time > now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyTerms:
    """What a new key may do, and until when."""

    scopes: frozenset[Scope]
    display_name: str = ""
    limits: KeyLimits = NO_KEY_LIMITS
    expire_time: datetime | None = None


class ApiKeys:
    """Keys by id with the states of their tenants, cached for 3 seconds."""

    COLLECTION = "api_keys"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("create_time", 1), ("_id", 1)]),
        Index(keys=[("tenant_id", 1), ("request_id", 1)], unique=True, where={"request_id": {"$exists": True}}),
    )

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._keys = collection
        self._clock = clock
        self._cache = KeyCache()
        self._used: dict[str, datetime] = {}

    async def issue(
        self, tenant_id: str, *, scopes: frozenset[Scope], expire_time: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """Create and insert a key; return it with its text, which is shown only this once."""
        key = self.new(tenant_id, ApiKeyTerms(scopes=scopes, expire_time=expire_time))
        return key, await self.insert(key)

    def new(self, tenant_id: str, terms: ApiKeyTerms) -> ApiKey:
        """Return a new key, which is invalid until it is inserted."""
        return ApiKey(
            key_id=secrets.token_hex(8),
            tenant_id=tenant_id,
            create_time=self._clock(),
            scopes=terms.scopes,
            display_name=terms.display_name,
            limits=terms.limits,
            expire_time=terms.expire_time,
        )

    async def insert(self, key: ApiKey, request: AdminRequest | None = None) -> str:
        """Insert a key that `new` returned; return its text, which is shown only this once.

        Raises:
            DuplicateKey: The request's id was used before.
        """
        secret = secrets.token_urlsafe(32)
        await self._keys.insert_one(
            {
                "_id": key.key_id,
                "tenant_id": key.tenant_id,
                "hash": _hash(secret),
                "scopes": sorted(scope.value for scope in key.scopes),
                "display_name": key.display_name,
                "models": list(key.limits.models),
                "turns_per_minute": key.limits.turns_per_minute,
                "create_time": key.create_time,
                "expire_time": key.expire_time,
                "revoke_time": None,
                **request_fields(request),
            }
        )
        return f"gdt_{key.key_id}_{secret}"

    async def of_request(self, tenant_id: str, request: AdminRequest) -> ApiKey | None:
        """Return the key that a request created, or None.

        Raises:
            RequestIdReused: The request's id was used for another request.
        """
        found = await self._keys.find_one({"tenant_id": tenant_id, "request_id": request.request_id})
        if found is None:
            return None
        request.check_same(found)
        return _read(found)

    def successor(self, key: ApiKey) -> ApiKey:
        """Return a new key with another's name, scopes and limits and, starting now, its lifetime."""
        lifetime = None if key.expire_time is None else key.expire_time - key.create_time
        terms = ApiKeyTerms(
            scopes=key.scopes,
            display_name=key.display_name,
            limits=key.limits,
            expire_time=None if lifetime is None else self._clock() + lifetime,
        )
        return self.new(key.tenant_id, terms)

    async def verify(self, text: str, lookup: AbstractContextManager[object] | None = None) -> Principal:
        """Return the caller that a key authenticates.

        Args:
            text: The key.
            lookup: Entered around the database look-up of a key that is neither cached nor was valid at its last
                look-up; it may refuse that look-up by raising.

        Raises:
            InvalidApiKey: The key is malformed, unknown, expired or revoked, or its tenant is deleted; the text does
                not distinguish them.
        """
        form = _FORM.fullmatch(text)
        key_id, secret = form.groups() if form else ("", "")
        digest = _hash(secret)
        known = await self._find(key_id, digest, lookup or nullcontext()) if key_id else None
        # Compare even if there is no such key, so that the response time reveals nothing.
        matches = hmac.compare_digest(digest, known["hash"] if known else _UNMATCHABLE_HASH)
        now = self._clock()
        if known is None or not matches or _state(known, now) in (KeyState.ENDED, KeyState.TENANT_DELETED):
            raise InvalidApiKey("The API key is missing, unknown, expired or revoked.")
        self._used[key_id] = now
        return Principal(
            tenant_id=known["tenant_id"],
            key_id=key_id,
            scopes=_scopes(known),
            limits=_limits(known),
            suspended=_state(known, now) is KeyState.TENANT_SUSPENDED,
        )

    async def states(self, key_ids: AbstractCollection[str]) -> dict[str, KeyState]:
        """Return the states of some keys and their tenants according to the database."""
        fields = {"$project": {"tenant_id": 1, "expire_time": 1, "revoke_time": 1}}
        query = {"$match": {"_id": {"$in": list(key_ids)}}}
        found = await self._keys.aggregate([query, fields, *_WITH_TENANT_STATE])
        now = self._clock()
        return dict.fromkeys(key_ids, KeyState.ENDED) | {each["_id"]: _state(each, now) for each in found}

    async def require(self, tenant_id: str, key_id: str, *, in_force: bool = False) -> ApiKey:
        """Return a key that the tenant must have.

        Args:
            tenant_id: The tenant.
            key_id: The key.
            in_force: The key must be neither expired nor revoked.

        Raises:
            ApiKeyNotFound: The tenant has no such key, or it must be in force and is not.
        """
        found = await self._keys.find_one({"_id": key_id, "tenant_id": tenant_id})
        if found is None:
            raise ApiKeyNotFound(f"The tenant has no key {key_id}.", metadata={"api_key_id": key_id})
        key = _read(found)
        if in_force and not key.in_force(self._clock()):
            raise ApiKeyNotFound(f"The key {key_id} is expired or revoked.", metadata={"api_key_id": key_id})
        return key

    async def revoke(self, tenant_id: str, key_id: str) -> bool:
        """Revoke a key; return False if it was revoked already."""
        query = {"_id": key_id, "tenant_id": tenant_id, "revoke_time": None}
        changed = await self._keys.update_one(query, {"$set": {"revoke_time": self._clock()}})
        self._cache.forget(key_id)
        return changed

    async def revoke_all(self, tenant_id: str) -> int:
        """Revoke all keys of a tenant; return how many were not revoked yet."""
        query = {"tenant_id": tenant_id, "revoke_time": None}
        return await self._keys.update_many(query, {"$set": {"revoke_time": self._clock()}})

    async def some_ids(self, tenant_id: str) -> list[str]:
        """Return the ids of some keys of a tenant; none if it has no more."""
        found = await self._keys.find({"tenant_id": tenant_id}, fields={"_id": 1}, limit=_MAX_ERASED)
        return [each["_id"] for each in found]

    async def erase(self, tenant_id: str, key_ids: AbstractCollection[str]) -> None:
        """Delete keys."""
        await self._keys.delete_many({"tenant_id": tenant_id, "_id": {"$in": list(key_ids)}})

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
                found = await self._keys.aggregate([{"$match": {"_id": key_id}}, *_WITH_TENANT_STATE])
                return found[0] if found else None

        return await self._cache.load(key_id, read)


def _read(document: Document) -> ApiKey:
    return ApiKey(
        key_id=document["_id"],
        tenant_id=document["tenant_id"],
        scopes=_scopes(document),
        create_time=document["create_time"],
        display_name=document.get("display_name", ""),
        limits=_limits(document),
        expire_time=document["expire_time"],
        revoke_time=document["revoke_time"],
        last_use_time=document.get("last_use_time"),
    )


def _state(document: Document, now: datetime) -> KeyState:
    """Return the state of a key that was read with that of its tenant."""
    tenant = decode_tenant_state(document.get("tenant_state"))
    if tenant is TenantState.DELETED:
        return KeyState.TENANT_DELETED
    expire_time = document["expire_time"]
    if document["revoke_time"] is not None or (expire_time is not None and expire_time <= now):
        return KeyState.ENDED
    return KeyState.TENANT_SUSPENDED if tenant is TenantState.SUSPENDED else KeyState.IN_FORCE


def _scopes(document: Document) -> frozenset[Scope]:
    """Return a key's scopes; a scope of a later build is ignored."""
    return frozenset(Scope(scope) for scope in document["scopes"] if scope in _SCOPES)


def _limits(document: Document) -> KeyLimits:
    """Return a key's limits; keys of earlier builds have none."""
    return KeyLimits(models=tuple(document.get("models", ())), turns_per_minute=document.get("turns_per_minute"))


def _hash(secret: str) -> str:
    """Hash a secret. It has 256 random bits, so a fast hash is as safe as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()
