"""What OpenRouter offers, at a time: the models of `GET /models` and each provider's own prices."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from godoty_service.metering import money
from godoty_service.metering.prices import UnitPrices
from godoty_service.metering.usage import whole_number

# Ways to route to a listed model; they have no entry of their own. All but the last change only who serves.
SEARCHING_VARIANT = "online"
UNLISTED_VARIANTS = frozenset({"nitro", "floor", "exacto", SEARCHING_VARIANT})

# They search the web unasked and charge for it without a counter: perplexity/sonar was billed 0.00524 for 243
# tokens at 0.000001. The others are the ones whose whole purpose it is.
_SEARCHES_UNASKED = re.compile(r"^perplexity/|-search-preview|-deep-research")
_LIMIT_PARAMETERS = frozenset({"max_tokens", "max_completion_tokens"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueModel:
    """One entry of the listing: its prices are those of its top provider; limits are in tokens."""

    id: str
    canonical_slug: str
    prices: UnitPrices
    context_length: int | None = None
    max_completion_tokens: int | None = None
    supports_max_tokens: bool = True  # otherwise a request's `max_tokens` is ignored
    alias_target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One provider's offer of one model; `tag` is the name that routing takes ("deepinfra/fp8")."""

    provider_name: str
    tag: str
    prices: UnitPrices
    context_length: int | None = None
    max_completion_tokens: int | None = None
    supports_max_tokens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A listing as it was at `fetch_time`; equal `hash` means equal entries: prices, names and limits."""

    hash: str
    fetch_time: datetime
    models: Mapping[str, CatalogueModel]
    by_slug: Mapping[str, tuple[CatalogueModel, ...]]

    @classmethod
    def parse(cls, body: str | bytes | Mapping[str, Any], *, fetch_time: datetime) -> "Catalogue":
        """Read the body of `GET /models`; an entry without an id or prices is left out.

        Raises:
            ValueError: where the body is no listing.
            TypeError: where a price is a float.
        """
        entries = _data(body)
        if not isinstance(entries, list):
            raise ValueError("not a model listing")  # noqa: TRY004 - the body is wrong, not the argument
        models = {model.id: model for entry in entries if (model := _model(entry)) is not None}
        by_slug: dict[str, tuple[CatalogueModel, ...]] = {}
        for model in models.values():
            by_slug[model.canonical_slug] = (*by_slug.get(model.canonical_slug, ()), model)
        told = {model.id: _told(model) for model in models.values()}
        return cls(hash=_hash(told), fetch_time=fetch_time, models=models, by_slug=by_slug)

    def find(self, model: str, *, requested: str | Sequence[str] = ()) -> CatalogueModel | None:
        """Find what was asked for, or what served, under any of its names.

        Args:
            model: an id, a canonical slug, an alias (`~author/x-latest`, which gives its target), or any of
                them with a variant that is not listed (`:nitro`).
            requested: the models that the request named, best first. One slug belongs to several ids, and the
                provider may name either: what was asked for (`:free`, `:batch`) then decides.
        """
        names = (requested,) if isinstance(requested, str) else requested
        asked = [found for name in names if (found := self._by_id(name)) is not None]
        same_id = [found for found in asked if found.id == model]
        same_slug = [found for found in asked if found.canonical_slug == model]
        return next(iter([*same_id, *same_slug]), None) or self._by_id(model) or self._by_slug(model)

    def knows(self, model: str) -> bool:
        """Tell whether a request may name this model."""
        return self.find(model) is not None

    def offers(self, model: str) -> tuple[CatalogueModel, ...]:
        """Give every entry whose price a request can meet: an alias has its own beside its target's."""
        found = self.find(model)
        entry = self.models.get(self._listed_name(model) or "")
        return tuple({offer.id: offer for offer in (entry, found) if offer is not None}.values())

    def _listed_name(self, name: str) -> str | None:
        while name and name not in self.models:
            name, _, variant = name.rpartition(":")
            if variant not in UNLISTED_VARIANTS:
                return None
        return name or None

    def _by_id(self, name: str) -> CatalogueModel | None:
        listed = self._listed_name(name)
        if listed is None:
            return None
        model = self.models[listed]
        model = self.models.get(model.alias_target or "", model)
        searches = SEARCHING_VARIANT in name.removeprefix(listed).split(":")
        return replace(model, prices=replace(model.prices, uncounted_fees=True)) if searches else model

    def _by_slug(self, name: str) -> CatalogueModel | None:
        slug, _, variant = name.partition(":")
        family = self.by_slug.get(slug, ())
        same = [model for model in family if model.id.partition(":")[2] == variant] or (() if variant else family)
        return same[0] if same and all(model.prices == same[0].prices for model in same) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPrices:
    """What each provider asks for one model."""

    model_id: str
    endpoints: tuple[Endpoint, ...]

    @classmethod
    def parse(cls, body: str | bytes | Mapping[str, Any]) -> "EndpointPrices":
        """Read the body of `GET /models/{author}/{slug}/endpoints`.

        Raises:
            ValueError: where the body is no such list.
            TypeError: where a price is a float.
        """
        data = _data(body)
        if not isinstance(data, Mapping) or not isinstance(data.get("endpoints"), list):
            raise ValueError("not a list of endpoints")  # noqa: TRY004 - the body is wrong, not the argument
        model_id = str(data.get("id") or "")
        found = (_endpoint(entry, model_id) for entry in data["endpoints"])
        return cls(model_id=model_id, endpoints=tuple(entry for entry in found if entry is not None))

    @property
    def hash(self) -> str:
        """Equal for equal entries (prices, names and limits), whatever their order."""
        entries = [json.dumps(_told(entry), sort_keys=True, ensure_ascii=True) for entry in self.endpoints]
        return _hash(sorted(entries))

    def for_provider(self, name: str) -> UnitPrices | None:
        """Give the prices of a provider, by its name or tag; `None` where it is unknown or has several."""
        prices = [entry.prices for entry in self.endpoints if name in (entry.provider_name, entry.tag)]
        return prices[0] if prices and all(other == prices[0] for other in prices) else None


def _data(body: str | bytes | Mapping[str, Any]) -> Any:
    document = body if isinstance(body, Mapping) else money.loads(body)
    return document.get("data") if isinstance(document, Mapping) else None


def _model(entry: Any) -> CatalogueModel | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("pricing"), Mapping) or not entry.get("id"):
        return None
    name, top, alias = (
        str(entry["id"]),
        _mapping(entry.get("top_provider")),
        _mapping(entry.get("alias_target")),
    )
    return CatalogueModel(
        id=name,
        canonical_slug=str(entry.get("canonical_slug") or name),
        prices=_prices(entry["pricing"], name),
        context_length=_limit(entry.get("context_length")) or _limit(top.get("context_length")),
        max_completion_tokens=_limit(top.get("max_completion_tokens")),
        supports_max_tokens=_supports_max_tokens(entry),
        alias_target=str(alias["slug"]) if alias.get("slug") else None,
    )


def _endpoint(entry: Any, model_id: str) -> Endpoint | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("pricing"), Mapping):
        return None
    return Endpoint(
        provider_name=str(entry.get("provider_name") or ""),
        tag=str(entry.get("tag") or ""),
        prices=_prices(entry["pricing"], model_id),
        context_length=_limit(entry.get("context_length")),
        max_completion_tokens=_limit(entry.get("max_completion_tokens")),
        supports_max_tokens=_supports_max_tokens(entry),
    )


def _prices(pricing: Mapping[str, Any], model_id: str) -> UnitPrices:
    prices = UnitPrices.from_listing(pricing)
    return replace(prices, uncounted_fees=bool(prices.web_search and _SEARCHES_UNASKED.search(model_id)))


def _supports_max_tokens(entry: Mapping[str, Any]) -> bool:
    parameters = entry.get("supported_parameters")
    return not isinstance(parameters, list) or bool(_LIMIT_PARAMETERS.intersection(parameters))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _limit(value: Any) -> int | None:
    return whole_number(value) or None


def _told(entry: CatalogueModel | Endpoint) -> dict[str, Any]:
    return {field.name: getattr(entry, field.name) for field in fields(entry)} | {"prices": entry.prices.to_document()}


def _hash(entries: Any) -> str:
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(canonical.encode()).hexdigest()
