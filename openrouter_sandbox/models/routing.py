"""Routing: selects the model and the provider for the requested models and preferences."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from openrouter_sandbox.conversation import Conversation, RequestError
from openrouter_sandbox.models import providers
from openrouter_sandbox.models.catalogue import Catalogue, Endpoint, Model
from openrouter_sandbox.scenarios.scenario import Scenario

_PER_MILLION = 6
# The fields of a request that count as parameters (the schema `Parameter` of OpenRouter's OpenAPI file).
_PARAMETERS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "top_a", "frequency_penalty", "presence_penalty", "repetition_penalty"}
    | {"max_tokens", "max_completion_tokens", "logit_bias", "logprobs", "top_logprobs", "prediction", "seed"}
    | {"response_format", "structured_outputs", "stop", "tools", "tool_choice", "parallel_tool_calls", "verbosity"}
    | {"include_reasoning", "reasoning", "reasoning_effort", "web_search_options"}
)


def route(catalogue: Catalogue, conversation: Conversation, scenario: Scenario) -> tuple[Model, Endpoint]:
    """Select the model and the endpoint that serve a request.

    Raises:
        RequestError: 400 for an unknown model name; 404 if the preferences exclude every endpoint.
    """
    names = conversation.candidates
    if not names:
        raise RequestError(400, "No models provided")
    models = [_find_model(catalogue, name) for name in names]
    for model in models[min(scenario.number("skip"), len(models) - 1) :]:
        endpoints = _allowed_endpoints(catalogue.endpoints(model), conversation)
        if scenario.has("provider"):
            endpoints = [_scenario_endpoint(catalogue, model, scenario.text("provider"))]
        if endpoints:
            return model, endpoints[0]
    raise RequestError(404, f"No endpoints found for {names[0]}.")


def _find_model(catalogue: Catalogue, name: str) -> Model:
    model = catalogue.find(name)
    if model is None:
        raise RequestError(400, f"{name} is not a valid model ID")
    return model


def _scenario_endpoint(catalogue: Catalogue, model: Model, name: str) -> Endpoint:
    """Return the scenario's provider, at the list price if it does not serve the model."""
    for endpoint in catalogue.endpoints(model):
        if providers.is_named(endpoint.provider, name):
            return endpoint
    known = sorted(providers.STOPS_BILLING | providers.BILLS_IN_FULL)
    provider = next((provider for provider in known if providers.is_named(provider, name)), name)
    return Endpoint(provider, model.pricing)


def _allowed_endpoints(endpoints: tuple[Endpoint, ...], conversation: Conversation) -> list[Endpoint]:
    """Return the endpoints that satisfy a request's preferences, best first.

    These are `provider {only, ignore, order, allow_fallbacks, max_price, require_parameters}`.
    """
    preference: Mapping[str, Any] = conversation.body.get("provider") or {}
    if preference.get("require_parameters"):
        carried = _PARAMETERS & conversation.body.keys()
        endpoints = tuple(each for each in endpoints if carried <= each.parameters)
    allowed = [endpoint for endpoint in endpoints if _within_max_price(endpoint, preference.get("max_price") or {})]
    if preference.get("only"):
        allowed = [endpoint for endpoint in allowed if _named(endpoint, preference["only"])]
    allowed = [endpoint for endpoint in allowed if not _named(endpoint, preference.get("ignore") or ())]
    order = preference.get("order") or ()
    ordered = [endpoint for name in order for endpoint in allowed if _named(endpoint, (name,))]
    if preference.get("allow_fallbacks") is False:
        return ordered if order else allowed[:1]
    return [*ordered, *(endpoint for endpoint in allowed if endpoint not in ordered)]


def _named(endpoint: Endpoint, names: Any) -> bool:
    return any(providers.is_named(endpoint.provider, str(name)) for name in names)


def _within_max_price(endpoint: Endpoint, max_price: Mapping[str, Any]) -> bool:
    """Return whether the prices satisfy `max_price`: USD per million tokens, or per request."""
    for key, limit in max_price.items():
        price = endpoint.pricing.get(key)
        if not isinstance(price, str):
            continue
        try:
            highest = Decimal(str(limit))
        except InvalidOperation:
            raise RequestError(400, f"provider.max_price.{key} is not a number") from None
        if Decimal(price) > (highest.scaleb(-_PER_MILLION) if key in {"prompt", "completion"} else highest):
            return False
    return True
