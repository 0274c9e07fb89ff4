"""The bounds of agents that call one another, and the check of a definition that names others."""

from collections.abc import Iterator
from typing import Final

from godoty_service.agents.definitions import AgentDefinition, AgentVersion, SubAgent
from godoty_service.agents.errors import AgentNotFound
from godoty_service.agents.store import Agents
from godoty_service.errors import InvalidRequest

MAX_DEPTH: Final = 3  # agents below the one of the turn, each called by the one before
MAX_CALLS: Final = 50  # calls of sub-agents in a turn
MAX_SECONDS: Final = 900.0  # of one call of a sub-agent
_MAX_AGENTS: Final = 100  # agents that one agent calls, directly or through others


class CallNotPossible(Exception):
    """An agent cannot be called; the text is for the model that calls it."""


def check_call(callers: tuple[str, ...], name: str) -> None:
    """Check that an agent can be called.

    Args:
        callers: The names of the agents that call one another, the turn's own first.
        name: The agent that the last of them calls.

    Raises:
        CallNotPossible: It would call itself, or be too deep.
    """
    if name in callers:
        raise CallNotPossible(f"The agent {name} would call itself: {' -> '.join((*callers, name))}.")
    if len(callers) > MAX_DEPTH:
        path = " -> ".join((*callers, name))
        raise CallNotPossible(f"Agents call one another at most {MAX_DEPTH} deep, and this is deeper: {path}.")


async def check_sub_agents(agents: Agents, tenant_id: str, definition: AgentDefinition) -> None:
    """Check the agents that a definition calls, directly or through others, as they are now.

    Raises:
        AgentNotFound: The tenant has no agent that the definition names, or no such version, or it is deleted.
        InvalidRequest: The agent would call itself, agents would call one another too deep, or are too many.
    """
    known: dict[SubAgent, AgentVersion | None] = {}  # a few small reads each, of which some are cached
    for index, entry in _entries(definition):
        field = f"definition.tools[{index}].agent.agent"
        version = await called_version(agents, tenant_id, entry, fresh=True)
        known[entry] = version
        waiting: list[tuple[tuple[str, ...], SubAgent]] = [((definition.name,), entry)]
        seen: set[tuple[int, SubAgent]] = set()
        while waiting:
            callers, called = waiting.pop()
            if (len(callers), called) in seen:
                continue
            seen.add((len(callers), called))
            try:
                check_call(callers, called.agent.name)
            except CallNotPossible as error:
                raise InvalidRequest.of(field, str(error)) from None
            found = known[called]
            for _, each in _entries(found.definition) if found is not None else ():
                if each not in known:
                    if len(known) >= _MAX_AGENTS:
                        raise InvalidRequest.of(field, f"must call at most {_MAX_AGENTS} agents, also through others")
                    known[each] = await _found(agents, tenant_id, each)
                waiting.append(((*callers, called.agent.name), each))


async def called_version(agents: Agents, tenant_id: str, entry: SubAgent, *, fresh: bool = False) -> AgentVersion:
    """Return the version of an agent that a call takes now.

    Args:
        agents: The tenants' agents.
        tenant_id: The tenant.
        entry: The agent, as a definition names it.
        fresh: Read the agent from the database; else it is cached in the usual case.

    Raises:
        AgentNotFound: The tenant has no such agent, or no such version, or it is deleted.
    """
    reference = entry.agent
    read = agents.read_in_force if fresh else agents.get
    found = await read(tenant_id, reference.name)
    if found.deleted:
        raise AgentNotFound.of(reference)
    if reference.version is None:
        return found.newest
    return await agents.get_version(tenant_id, reference.name, reference.version)


async def _found(agents: Agents, tenant_id: str, entry: SubAgent) -> AgentVersion | None:
    """Return the version that a call takes; None: there is none, which is not the checked definition's fault."""
    try:
        return await called_version(agents, tenant_id, entry, fresh=True)
    except AgentNotFound:
        return None


def _entries(definition: AgentDefinition) -> Iterator[tuple[int, SubAgent]]:
    for index, each in enumerate(definition.tools):
        if isinstance(each, SubAgent):
            yield index, each
