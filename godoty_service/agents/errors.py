"""The errors of agents, beside those of `godoty_service/errors.py`.

GodotyError
├── AgentChanged     the agent was changed since it was read
├── AgentLimit       the tenant has as many agents, or the agent as many versions, as there may be
├── AgentMismatch    the session has another agent
└── AgentNotFound    the tenant has no such agent, or the agent no such version
"""

from godoty_service.agents.definitions import AgentReference
from godoty_service.errors import GodotyError


class AgentChanged(GodotyError):
    """The agent was changed since the caller read it, or is changed again and again."""

    reason = "ETAG_MISMATCH"

    @classmethod
    def of(cls, name: str, etag: str) -> "AgentChanged":
        """Return the error for an agent, whose etag now is `etag`; empty: there is no such agent."""
        text = f"The agent {name} was changed meanwhile: read it again, and send the change with its etag."
        return cls(text, metadata={"etag": etag})


class AgentLimit(GodotyError):
    """The tenant has as many agents, or the agent as many versions, as there may be."""

    reason = "AGENT_LIMIT"


class AgentMismatch(GodotyError):
    """The session has another agent than the one that the request names."""

    reason = "AGENT_MISMATCH"

    @classmethod
    def of(cls, session_id: str, *, agent: str, requested: str) -> "AgentMismatch":
        """Return the error for a session with an agent, and a request that names another."""
        text = f"The session has the agent {agent}: begin another session for {requested}, or name no agent."
        return cls(text, metadata={"session_id": session_id, "agent": agent})


class AgentNotFound(GodotyError):
    """The tenant has no such agent, or the agent no such version."""

    reason = "AGENT_NOT_FOUND"

    @classmethod
    def of(cls, reference: AgentReference) -> "AgentNotFound":
        """Return the error for an agent as it was named."""
        return cls(f"There is no agent {reference.label}.", metadata={"agent": reference.label})
