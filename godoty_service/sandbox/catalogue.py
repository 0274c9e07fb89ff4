"""The models on offer: a real listing of 2026-08-22, and how a requested name finds its model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from godoty_service.sandbox import exact, providers

_LISTING = Path(__file__).parent / "data" / "models.json"
_UNLISTED_VARIANTS = frozenset({"nitro", "floor", "exacto", "online", "extended", "thinking"})
_ROUTED_TO = "openai/gpt-5-mini"  # who serves openrouter/auto and the other routers


@dataclass(frozen=True)
class Model:
    """A listed model, as a request asked for it.

    Attributes:
        id: The listed id, with a listed variant (`:free`, `:batch`), without an unlisted one.
        slug: The dated canonical slug.
        name: The display name.
        pricing: Its list prices, decimal strings as listed.
        context_length: Tokens that it takes, input and answer together.
        online: Whether the request asked for the `:online` variant, a web search.
    """

    id: str
    slug: str
    name: str
    pricing: Mapping[str, Any]
    context_length: int
    online: bool = False


@dataclass(frozen=True)
class Endpoint:
    """A provider's offer of a model, with its own prices as decimal strings."""

    provider: str
    pricing: Mapping[str, Any]


class Catalogue:
    """The listing, read once from the package's data."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = json.loads(_LISTING.read_text("utf-8"))["data"]
        self._by_id = {entry["id"]: entry for entry in self._entries}
        self._by_slug: dict[str, dict[str, Any]] = {}
        for entry in self._entries:
            if ":" not in entry["id"]:  # a slug belongs to its variants too; the plain one is meant
                self._by_slug.setdefault(entry["canonical_slug"], entry)

    def listing(self, *, every_modality: bool = False) -> dict[str, Any]:
        """The body of `GET /models`; models without text output only on request."""
        shown = [
            entry for entry in self._entries if every_modality or "text" in entry["architecture"]["output_modalities"]
        ]
        return {"data": shown, "total_count": len(shown), "links": {"next": None}}

    def entry(self, name: str) -> dict[str, Any] | None:
        """The listed entry of an id or canonical slug, as `/models` shows it."""
        return self._by_id.get(name) or self._by_slug.get(name)

    def find(self, name: str) -> Model | None:
        """The model that serves a requested name: id, slug, variant, `~` alias or router; None when unknown."""
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
            entry = self._by_id[_ROUTED_TO]
        return Model(
            entry["id"],
            entry["canonical_slug"],
            entry["name"],
            entry["pricing"],
            entry["context_length"],
            online,
        )

    def endpoints(self, model: Model) -> tuple[Endpoint, ...]:
        """Who serves a model, the top provider first."""
        author = model.id.split("/")[0]
        return tuple(
            Endpoint(provider, _scaled(model.pricing, providers.price_factor(model.id, provider)))
            for provider in providers.serving(author)
        )

    def endpoints_body(self, name: str) -> dict[str, Any] | None:
        """The body of `GET /models/{author}/{slug}/endpoints`; None when unknown."""
        entry, model = self.entry(name), self.find(name)
        if entry is None or model is None:
            return None
        shown = {key: entry[key] for key in ("id", "name", "created", "architecture")}
        offers = [self._offer(entry, model, endpoint) for endpoint in self.endpoints(model)]
        return {"data": {**shown, "description": "", "endpoints": offers}}

    @staticmethod
    def _offer(entry: dict[str, Any], model: Model, endpoint: Endpoint) -> dict[str, Any]:
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
            "supported_parameters": entry["supported_parameters"],
            "supports_implicit_caching": False,
            "uptime_last_30m": 100,
        }


def _scaled(pricing: Mapping[str, Any], factor: Decimal) -> dict[str, Any]:
    return {key: _scaled_price(value, factor) for key, value in pricing.items()}


def _scaled_price(value: Any, factor: Decimal) -> Any:
    if isinstance(value, list):
        return [_scaled(override, factor) for override in value]
    if isinstance(value, str) and factor != 1:
        return exact.plain(exact.EXACT.multiply(Decimal(value), factor))
    return value  # counts and times of an override
