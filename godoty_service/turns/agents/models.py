"""Builds the models of a turn's agents."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final

from godoty_service.agents.definitions import ModelParameters
from godoty_service.agents.profile import AgentProfile
from godoty_service.attachments.attachments import AttachmentReader
from godoty_service.attachments.embedding import EmbeddingRules
from godoty_service.budgets.turn_budget import TurnBudget
from godoty_service.openrouter.call_limits import CallLimits, CallTerms
from godoty_service.openrouter.call_recorder import Meter
from godoty_service.openrouter.model import OpenRouterModel
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.server_tools import ServerToolUse
from godoty_service.sessions.session import Session
from godoty_service.tenancy.policies import Policy
from godoty_service.turns.agents.output_model import OutputModel
from godoty_service.turns.agents.output_way import output_way
from godoty_service.turns.agents.server_tools import server_tool_fields, server_tool_offer
from godoty_service.turns.attachments import inputs
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.turn import Turn

# Preferences by which a tenant or the operator says itself what a provider must support, or which ones may serve.
_CHOOSES_PROVIDERS: Final = frozenset({"require_parameters", "only", "order"})
_MAX_ATTACHMENTS = 100  # of one request: providers refuse more


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCalls:
    """How an agent of a turn calls its model.

    Attributes:
        models: The model and its fallbacks.
        meter: Inserts each request into the ledger.
        turn_budget: What the turn may still spend.
        call_limits: What the agent may still use.
        bounded: The cost of each call must have a bound, also without a budget: a limit of the agent's own holds.
    """

    models: tuple[str, ...]
    meter: Meter
    turn_budget: TurnBudget
    call_limits: CallLimits
    bounded: bool = False


def build_model(
    dependencies: TurnDependencies, turn: Turn, session: Session, profile: AgentProfile, calls: AgentCalls
) -> OpenRouterModel:
    """Build the model of an agent.

    Args:
        dependencies: The collaborators of turns.
        turn: The turn.
        session: Its session.
        profile: The agent.
        calls: How the agent calls its model.

    Raises:
        InvalidRequest: The agent has an output schema, by which its models cannot answer.
    """
    oracle, defaults = dependencies.oracle, dependencies.defaults
    catalogue, models, parameters = oracle.current, calls.models, profile.parameters
    routing = provider_routing(turn.policy, parameters)
    offer = server_tool_offer(profile.definition)
    build: Callable[..., OpenRouterModel] = OpenRouterModel
    if profile.output is not None:
        build = partial(OutputModel, schema=profile.output, way=output_way(catalogue, models, profile))
    return build(
        client=turn.provider_client.client,
        meter=calls.meter,
        model=models[0],
        fallback_models=models[1:],
        call_limits=calls.call_limits,
        call_output_tokens=parameters.max_output_tokens,
        side_output_tokens=defaults.summary_output_tokens,
        parameters={
            **request_parameters(parameters, prompt_caching=profile.definition.prompt_caching),
            **server_tool_fields(profile.definition),
        },
        server_tools=offer,
        call_terms=_call_terms(oracle, calls, routing, offer.uses, tenant_id=turn.tenant_id),
        provider=routing or None,
        supported_parameters=_supported_parameters(catalogue, models, routing),
        user=pseudonym(session.tenant_id, session.user_reference) if session.user_reference else None,
        session_key=pseudonym(session.tenant_id, session.uid),
        maker=lambda served: _requested_model(catalogue, models, served),
        context_window=context_length(catalogue, models[0]),
        limits=defaults.answer_limits,
        embedding=partial(_embedding, dependencies, turn.tenant_id, models),
    )


def _embedding(dependencies: TurnDependencies, tenant_id: str, models: tuple[str, ...]) -> EmbeddingRules:
    """Return what requests to some models may carry beside text."""
    oracle, parser = dependencies.oracle, dependencies.defaults.pdf_parser
    return EmbeddingRules(
        reader=AttachmentReader(dependencies.attachments.store, tenant_id),
        takes=inputs(oracle.current, models, parser=parser),
        max_bytes=dependencies.defaults.attachment_bytes,
        max_number=_MAX_ATTACHMENTS,
        parser=parser,
        bound=lambda images, pages: oracle.attached(models, images=images, pages=pages, parser=parser),
    )


def _call_terms(
    oracle: PricingOracle,
    calls: AgentCalls,
    preferences: Mapping[str, Any],
    uses: Sequence[ServerToolUse],
    *,
    tenant_id: str,
) -> Callable[[int], Awaitable[CallTerms]]:
    models, turn_budget = calls.models, calls.turn_budget

    async def terms(request_bytes: int) -> CallTerms:
        """Return the limits by which a call is reserved under a hard budget, which may be set during the turn."""
        await oracle.prepare(models, server_tools=bool(uses))
        await turn_budget.refresh(tenant_id)
        if not (turn_budget.bounded or calls.bounded):
            return CallTerms()
        routing = dict(preferences)
        ceiling = oracle.max_price(models, request_bytes=request_bytes)
        routing["max_price"] = _lowest_prices(ceiling, routing.get("max_price", {}))
        limit = oracle.output_limit(models, request_bytes=request_bytes)
        return CallTerms(max_output_tokens=limit, provider=routing)

    return terms


def fallback_models(turn: Turn) -> tuple[str, ...]:
    """Return the models to try if the first cannot answer: they belong to the model that is named first.

    That is the model of the request, of the agent's definition, or of the policy.
    """
    if turn.request.model:
        return turn.request.fallback_models
    definition = turn.agent.definition
    return definition.fallback_models if definition.model else turn.policy.default_fallback_models


def provider_routing(policy: Policy, parameters: ModelParameters) -> dict[str, Any]:
    """Return the preferences among OpenRouter's providers: the agent's, and those of the policy in place of them.

    The policy is the operator's, so an agent can only narrow what it bounds or excludes.
    """
    own, routing = policy.provider or {}, dict(parameters.provider or {})
    ignored = [*routing.get("ignore", ()), *own.get("ignore", ())]
    prices = _lowest_prices(routing.get("max_price", {}), own.get("max_price", {}))
    routing |= own
    routing |= {"ignore": list(dict.fromkeys(ignored))} if ignored else {}
    routing |= {"max_price": prices} if prices else {}
    if policy.zero_data_retention:
        routing["zdr"] = True
    return routing


def _supported_parameters(
    catalogue: Catalogue | None, models: tuple[str, ...], routing: Mapping[str, Any]
) -> frozenset[str]:
    """Return the parameters that providers can be required to support; none if routing preferences choose already.

    These are the parameters that all of the models support with one provider or another: no request goes unanswered
    because a provider would have ignored a parameter.
    """
    if catalogue is None or not routing.keys().isdisjoint(_CHOOSES_PROVIDERS):
        return frozenset()
    found = [catalogue.find(model) for model in models]
    abilities = [catalogue.abilities.get(each.id) if each is not None else None for each in found]
    known = [(each.parameters if each is not None else None) or frozenset() for each in abilities]
    return frozenset.intersection(*known)


def request_parameters(parameters: ModelParameters, *, prompt_caching: bool = False) -> dict[str, Any]:
    """Return the fields of the agent's requests to the provider, except for limits and routing.

    Args:
        parameters: The agent's parameters.
        prompt_caching: Mark the last block that can be cached, for providers that cache what is marked alone.
    """
    reasoning = parameters.reasoning
    fields: dict[str, Any] = {
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "seed": parameters.seed,
        "stop": list(parameters.stop) or None,
        "cache_control": {"type": "ephemeral"} if prompt_caching else None,
    }
    if reasoning is not None:
        effort = reasoning.effort
        fields["reasoning"] = {"max_tokens": reasoning.max_tokens} if effort is None else {"effort": effort.value}
    return {name: value for name, value in fields.items() if value is not None}


def pseudonym(*parts: str) -> str:
    """Return an identifier for the provider that reveals nothing and differs between tenants."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def context_length(catalogue: Catalogue | None, model: str) -> int | None:
    """Return the context length of a model, in tokens; None: unknown."""
    listed = catalogue.find(model) if catalogue is not None else None
    return listed.context_length if listed is not None else None


def _requested_model(catalogue: Catalogue | None, models: tuple[str, ...], served: str | None) -> str:
    """Return which of the requested models served: a fallback if the catalogue identifies it, else the first."""
    found = catalogue.find(served, requested=models) if catalogue is not None and served else None
    if catalogue is None or found is None:
        return models[0]
    listed = ((name, catalogue.find(name)) for name in models)
    return next((name for name, each in listed if each is not None and each.id == found.id), models[0])


def _lowest_prices(*prices: Mapping[str, str]) -> dict[str, str]:
    """Return the lowest bound of each price: a tenant's own must not raise the one that its calls are reserved by."""
    names = dict.fromkeys(name for each in prices for name in each)
    return {name: min((each[name] for each in prices if name in each), key=Decimal) for name in names}
