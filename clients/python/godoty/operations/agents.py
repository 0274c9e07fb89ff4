"""Agents: those that can be talked to, and their definitions; and the models."""

from __future__ import annotations

from godoty.calls import Call, Pages
from godoty.codec import all_from, from_message, to_message
from godoty.types import (
    Agent,
    AgentDefinition,
    AgentSummary,
    AgentVersion,
    AppliedAgent,
    Model,
)
from godoty.v1 import agent_definition_service_pb2 as definition_pb
from godoty.v1 import agent_pb2
from godoty.v1 import agent_service_pb2 as pb


def list_agents(*, page_size: int = 0) -> Pages[AgentSummary]:
    """Yield the agents with which a session can begin, by name (scope converse)."""
    request = pb.ListAgentsRequest(page_size=page_size)
    return Pages("AgentService.ListAgents", request, lambda page: all_from(AgentSummary, page.agents))


def list_models(*, page_size: int = 0) -> Pages[Model]:
    """Yield the models that turns may use, by id, with their prices (scope converse)."""
    request = pb.ListModelsRequest(page_size=page_size)
    return Pages("AgentService.ListModels", request, lambda page: all_from(Model, page.models))


def apply(definition: AgentDefinition, *, etag: str = "") -> Call[AppliedAgent]:
    """Make a definition the newest version of its agent, which is created if there is none (scope agents).

    Args:
        definition: The definition. The same content as the newest version changes nothing.
        etag: That of the agent that it was made from; `EtagMismatch` if the agent has changed since. Empty: any.
    """
    message = to_message(agent_pb2.AgentDefinition, definition)
    request = definition_pb.ApplyAgentRequest(definition=message, etag=etag)
    return Call("AgentDefinitionService.ApplyAgent", request, lambda response: from_message(AppliedAgent, response))


def get(agent: str) -> Call[Agent]:
    """Return the newest version of an agent, or the one of "name@version" (scope agents)."""
    request = definition_pb.GetAgentRequest(agent=agent)
    return Call("AgentDefinitionService.GetAgent", request, lambda response: from_message(Agent, response))


def definitions(*, page_size: int = 0) -> Pages[AgentVersion]:
    """Yield the newest version of each agent, by name (scope agents)."""
    request = definition_pb.ListAgentDefinitionsRequest(page_size=page_size)
    return Pages(
        "AgentDefinitionService.ListAgentDefinitions", request, lambda page: all_from(AgentVersion, page.agent_versions)
    )


def versions(agent: str, *, page_size: int = 0) -> Pages[AgentVersion]:
    """Yield the versions of an agent, newest first (scope agents)."""
    request = definition_pb.ListAgentVersionsRequest(agent=agent, page_size=page_size)
    return Pages(
        "AgentDefinitionService.ListAgentVersions", request, lambda page: all_from(AgentVersion, page.agent_versions)
    )


def delete(agent: str, *, etag: str = "") -> Call[None]:
    """Hide an agent: no further session can begin with it (scope agents)."""
    request = definition_pb.DeleteAgentRequest(agent=agent, etag=etag)
    return Call("AgentDefinitionService.DeleteAgent", request, lambda _: None)
