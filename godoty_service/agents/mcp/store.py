"""Tenants' MCP servers. Owns `mcp_servers`, one document per tenant and name; credentials are stored sealed."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import ClassVar, Final, Protocol

from godoty_service.agents.mcp.server import Credentials, McpServer, OAuthClient
from godoty_service.aio.caching import TtlCache
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document, Index

MAX_SERVERS = 50  # of a tenant
_CACHED_FOR = 2.0  # seconds until a change reaches the next turn on every server
_CACHED_TENANTS = 1_000
_WHAT = "A secret of an MCP server"
_MILLISECOND: Final = timedelta(milliseconds=1)


class Encryption(Protocol):
    """Encrypts secrets, as `tenancy/encryption.py` does."""

    def seal(self, secret: str, *, owner: str, what: str) -> bytes:
        """Encrypt a secret."""

    def open(self, sealed: bytes, *, owner: str, what: str) -> str:
        """Decrypt a secret that was sealed for this owner."""

    def is_current(self, sealed: bytes) -> bool:
        """Return whether the first key sealed a secret."""


class McpServers:
    """Servers by tenant, cached for 2 seconds."""

    COLLECTION = "mcp_servers"
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("tenant_id", 1), ("name", 1)], unique=True),)

    def __init__(
        self, collection: Collection, *, secret_box: Encryption, tick: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the store.

        Args:
            collection: `mcp_servers`.
            secret_box: Encrypts and decrypts credentials.
            tick: Returns the seconds of a monotonic clock.
        """
        self._servers = collection
        self._secret_box = secret_box
        self._cache: TtlCache[str, Mapping[str, McpServer]] = TtlCache(size=_CACHED_TENANTS, ttl=_CACHED_FOR, tick=tick)

    async def all(self, tenant_id: str) -> Mapping[str, McpServer]:
        """Return a tenant's servers by name, at most 2 seconds old."""
        found = self._cache.get(tenant_id)
        return found if found is not None else await self._cache.load(tenant_id, partial(self._read_all, tenant_id))

    async def read(self, tenant_id: str, name: str) -> McpServer | None:
        """Return a server from the database, bypassing the cache; None: there is none."""
        found = await self._servers.find_one({"_id": _id_of(tenant_id, name), "tenant_id": tenant_id})
        return None if found is None else _from_document(found)

    async def page(self, tenant_id: str, *, after: str, limit: int) -> list[McpServer]:
        """Return servers by name, after a name; empty: from the beginning."""
        found = await self._servers.find(
            {"tenant_id": tenant_id, "name": {"$gt": after}}, sort=[("name", 1)], limit=limit
        )
        return [_from_document(each) for each in found]

    async def is_full(self, tenant_id: str) -> bool:
        """Return whether a tenant has as many servers as it may have."""
        return await self._servers.count({"tenant_id": tenant_id}, limit=MAX_SERVERS) >= MAX_SERVERS

    async def insert(self, server: McpServer) -> bool:
        """Insert a server; return False if there is one of its name."""
        try:
            await self._servers.insert_one(_to_document(server))
        except DuplicateKey:
            return False
        self._cache.forget(server.tenant_id)
        return True

    async def update(self, old: McpServer, new: McpServer) -> bool:
        """Replace a server by its next revision; return False if it was changed meanwhile."""
        document = _to_document(new)
        updated = await self._servers.update_one(_query(old), {"$set": document})
        self._cache.forget(new.tenant_id)
        return updated

    async def delete(self, server: McpServer) -> bool:
        """Delete a server; return False if it was changed meanwhile."""
        deleted = await self._servers.delete_one(_query(server))
        self._cache.forget(server.tenant_id)
        return deleted

    async def erase(self, tenant_id: str) -> None:
        """Delete all servers of a tenant."""
        await self._servers.delete_all({"tenant_id": tenant_id})
        self._cache.forget(tenant_id)

    def seal(self, tenant_id: str, name: str, credentials: Credentials) -> bytes | None:
        """Encrypt a server's credentials; None: there are none.

        Raises:
            ProviderKeysOff: The service has no encryption key.
        """
        if not credentials:
            return None
        return self._secret_box.seal(credentials.to_json(), owner=_owner(tenant_id, name), what=_WHAT)

    def unseal(self, server: McpServer) -> Credentials:
        """Decrypt a server's credentials.

        Raises:
            ProviderKeysOff: The service lacks the key, or they were sealed for another server.
        """
        if server.sealed is None:
            return Credentials()
        owner = _owner(server.tenant_id, server.name)
        return Credentials.from_json(self._secret_box.open(server.sealed, owner=owner, what=_WHAT))

    async def reseal(self) -> int:
        """Re-encrypt with the first encryption key what others encrypted; return the number of servers changed.

        Raises:
            ProviderKeysOff: One cannot be decrypted.
        """
        changed = 0
        async for each in self._servers.iterate({"sealed": {"$ne": None}}):
            server = _from_document(each)
            if server.sealed is not None and not self._secret_box.is_current(server.sealed):
                sealed = self.seal(server.tenant_id, server.name, self.unseal(server))
                query = {"_id": each["_id"], "sealed": each["sealed"]}
                changed += await self._servers.update_one(query, {"$set": {"sealed": sealed}})
        return changed

    async def _read_all(self, tenant_id: str) -> Mapping[str, McpServer]:
        found = await self._servers.find({"tenant_id": tenant_id}, limit=2 * MAX_SERVERS)
        return {each["name"]: _from_document(each) for each in found}


def _id_of(tenant_id: str, name: str) -> str:
    return f"{tenant_id}/{name}"


def _owner(tenant_id: str, name: str) -> str:
    """Return for whom credentials are sealed: no other server can be given them."""
    return f"mcp_server {tenant_id}/{name}"


def _query(server: McpServer) -> Document:
    return {
        "_id": _id_of(server.tenant_id, server.name),
        "tenant_id": server.tenant_id,
        "create_time": server.create_time,
        "revision": server.revision,
    }


def _to_document(server: McpServer) -> Document:
    oauth = server.oauth
    return {
        "_id": _id_of(server.tenant_id, server.name),
        "tenant_id": server.tenant_id,
        "name": server.name,
        "url": server.url,
        "header_names": list(server.header_names),
        "oauth": None
        if oauth is None
        else {"token_url": oauth.token_url, "client_id": oauth.client_id, "scope": oauth.scope},
        "sealed": server.sealed,
        "allow": list(server.allow),
        "deny": list(server.deny),
        "prefix": server.prefix,
        "timeout_ms": server.timeout // _MILLISECOND,
        "output_bytes": server.output_bytes,
        "revision": server.revision,
        "create_time": server.create_time,
        "update_time": server.update_time,
    }


def _from_document(document: Document) -> McpServer:
    oauth = document["oauth"]
    return McpServer(
        tenant_id=document["tenant_id"],
        name=document["name"],
        url=document["url"],
        header_names=tuple(document["header_names"]),
        oauth=None
        if oauth is None
        else OAuthClient(token_url=oauth["token_url"], client_id=oauth["client_id"], scope=oauth["scope"]),
        sealed=document["sealed"],
        allow=tuple(document["allow"]),
        deny=tuple(document["deny"]),
        prefix=document["prefix"],
        timeout=document["timeout_ms"] * _MILLISECOND,
        output_bytes=document["output_bytes"],
        revision=document["revision"],
        create_time=document["create_time"],
        update_time=document["update_time"],
    )
