"""The versions of agents, inserted once and never changed. Owns `agent_versions`."""

from contextlib import aclosing
from typing import ClassVar

from godoty_service.agents.codec import definition_from_text, definition_to_text
from godoty_service.agents.definitions import AgentVersion
from godoty_service.aio.caching import TtlCache
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document, Index

_BATCH = 20  # documents in one read: of some KB in the usual case, of 300 KB at most
_CACHED = 1_000  # versions
_CACHED_CHARACTERS = 16 * 1024 * 1024  # of their texts together

Key = tuple[str, str, int]


class AgentVersions:
    """Versions by tenant, name and number."""

    COLLECTION = "agent_versions"
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("tenant_id", 1), ("name", 1), ("version", -1)], unique=True),)

    def __init__(self, collection: Collection) -> None:
        """Create the store.

        Args:
            collection: `agent_versions`.
        """
        self._versions = collection
        self._cache: TtlCache[Key, AgentVersion] = TtlCache(
            size=_CACHED, weigh=lambda version: version.size, max_weight=_CACHED_CHARACTERS
        )

    async def insert(self, tenant_id: str, version: AgentVersion) -> bool:
        """Insert a version; return False if there is one of this number, which another caller has inserted."""
        document = {
            "_id": f"{tenant_id}/{version.name}/{version.version}",
            "tenant_id": tenant_id,
            "name": version.name,
            **version_to_document(version),
        }
        try:
            await self._versions.insert_one(document)
        except DuplicateKey:
            return False
        return True

    async def get(self, tenant_id: str, name: str, version: int) -> AgentVersion | None:
        """Return a version, which is cached: it never changes; None: there is none."""
        key = (tenant_id, name, version)
        found = self._cache.get(key)
        if found is None:
            found = await self.read(tenant_id, name, version)
            if found is not None:
                self._cache.put(key, found)
        return found

    async def read(self, tenant_id: str, name: str, version: int) -> AgentVersion | None:
        """Return a version from the database, bypassing the cache; None: there is none."""
        found = await self._versions.find_one({"tenant_id": tenant_id, "name": name, "version": version})
        return version_from_document(found) if found is not None else None

    async def page(
        self, tenant_id: str, name: str, *, before: int | None, limit: int, max_bytes: int
    ) -> tuple[list[AgentVersion], bool]:
        """Return versions of an agent, newest first, and whether the list was read to its end.

        Args:
            tenant_id: The tenant.
            name: The name of the agent.
            before: Only versions that are older than this one; None: all.
            limit: Maximum number of versions.
            max_bytes: Stop once their texts exceed this size together.
        """
        query: Document = {"tenant_id": tenant_id, "name": name}
        if before is not None:
            query["version"] = {"$lt": before}
        found: list[AgentVersion] = []
        remaining = max_bytes
        cursor = self._versions.iterate(query, sort=[("version", -1)], limit=limit, batch=_BATCH)
        async with aclosing(cursor) as documents:
            async for each in documents:
                found.append(version_from_document(each))
                if (remaining := remaining - found[-1].size) < 0:
                    return found, False
        return found, True

    async def erase(self, tenant_id: str) -> None:
        """Delete all versions of a tenant."""
        await self._versions.delete_all({"tenant_id": tenant_id})


def version_to_document(version: AgentVersion) -> Document:
    """Encode a version, without its name."""
    return {
        "version": version.version,
        "definition": definition_to_text(version.definition),
        "create_time": version.create_time,
        "by": version.by,
    }


def version_from_document(document: Document) -> AgentVersion:
    """Decode a version."""
    return AgentVersion(
        definition=definition_from_text(document["name"], document["definition"]),
        version=document["version"],
        create_time=document["create_time"],
        by=document["by"],
    )
