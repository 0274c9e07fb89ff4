"""API keys: `gdt_<id>_<secret>`, shown once and kept as a hash. Owns `api_keys`."""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import InvalidApiKey
from godoty_service.mongo import Collection, Document, Index
from godoty_service.tenancy.principal import Principal, Scope

INDEXES = (Index(keys=[("tenant_id", 1), ("_id", 1)]),)

_FORM = re.compile(r"gdt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()
_CACHED_FOR = 3.0  # seconds until a revocation is felt on every server
_CACHED_KEYS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key; its secret is not."""

    key_id: str
    tenant_id: str
    scopes: frozenset[Scope]
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None


class ApiKeys:
    """Keys by id, with a short memory of those that were seen."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._keys = collection
        self._clock = clock
        self._seen: dict[str, tuple[float, Document | None]] = {}

    async def issue(
        self, tenant_id: str, *, scopes: frozenset[Scope], expire_time: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; returns it with its text, which is shown this once."""
        key = ApiKey(
            key_id=secrets.token_hex(8),
            tenant_id=tenant_id,
            scopes=scopes,
            create_time=self._clock(),
            expire_time=expire_time,
            revoke_time=None,
        )
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
        return key, f"gdt_{key.key_id}_{secret}"

    async def verify(self, text: str) -> Principal:
        """Tell who calls with a key.

        Raises:
            InvalidApiKey: It is malformed, unknown, expired or revoked: which of them is not told.
        """
        form = _FORM.fullmatch(text)
        key_id, secret = form.groups() if form else ("", "")
        known = await self._find(key_id) if key_id else None
        # Compared also where there is no such key, so that the time tells nothing.
        matches = hmac.compare_digest(_hash(secret), known["hash"] if known else _NOBODY)
        if known is None or not matches or not self._in_force(known):
            raise InvalidApiKey("The API key is missing, unknown, expired or revoked.")
        return Principal(
            tenant_id=known["tenant_id"],
            key_id=key_id,
            scopes=frozenset(Scope(scope) for scope in known["scopes"]),
        )

    async def revoke(self, tenant_id: str, key_id: str) -> bool:
        """Put a key out of force; tells whether the tenant has it."""
        self._seen.pop(key_id, None)
        return await self._keys.update_one(
            {"_id": key_id, "tenant_id": tenant_id}, {"$set": {"revoke_time": self._clock()}}
        )

    async def list(self, tenant_id: str) -> list[ApiKey]:
        """Read a tenant's keys, the oldest first."""
        found = await self._keys.find({"tenant_id": tenant_id}, sort=[("create_time", 1)])
        return [
            ApiKey(
                key_id=each["_id"],
                tenant_id=each["tenant_id"],
                scopes=frozenset(Scope(scope) for scope in each["scopes"]),
                create_time=each["create_time"],
                expire_time=each["expire_time"],
                revoke_time=each["revoke_time"],
            )
            for each in found
        ]

    async def _find(self, key_id: str) -> Document | None:
        seen = self._seen.get(key_id)
        now = time.monotonic()
        if seen is not None and now - seen[0] < _CACHED_FOR:
            return seen[1]
        if len(self._seen) >= _CACHED_KEYS:  # guessed ids must not fill the memory
            self._seen.clear()
        found = await self._keys.find_one({"_id": key_id})
        self._seen[key_id] = (now, found)
        return found

    def _in_force(self, key: Document) -> bool:
        expired = key["expire_time"] is not None and key["expire_time"] <= self._clock()
        return not expired and key["revoke_time"] is None


def _hash(secret: str) -> str:
    """Hash a secret. It has 256 random bits, so a fast hash is as safe as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()
