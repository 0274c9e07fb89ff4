"""Tenants' agents: which version of each is the newest. Owns `agents`, one document per tenant and name.

A version is inserted into `agent_versions` first, then it becomes the newest by an update of the agent's document,
which has a copy of it. A server that dies between the two leaves a version that the next change completes: it finds the
number taken, makes that version the newest, and goes on from there. So numbers have no gap, and none is used twice.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar

from godoty_service.agents.built_in import BUILT_IN
from godoty_service.agents.codec import definition_to_text
from godoty_service.agents.definitions import (
    BUILT_IN_VERSION,
    Agent,
    AgentDefinition,
    AgentReference,
    AgentVersion,
)
from godoty_service.agents.errors import AgentChanged, AgentLimit, AgentNotFound
from godoty_service.agents.lists import AgentLists, agent_from_document
from godoty_service.agents.versions import AgentVersions, version_to_document
from godoty_service.aio.caching import CoalescedLoads, TtlCache
from godoty_service.clock import Clock, to_millisecond, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document, Index

_CACHED_FOR = 2.0  # seconds until a change reaches the next turn on every server
_CACHED = 1_000  # agents
_CACHED_CHARACTERS = 16 * 1024 * 1024  # of the texts of their definitions together
_CACHED_UNKNOWN = 10_000  # names that have no agent
_ATTEMPTS = 20  # of a change that others' changes overtake
MAX_AGENTS = 1_000  # of a tenant, deleted ones included
MAX_VERSIONS = 10_000  # of an agent

Record = Callable[[Agent | None, AgentVersion | None], Awaitable[None]]
Key = tuple[str, str]


class Agents:
    """Agents by tenant and name, cached for 2 seconds; versions never change and are cached without a limit of time.

    Attributes:
        lists: Lists of agents and of their versions.
    """

    COLLECTION = "agents"
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("tenant_id", 1), ("name", 1)], unique=True),)

    def __init__(
        self,
        collection: Collection,
        versions: AgentVersions,
        *,
        clock: Clock = utc_now,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the store.

        Args:
            collection: `agents`.
            versions: The versions of the agents.
            clock: Returns the current time.
            tick: Returns the seconds of a monotonic clock.
        """
        self._agents = collection
        self._versions = versions
        self.lists = AgentLists(collection, versions)
        self._clock = clock
        self._known: TtlCache[Key, Agent] = TtlCache(
            size=_CACHED,
            ttl=_CACHED_FOR,
            tick=tick,
            weigh=lambda agent: agent.newest.size,
            max_weight=_CACHED_CHARACTERS,
        )
        self._unknown: TtlCache[Key, None] = TtlCache(size=_CACHED_UNKNOWN, ttl=_CACHED_FOR, tick=tick)
        self._loads: CoalescedLoads[Key, Agent | None] = CoalescedLoads(self._cache, ttl=_CACHED_FOR, tick=tick)

    async def get(self, tenant_id: str, name: str) -> Agent:
        """Return an agent, also a deleted one, at most 2 seconds old.

        Raises:
            AgentNotFound: The tenant has, and had, no agent of this name.
        """
        key = (tenant_id, name)
        found = self._known.get(key)
        if found is None and not self._unknown.peek(key)[1]:
            found = await self._loads.load(key, partial(self.read, tenant_id, name))
        return _require(found, name)

    async def get_version(self, tenant_id: str, name: str, version: int) -> AgentVersion:
        """Return a version of an agent, also of a deleted one.

        Raises:
            AgentNotFound: There is no such version.
        """
        if name == BUILT_IN.name and version == BUILT_IN_VERSION:
            return BUILT_IN.newest
        found = await self._versions.get(tenant_id, name, version)
        if found is None:
            raise AgentNotFound.of(AgentReference(name, version))
        return found

    async def read_in_force(self, tenant_id: str, name: str) -> Agent:
        """Return an agent as `get` does, from the database.

        Raises:
            AgentNotFound: The tenant has, and had, no agent of this name.
        """
        return _require(await self.read(tenant_id, name), name)

    async def read(self, tenant_id: str, name: str) -> Agent | None:
        """Return an agent from the database, bypassing the cache; None: the tenant has applied none of this name."""
        found = await self._read(tenant_id, name)
        return agent_from_document(found) if found is not None else None

    async def apply(
        self, tenant_id: str, definition: AgentDefinition, *, etag: str, by: str, record: Record
    ) -> tuple[Agent, bool]:
        """Make a definition the newest version of its agent; one with the same content changes nothing.

        It is in force here at once, on every server within 2 seconds.

        Args:
            tenant_id: The tenant.
            definition: The definition, which was checked.
            etag: The state of the agent that the change is based on; empty: any.
            by: Who applies it.
            record: Called with the agent and its next version before each attempt to write.

        Returns:
            The agent, and whether it was changed.

        Raises:
            AgentChanged: It is not in that state, or others change it again and again.
            AgentLimit: The tenant has too many agents, or the agent too many versions.
        """
        text = definition_to_text(definition)
        for _ in range(_ATTEMPTS):
            stored = await self._read(tenant_id, definition.name)
            old = agent_from_document(stored) if stored is not None else None
            # The stored text, not what this build reads of it: a later build may have written a field more.
            same = stored is not None and stored["definition"] == text
            if old is not None and same and not old.deleted:
                return old, False
            _check_etag(definition.name, old, etag)
            new = old.newest if old is not None and same else await self._next(tenant_id, old, definition, by=by)
            await record(old, new)
            if same:
                agent = await self._point(tenant_id, old, new)
            else:
                agent = await self._add_version(tenant_id, old, new)
            if agent is not None:
                return agent, True
        raise AgentChanged.of(definition.name, "")

    async def delete(self, tenant_id: str, name: str, *, etag: str, record: Record) -> None:
        """Hide a name: no further session begins with the agent, or with it the server's own of this name.

        Raises:
            AgentNotFound: The tenant has applied no agent of this name, or it is deleted.
            AgentChanged: It is not in the state of the etag, or others change it again and again.
        """
        for _ in range(_ATTEMPTS):
            old = await self.read(tenant_id, name)
            if old is None or old.deleted:
                raise AgentNotFound.of(AgentReference(name))
            _check_etag(name, old, etag)
            await record(old, None)
            if await self._point(tenant_id, old, old.newest, deleted=True) is not None:
                return
        raise AgentChanged.of(name, "")

    async def erase(self, tenant_id: str) -> None:
        """Delete all agents of a tenant, with their versions."""
        await self._agents.delete_all({"tenant_id": tenant_id})
        await self._versions.erase(tenant_id)

    async def _read(self, tenant_id: str, name: str) -> Document | None:
        return await self._agents.find_one({"_id": _id_of(tenant_id, name), "tenant_id": tenant_id})

    async def _next(self, tenant_id: str, old: Agent | None, definition: AgentDefinition, *, by: str) -> AgentVersion:
        """Return the next version of an agent, which is not inserted yet.

        Raises:
            AgentLimit: The tenant has too many agents, or the agent too many versions.
        """
        if old is None:
            if await self._agents.count({"tenant_id": tenant_id}, limit=MAX_AGENTS) >= MAX_AGENTS:
                text = f"The tenant has {MAX_AGENTS:,} agents, deleted ones included: apply a version of one of them."
                raise AgentLimit(text, metadata={"limit": str(MAX_AGENTS)})
        elif old.newest.version >= MAX_VERSIONS:
            text = f"The agent {old.name} has {MAX_VERSIONS:,} versions: apply the definition under another name."
            raise AgentLimit(text, metadata={"limit": str(MAX_VERSIONS)})
        number = BUILT_IN_VERSION + 1 if old is None else old.newest.version + 1
        return AgentVersion(definition=definition, version=number, create_time=to_millisecond(self._clock()), by=by)

    async def _add_version(self, tenant_id: str, old: Agent | None, new: AgentVersion) -> Agent | None:
        """Insert a version and make it the newest.

        Returns:
            The agent. None: another caller has inserted this number, and that change was completed.

        Raises:
            AgentChanged: Others change the agent again and again; the next change completes this one.
        """
        if not await self._versions.insert(tenant_id, new):
            other = await self._versions.read(tenant_id, new.name, new.version)
            if other is not None:
                await self._point(tenant_id, old, other)
            return None
        for _ in range(_ATTEMPTS):
            agent = await self._point(tenant_id, old, new)
            if agent is not None:
                return agent
            old = await self.read(tenant_id, new.name)
            if old is not None and old.newest.version >= new.version:
                # Another caller has completed this change, and perhaps made one of its own: no etag fits it any more.
                return Agent(newest=new)
        raise AgentChanged.of(new.name, "")

    async def _point(
        self, tenant_id: str, old: Agent | None, newest: AgentVersion, *, deleted: bool = False
    ) -> Agent | None:
        """Make a version the newest of an agent that is still in the state `old`; None: it is in another state."""
        agent = Agent(newest=newest, deleted=deleted, revision=1 if old is None else old.revision + 1)
        key = {"_id": _id_of(tenant_id, newest.name), "tenant_id": tenant_id}
        document = {**version_to_document(newest), "deleted": deleted, "revision": agent.revision}
        document["description"] = newest.definition.description  # for lists that show nothing else
        if old is None:
            try:
                await self._agents.insert_one({**key, "name": newest.name, **document})
            except DuplicateKey:
                return None
        elif not await self._agents.update_one({**key, "revision": old.revision}, {"$set": document}):
            return None
        self._forget(tenant_id, newest.name)
        return agent

    def _cache(self, key: Key, agent: Agent | None, read_at: float) -> None:
        if agent is None:
            self._known.forget(key)
            self._unknown.put(key, None, read_at)
        else:
            self._unknown.forget(key)
            self._known.put(key, agent, read_at)

    def _forget(self, tenant_id: str, name: str) -> None:
        for cache in (self._known, self._unknown, self._loads):
            cache.forget((tenant_id, name))


def _require(found: Agent | None, name: str) -> Agent:
    """Return the agent that is in force under a name: the tenant's, or the server's own.

    Raises:
        AgentNotFound: There is none.
    """
    if name == BUILT_IN.name and (found is None or found.deleted):
        return BUILT_IN
    if found is None:
        raise AgentNotFound.of(AgentReference(name))
    return found


def _check_etag(name: str, agent: Agent | None, etag: str) -> None:
    """Check that an agent is in the state of an etag; empty: any.

    Raises:
        AgentChanged: It is in another state, or does not exist.
    """
    if name == BUILT_IN.name and (agent is None or agent.deleted):
        agent = BUILT_IN
    known = agent.etag if agent is not None else ""
    if etag not in ("", known):
        raise AgentChanged.of(name, known)


def _id_of(tenant_id: str, name: str) -> str:
    return f"{tenant_id}/{name}"
