"""Routing: from the requested models and preferences to the model and provider that serve."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from godoty_service.sandbox import providers
from godoty_service.sandbox.catalogue import Catalogue, Endpoint, Model
from godoty_service.sandbox.conversation import Conversation, RequestError
from godoty_service.sandbox.scenario import Scenario

_PER_MILLION = 6


def route(catalogue: Catalogue, conversation: Conversation, scenario: Scenario) -> tuple[Model, Endpoint]:
    """Who serves; raises RequestError, 400 for a name that is no model, 404 when nobody may serve."""
    names = conversation.candidates
    if not names:
        raise RequestError(400, "No models provided")
    models = [_known(catalogue, name) for name in names]
    for model in models[min(scenario.number("skip"), len(models) - 1) :]:
        endpoints = _allowed(catalogue.endpoints(model), conversation.body.get("provider") or {})
        if scenario.has("provider"):
            endpoints = [_forced(catalogue, model, scenario.text("provider"))]
        if endpoints:
            return model, endpoints[0]
    raise RequestError(404, f"No endpoints found for {names[0]}.")


def _known(catalogue: Catalogue, name: str) -> Model:
    model = catalogue.find(name)
    if model is None:
        raise RequestError(400, f"{name} is not a valid model ID")
    return model


def _forced(catalogue: Catalogue, model: Model, name: str) -> Endpoint:
    """A provider that the scenario wants, at the list price when it does not offer the model."""
    for endpoint in catalogue.endpoints(model):
        if providers.is_named(endpoint.provider, name):
            return endpoint
    known = sorted(providers.STOPS_BILLING | providers.BILLS_IN_FULL)
    full = next((provider for provider in known if providers.is_named(provider, name)), name)
    return Endpoint(full, model.pricing)


def _allowed(endpoints: tuple[Endpoint, ...], preference: Mapping[str, Any]) -> list[Endpoint]:
    """The endpoints that `provider {only, ignore, order, allow_fallbacks, max_price}` leaves, best first."""
    left = [endpoint for endpoint in endpoints if _affordable(endpoint, preference.get("max_price") or {})]
    if preference.get("only"):
        left = [endpoint for endpoint in left if _named(endpoint, preference["only"])]
    left = [endpoint for endpoint in left if not _named(endpoint, preference.get("ignore") or ())]
    order = preference.get("order") or ()
    ordered = [endpoint for name in order for endpoint in left if _named(endpoint, (name,))]
    if preference.get("allow_fallbacks") is False:
        return ordered if order else left[:1]
    return [*ordered, *(endpoint for endpoint in left if endpoint not in ordered)]


def _named(endpoint: Endpoint, names: Any) -> bool:
    return any(providers.is_named(endpoint.provider, str(name)) for name in names)


def _affordable(endpoint: Endpoint, ceiling: Mapping[str, Any]) -> bool:
    """Whether the prices lie within `max_price`, which is USD per million tokens (per one for requests)."""
    for key, limit in ceiling.items():
        price = endpoint.pricing.get(key)
        if not isinstance(price, str):
            continue
        try:
            most = Decimal(str(limit))
        except InvalidOperation:
            raise RequestError(400, f"provider.max_price.{key} is not a number") from None
        if Decimal(price) > (most.scaleb(-_PER_MILLION) if key in {"prompt", "completion"} else most):
            return False
    return True
