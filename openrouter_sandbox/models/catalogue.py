"""The models on offer: OpenRouter's listing of 2026-08-22, and the lookup of a requested model name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from openrouter_sandbox import decimal_json
from openrouter_sandbox.models import providers

_LISTING = Path(__file__).parents[1] / "data" / "models.json"
_UNLISTED_VARIANTS = frozenset({"nitro", "floor", "exacto", "online", "extended", "thinking"})
_ROUTER_TARGET = "openai/gpt-5-mini"  # serves openrouter/auto and the other routers


@dataclass(frozen=True)
class Model:
    """A listed model as requested.

    Attributes:
        id: The listed id, with a listed variant (`:free`, `:batch`), without an unlisted one.
        slug: The dated canonical slug.
        name: The display name.
        pricing: List prices in USD, decimal strings as listed.
        context_length: Limit of prompt and completion tokens together.
        online: Whether the request used the `:online` variant, which adds a web search.
        parameters: The parameters that the listing has.
        inputs: What a prompt may contain, such as "text" and "image".
    """

    id: str
    slug: str
    name: str
    pricing: Mapping[str, Any]
    context_length: int
    online: bool = False
    parameters: frozenset[str] = frozenset()
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """A provider that serves a model.

    Attributes:
        provider: The provider.
        pricing: Its prices in USD, decimal strings.
        parameters: The parameters that it supports.
        ignored: Those of the model's listing that it does not.
    """

    provider: str
    pricing: Mapping[str, Any]
    parameters: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()


class Catalogue:
    """The model listing, loaded once from the package's data."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = json.loads(_LISTING.read_text("utf-8"))["data"]
        self._by_id = {entry["id"]: entry for entry in self._entries}
        self._by_slug: dict[str, dict[str, Any]] = {}
        for entry in self._entries:
            if ":" not in entry["id"]:  # variants share the slug; it names the plain model
                self._by_slug.setdefault(entry["canonical_slug"], entry)

    def listing(self, *, all_modalities: bool = False) -> dict[str, Any]:
        """Return the body of `GET /models`; models without text output only with `all_modalities`."""
        listed = [
            entry for entry in self._entries if all_modalities or "text" in entry["architecture"]["output_modalities"]
        ]
        return {"data": listed, "total_count": len(listed), "links": {"next": None}}

    def unpriced_listing(self) -> dict[str, Any]:
        """Return the body of `GET /models` as llama.cpp, vLLM and LiteLLM send it: names alone."""
        listed = [{"id": entry["id"], "object": "model", "created": 0, "owned_by": "local"} for entry in self._entries]
        return {"object": "list", "data": listed}

    def entry(self, name: str) -> dict[str, Any] | None:
        """Return the listing's entry for an id or canonical slug."""
        return self._by_id.get(name) or self._by_slug.get(name)

    def find(self, name: str) -> Model | None:
        """Return the model for a requested name: id, slug, variant, `~` alias or router; None if unknown."""
        entry = self.entry(name)
        if entry is not None:
            return self._model(entry)
        base, _, variant = name.rpartition(":")
        entry = self.entry(base) if variant in _UNLISTED_VARIANTS else None
        return self._model(entry, online=variant == "online") if entry is not None else None

    def _model(self, entry: dict[str, Any], *, online: bool = False) -> Model:
        if "alias_target" in entry:
            entry = self._by_id[entry["alias_target"]["slug"]]
        elif entry["id"].startswith("openrouter/"):
            entry = self._by_id[_ROUTER_TARGET]
        return Model(
            entry["id"],
            entry["canonical_slug"],
            entry["name"],
            entry["pricing"],
            entry["context_length"],
            online,
            frozenset(entry["supported_parameters"]),
            tuple(entry["architecture"]["input_modalities"]),
        )

    def endpoints(self, model: Model) -> tuple[Endpoint, ...]:
        """Return the providers that serve a model, top provider first."""
        author = model.id.split("/")[0]
        return tuple(_endpoint(model, provider) for provider in providers.serving(author))

    def endpoints_body(self, name: str) -> dict[str, Any] | None:
        """Return the body of `GET /models/{author}/{slug}/endpoints`; None if the model is unknown."""
        entry, model = self.entry(name), self.find(name)
        if entry is None or model is None:
            return None
        described = {key: entry[key] for key in ("id", "name", "created", "architecture")}
        endpoints = [self._endpoint_body(entry, model, endpoint) for endpoint in self.endpoints(model)]
        return {"data": {**described, "description": "", "endpoints": endpoints}}

    @staticmethod
    def _endpoint_body(entry: dict[str, Any], model: Model, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "name": f"{endpoint.provider} | {model.slug}",
            "model_id": model.id,
            "model_name": model.name,
            "context_length": entry["context_length"],
            "max_completion_tokens": (entry.get("top_provider") or {}).get("max_completion_tokens"),
            "max_prompt_tokens": None,
            "pricing": dict(endpoint.pricing),
            "provider_name": endpoint.provider,
            "tag": providers.tag(endpoint.provider),
            "quantization": "unknown",
            "status": 0,
            "supported_parameters": [each for each in entry["supported_parameters"] if each not in endpoint.ignored],
            "supports_implicit_caching": False,
            "uptime_last_30m": 100,
        }


def _endpoint(model: Model, provider: str) -> Endpoint:
    pricing = _scaled(model.pricing, providers.price_factor(model.id, provider))
    ignored = providers.ignored_parameters(model.id, provider)
    return Endpoint(provider, pricing, model.parameters - ignored, ignored)


def _scaled(pricing: Mapping[str, Any], factor: Decimal) -> dict[str, Any]:
    return {key: _scaled_price(value, factor) for key, value in pricing.items()}


def _scaled_price(value: Any, factor: Decimal) -> Any:
    if isinstance(value, list):
        return [_scaled(override, factor) for override in value]
    if isinstance(value, str) and factor != 1:
        return decimal_json.plain_decimal(decimal_json.EXACT.multiply(Decimal(value), factor))
    return value  # token counts and times of a price override
