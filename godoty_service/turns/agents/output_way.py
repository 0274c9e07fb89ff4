"""How a model can be made to answer by an output schema, by what the catalogue says of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from godoty_service.agents.definitions import ReasoningEffort
from godoty_service.agents.profile import AgentProfile
from godoty_service.errors import InvalidRequest
from godoty_service.pricing.abilities import Abilities
from godoty_service.pricing.catalogue import Catalogue

_UNKNOWN = Abilities()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputWay:
    """How a model is made to answer by a schema.

    Attributes:
        native: By the provider's `response_format`, at first.
        tools: By a tool whose input is the answer: at first, or once the provider refuses its own way.
        forced: The model may be made to call a tool. Some providers refuse that of a model that reasons.
    """

    native: bool
    tools: bool
    forced: bool


def output_way(catalogue: Catalogue | None, models: Sequence[str], profile: AgentProfile) -> OutputWay:
    """Return how an agent's models can be made to answer by its output schema.

    Args:
        catalogue: The provider's models; None: unknown.
        models: The model and its fallbacks, any of which may answer.
        profile: The agent.

    Raises:
        InvalidRequest: They cannot.
    """
    known = [_abilities(catalogue, each) for each in models]
    native = all(each.structured_output for each in known)
    tools = all(each.tools is not False for each in known)
    if not (native or tools):
        text = f"must be one that answers by a JSON schema or calls tools, with its fallbacks: {', '.join(models)}"
        raise InvalidRequest.of("model", text)
    reasoning = profile.parameters.reasoning
    forced = reasoning is None or reasoning.effort is ReasoningEffort.NONE
    return OutputWay(native=native, tools=tools, forced=forced)


def _abilities(catalogue: Catalogue | None, model: str) -> Abilities:
    listed = catalogue.find(model) if catalogue is not None else None
    return catalogue.abilities.get(listed.id, _UNKNOWN) if catalogue is not None and listed is not None else _UNKNOWN
