"""Lists of a tenant's agents and of an agent's versions, in pages of bounded size."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from godoty_service.agents.built_in import BUILT_IN
from godoty_service.agents.definitions import BUILT_IN_VERSION, Agent, AgentReference, AgentVersion
from godoty_service.agents.errors import AgentNotFound
from godoty_service.agents.versions import AgentVersions, version_from_document, version_to_document
from godoty_service.mongo.collection import Collection, Document

_BATCH = 20  # documents in one read: of some KB in the usual case, of 300 KB at most
_BUILT_IN: Document = {
    "name": BUILT_IN.name,
    "description": BUILT_IN.newest.definition.description,
    "deleted": BUILT_IN.deleted,
    "revision": BUILT_IN.revision,
    **version_to_document(BUILT_IN.newest),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSummary:
    """An agent without its definition; `version` is its newest."""

    name: str
    description: str
    version: int


class AgentLists:
    """Lists by tenant. The server's own agent is in its place, unless the tenant has one of its name."""

    def __init__(self, collection: Collection, versions: AgentVersions) -> None:
        self._agents = collection
        self._versions = versions

    async def page(self, tenant_id: str, *, after: str, limit: int, max_bytes: int) -> list[Agent]:
        """Return agents that are not deleted, by name.

        Args:
            tenant_id: The tenant.
            after: The name after which to start; empty: at the beginning.
            limit: Maximum number of agents.
            max_bytes: Stop once their texts exceed this size together.
        """
        found: list[Agent] = []
        remaining = max_bytes
        async with aclosing(self._documents(tenant_id, after=after, limit=limit)) as documents:
            async for each in documents:
                found.append(agent_from_document(each))
                if (remaining := remaining - found[-1].newest.size) < 0:
                    break
        return found

    async def summaries(
        self, tenant_id: str, *, after: str, limit: int, allows: Callable[[str], bool]
    ) -> list[AgentSummary]:
        """Return agents that are not deleted, by name, without their definitions.

        Args:
            tenant_id: The tenant.
            after: The name after which to start; empty: at the beginning.
            limit: Maximum number of agents.
            allows: Returns whether to list an agent of a name.
        """
        found: list[AgentSummary] = []
        fields = {"name": 1, "description": 1, "version": 1}
        async with aclosing(self._documents(tenant_id, after=after, limit=0, fields=fields)) as documents:
            async for each in documents:
                if allows(each["name"]):
                    found.append(
                        AgentSummary(name=each["name"], description=each["description"], version=each["version"])
                    )
                if len(found) == limit:
                    break
        return found

    async def versions(
        self, tenant_id: str, name: str, *, before: int | None, limit: int, max_bytes: int
    ) -> list[AgentVersion]:
        """Return the versions of an agent, also of a deleted one, newest first.

        Args:
            tenant_id: The tenant.
            name: The name of the agent.
            before: Only versions that are older than this one; None: all.
            limit: Maximum number of versions.
            max_bytes: Stop once their texts exceed this size together.

        Raises:
            AgentNotFound: The tenant has, and had, no agent of this name.
        """
        found, complete = await self._versions.page(tenant_id, name, before=before, limit=limit, max_bytes=max_bytes)
        if name == BUILT_IN.name and complete and len(found) < limit and before != BUILT_IN_VERSION:
            found.append(BUILT_IN.newest)
        if not found and before is None:
            raise AgentNotFound.of(AgentReference(name))
        return found

    async def _documents(
        self, tenant_id: str, *, after: str, limit: int, fields: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Document, None]:
        """Yield the documents of agents that are not deleted, by name, with the server's own in its place.

        At most `limit`, unless that is 0: a tenant has a bounded number of agents.
        """
        query = {"tenant_id": tenant_id, "name": {"$gt": after}, "deleted": False}
        passed, number = BUILT_IN.name <= after, 0
        cursor = self._agents.iterate(query, sort=[("name", 1)], limit=limit, fields=fields, batch=_BATCH)
        async with aclosing(cursor) as documents:
            async for each in documents:
                if not passed and each["name"] > BUILT_IN.name:
                    yield _BUILT_IN
                    number += 1
                passed = passed or each["name"] >= BUILT_IN.name
                if limit and number == limit:
                    return
                yield each
                number += 1
        if not passed and not (limit and number >= limit):
            yield _BUILT_IN


def agent_from_document(document: Document) -> Agent:
    """Decode an agent."""
    return Agent(newest=version_from_document(document), deleted=document["deleted"], revision=document["revision"])
