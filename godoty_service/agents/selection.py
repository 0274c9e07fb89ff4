"""Which agent, and which version of it, a turn takes: by what its request names, and by what its session has."""

from godoty_service.agents.definitions import ASSISTANT, Agent, AgentReference, AgentVersion
from godoty_service.agents.errors import AgentMismatch, AgentNotFound
from godoty_service.agents.store import Agents


class AgentSelection:
    """The selection for one turn. The agent is read before the session is acquired: a new session has its model.

    Attributes:
        name: The name of the agent with which a new session begins.
        pinned: The version that a new session's turns take; None: the newest one.
    """

    def __init__(self, agents: Agents, tenant_id: str, requested: AgentReference | None) -> None:
        """Create the selection.

        Args:
            agents: The tenants' agents.
            tenant_id: The tenant.
            requested: The agent that the request names; None: none.
        """
        self._agents = agents
        self._tenant_id = tenant_id
        self._requested = requested
        self._agent: Agent | None = None
        self._version: AgentVersion | None = None  # the one that the request names
        self.name = requested.name if requested is not None else ASSISTANT
        self.pinned = requested.version if requested is not None else None

    @property
    def model(self) -> str | None:
        """The model of a new session; None: the definition names none."""
        version = self._version or (self._agent.newest if self._agent is not None else None)
        return version.definition.model if version is not None else None

    async def read(self) -> None:
        """Read the agent that the request names, or the default; it is cached in the usual case.

        Raises:
            AgentNotFound: The tenant has, and had, no such agent, or the agent no such version.
        """
        self._agent = await self._agents.get(self._tenant_id, self.name)
        if self.pinned is not None:
            self._version = await self._agents.get_version(self._tenant_id, self.name, self.pinned)

    async def version(self, session_id: str, agent: str, *, pinned: int | None, created: bool) -> AgentVersion:
        """Return the version that the turn takes.

        Args:
            session_id: The caller's id of the session.
            agent: The name of the session's agent.
            pinned: The version that the session's turns take; None: the newest one.
            created: The turn has created the session.

        Raises:
            AgentMismatch: The request names another agent.
            AgentNotFound: The session's version does not exist, or the agent is deleted and the session new.
        """
        found = self._agent
        if found is None or found.name != agent:
            if self._requested is not None:
                raise AgentMismatch.of(session_id, agent=agent, requested=self.name)
            found = await self._agents.get(self._tenant_id, agent)
        if created and found.deleted:
            raise AgentNotFound.of(AgentReference(agent))
        if self._version is not None:
            return self._version
        return found.newest if pinned is None else await self._agents.get_version(self._tenant_id, agent, pinned)
