"""Price lists at a time: the models of `GET /models`, and each provider's own prices."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any

from godoty_service.pricing import money
from godoty_service.pricing.abilities import Abilities
from godoty_service.pricing.price_file import PriceRules
from godoty_service.pricing.token_usage import whole_number
from godoty_service.pricing.unit_prices import UnitPrices

# Variants that route to a listed model; they have no entry of their own. All but the last change the provider only.
SEARCHING_VARIANT = "online"
UNLISTED_VARIANTS = frozenset({"nitro", "floor", "exacto", SEARCHING_VARIANT})

# Models that search the web unasked and charge for it without a counter: perplexity/sonar was billed 0.00524 for 243
# tokens at 0.000001. The others are models whose purpose is searching.
_SEARCHES_UNASKED = re.compile(r"^perplexity/|-search-preview|-deep-research")
_LIMIT_PARAMETERS = frozenset({"max_tokens", "max_completion_tokens"})
_REASONING_PARAMETERS = frozenset({"reasoning", "reasoning_effort", "include_reasoning"})

# Bounds of a listing; the largest recorded one has 421 models in 0.7 MB.
MAX_BODY = 12 * 1024 * 1024  # bytes; compressed, it fits a document
MAX_ENTRIES = 10_000
_NAME = re.compile(r"[!-~]{1,256}")  # ids are used as keys, labels and paths


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueModel:
    """One entry of the listing, with the prices of its top provider; limits are in tokens."""

    id: str
    canonical_slug: str
    prices: UnitPrices
    context_length: int | None = None
    max_completion_tokens: int | None = None
    supports_max_tokens: bool = True  # otherwise a request's `max_tokens` is ignored
    reasons: bool = False
    alias_target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One provider's offer of one model; `tag` is its name in routing preferences ("deepinfra/fp8")."""

    provider_name: str
    tag: str
    prices: UnitPrices
    context_length: int | None = None
    max_completion_tokens: int | None = None
    supports_max_tokens: bool = True
    reasons: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A listing fetched at `fetch_time`; equal hashes mean equal entries: prices, names and limits.

    Attributes:
        abilities: By id; not hashed, because they change no price.
        rules: The operator's own prices, for models that have none in the listing.
        is_listed: Whether there is a listing; if not, a model may have any name.
        has_prices: Whether any model has a price in the listing, be it one that depends on the call.
    """

    hash: str
    fetch_time: datetime
    models: Mapping[str, CatalogueModel]
    by_slug: Mapping[str, tuple[CatalogueModel, ...]]
    abilities: Mapping[str, Abilities]
    rules: PriceRules = field(default_factory=PriceRules)
    is_listed: bool = True
    has_prices: bool = True

    @classmethod
    def parse(
        cls, body: str | bytes | Mapping[str, Any], *, fetch_time: datetime, rules: PriceRules | None = None
    ) -> "Catalogue":
        """Parse the body of `GET /models`; an entry without an id or prices is omitted.

        If no entry has prices, as in the listings of llama.cpp, vLLM and LiteLLM, none is omitted for lack of them.

        Args:
            body: The body.
            fetch_time: When it was first seen.
            rules: The operator's own prices.

        Raises:
            ValueError: The body is no listing.
            TypeError: A price is a float.
        """
        entries = _data(body)
        if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
            raise ValueError("not a model listing")
        is_priced = any(map(_has_pricing, entries))
        models: dict[str, CatalogueModel] = {}
        abilities: dict[str, Abilities] = {}
        for entry in entries if is_priced else map(_without_pricing, entries):
            if (model := _model(entry)) is not None:
                abilities[model.id] = Abilities.parse(entry)
                models[model.id] = model if models.get(model.id, model) == model else _without_prices(model)
        by_slug: dict[str, tuple[CatalogueModel, ...]] = {}
        for model in models.values():
            by_slug[model.canonical_slug] = (*by_slug.get(model.canonical_slug, ()), model)
        canonical = {model.id: _canonical(model) for model in models.values()}
        return cls(
            hash=_hash([canonical, rules.to_document()] if rules else canonical),
            fetch_time=fetch_time,
            models=models,
            by_slug=by_slug,
            abilities=abilities,
            rules=rules or PriceRules(),
            has_prices=any(model.prices.are_listed for model in models.values()),
        )

    @classmethod
    def unlisted(cls, *, fetch_time: datetime, rules: PriceRules) -> "Catalogue":
        """Return the catalogue of an upstream that has no listing."""
        return cls(
            hash=_hash(["no listing", rules.to_document()]),
            fetch_time=fetch_time,
            models={},
            by_slug={},
            abilities={},
            rules=rules,
            is_listed=False,
            has_prices=False,
        )

    def find(self, model: str, *, requested: str | Sequence[str] = ()) -> CatalogueModel | None:
        """Return the entry whose prices apply to a requested or served model; None: they are not known.

        An id has its own prices. A canonical slug belongs to several ids: it is the plain one's if no variant was
        requested. If one was (`:free`, `:batch`), either may have served, and the price is unknown if they differ.

        Args:
            model: An id, a canonical slug, an alias (`~author/x-latest`, which gives its target), or any of
                them with a variant that is not listed (`:nitro`).
            requested: The models that the request named, best first.
        """
        names = (requested,) if isinstance(requested, str) else requested
        wanted = [found for name in names if (found := self._by_id(name)) is not None]
        listed = self._by_id(model) or self._unlisted_entry(model)
        if listed is not None:  # it may have been requested with a variant that costs more (`:online`)
            return next((found for found in wanted if found.id == listed.id), listed)
        family = self._family(model)
        ids = {member.id for member in family}
        matching = [found for found in wanted if found.id in ids]
        if any(map(_has_variant, matching)):
            return _agreed(family)
        plain = [member for member in family if not _has_variant(member)]
        if matching or plain:
            return _agreed(matching or plain)
        return _agreed(family) if all(map(self.knows, names)) else None

    def listed_name(self, model: str, *, requested: str | Sequence[str] = ()) -> str | None:
        """Return the one id under which a model is shown and summed, by any of its names; None: it has none.

        Args:
            model: As for `find`.
            requested: The models that the request named, best first: of several ids of one slug, one of these wins.
        """
        if (listed := self._by_id(model) or self._unlisted_entry(model)) is not None:
            return listed.id
        family = self._family(model)
        names = (requested,) if isinstance(requested, str) else requested
        wanted = [found.id for name in names if (found := self._by_id(name)) is not None]
        ids = [member.id for member in family]
        matching = [name for name in wanted if name in ids]
        plain = [member.id for member in family if not _has_variant(member)]
        return next(iter([*matching, *plain, *ids]), None)

    def other_names(self, model: str) -> tuple[str, ...]:
        """Return the listed id of a model, and its canonical slug if no other listed model shares it."""
        name = self.listed_name(model)
        if name is None or name not in self.models:
            return ()
        slug = self.models[name].canonical_slug
        unambiguous = self.listed_name(slug) == name and slug not in self.models
        return tuple({name, *((slug,) if unambiguous else ())} - {model})

    def knows(self, model: str) -> bool:
        """Return whether a request may name this model."""
        return bool(self._by_id(model) or self._family(model) or self._unlisted_entry(model))

    def takes(self, model: str, kind: str) -> bool:
        """Return whether a prompt of a model may contain a kind of input; True if the listing does not state it."""
        stated = [self.abilities[offer.id].inputs for offer in self.offers(model) if offer.id in self.abilities]
        return all(kind in inputs for inputs in stated if inputs)

    def offers(self, model: str) -> tuple[CatalogueModel, ...]:
        """Return every entry whose price may apply to a request: an alias has its own beside its target's."""
        found = self.find(model)
        entry = self.models.get(self._listed_name(model) or "")
        return tuple({offer.id: offer for offer in (entry, found) if offer is not None}.values())

    def _unlisted_entry(self, name: str) -> CatalogueModel | None:
        """Return an entry for an unlisted name: there is no listing, or an entry is a pattern such as `openai/*`."""
        if self.has_prices or not _NAME.fullmatch(name) or name in self.by_slug:
            return None
        if self.is_listed and not any("*" in each and fnmatchcase(name, each) for each in self.models):
            return None
        return CatalogueModel(id=name, canonical_slug=name, prices=UnitPrices())

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
        return _searching(model) if searches else model

    def _family(self, name: str) -> tuple[CatalogueModel, ...]:
        """Return the entries of a canonical slug; with a variant, those that have it or only change the provider."""
        slug, _, variants = name.partition(":")
        family = self.by_slug.get(slug, ())
        if not variants:
            return family
        same = tuple(member for member in family if member.id.partition(":")[2] == variants)
        if same or not set(variants.split(":")) <= UNLISTED_VARIANTS:
            return same
        plain = tuple(member for member in family if not _has_variant(member))
        return tuple(map(_searching, plain)) if SEARCHING_VARIANT in variants.split(":") else plain


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPrices:
    """The prices of each provider for one model."""

    model_id: str
    endpoints: tuple[Endpoint, ...]

    @classmethod
    def parse(cls, body: str | bytes | Mapping[str, Any]) -> "EndpointPrices":
        """Parse the body of `GET /models/{author}/{slug}/endpoints`.

        Raises:
            ValueError: The body is no such list.
            TypeError: A price is a float.
        """
        data = _data(body)
        entries = data.get("endpoints") if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
            raise ValueError("not a list of endpoints")
        model_id = _name(data.get("id")) or ""
        found = (_endpoint(entry, model_id) for entry in entries)
        return cls(model_id=model_id, endpoints=tuple(entry for entry in found if entry is not None))

    @property
    def hash(self) -> str:
        """Equal for equal entries (prices, names and limits) in any order."""
        entries = [json.dumps(_canonical(entry), sort_keys=True, ensure_ascii=True) for entry in self.endpoints]
        return _hash(sorted(entries))

    def for_provider(self, name: str) -> UnitPrices | None:
        """Return the prices of a provider by its name or tag; None: it is unknown or has several."""
        prices = [entry.prices for entry in self.endpoints if name in (entry.provider_name, entry.tag)]
        return prices[0] if prices and all(other == prices[0] for other in prices) else None


def _data(body: str | bytes | Mapping[str, Any]) -> Any:
    if not isinstance(body, Mapping) and len(body) > MAX_BODY:
        raise ValueError(f"a listing of more than {MAX_BODY:,} bytes")
    document = body if isinstance(body, Mapping) else money.loads(body)
    return document.get("data") if isinstance(document, Mapping) else None


def _has_variant(model: CatalogueModel) -> bool:
    return ":" in model.id


def _agreed(models: Sequence[CatalogueModel]) -> CatalogueModel | None:
    """Return the first of some entries if all of them have the same prices."""
    return models[0] if models and all(model.prices == models[0].prices for model in models) else None


def _searching(model: CatalogueModel) -> CatalogueModel:
    return replace(model, prices=replace(model.prices, uncounted_fees=True))


def _without_prices(model: CatalogueModel) -> CatalogueModel:
    """Return an entry that is listed twice, with different contents: which one is charged is unknown."""
    return replace(model, prices=UnitPrices(unpriced_keys=frozenset({"prompt", "completion"})))


def _has_pricing(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.get("pricing") is not None


def _without_pricing(entry: Any) -> Any:
    return {**entry, "pricing": {}} if isinstance(entry, Mapping) else None


def _model(entry: Any) -> CatalogueModel | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("pricing"), Mapping):
        return None
    name, top, alias = _name(entry.get("id")), _mapping(entry.get("top_provider")), _mapping(entry.get("alias_target"))
    if name is None:
        return None
    return CatalogueModel(
        id=name,
        canonical_slug=_name(entry.get("canonical_slug")) or name,
        prices=_prices(entry["pricing"], name),
        context_length=_context_length(entry) or _limit(top.get("context_length")),
        max_completion_tokens=_limit(top.get("max_completion_tokens")),
        supports_max_tokens=_supports_max_tokens(entry),
        reasons=_reasons(entry),
        alias_target=_name(alias.get("slug")),
    )


def _context_length(entry: Mapping[str, Any]) -> int | None:
    """Return a model's context in tokens, by the field of OpenRouter, of vLLM or of llama.cpp."""
    trained = _limit(_mapping(entry.get("meta")).get("n_ctx_train"))
    return _limit(entry.get("context_length")) or _limit(entry.get("max_model_len")) or trained


def _endpoint(entry: Any, model_id: str) -> Endpoint | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("pricing"), Mapping):
        return None
    return Endpoint(
        provider_name=_provider_name(entry.get("provider_name")),
        tag=_provider_name(entry.get("tag")),
        prices=_prices(entry["pricing"], model_id),
        context_length=_limit(entry.get("context_length")),
        max_completion_tokens=_limit(entry.get("max_completion_tokens")),
        supports_max_tokens=_supports_max_tokens(entry),
        reasons=_reasons(entry),
    )


def _prices(pricing: Mapping[str, Any], model_id: str) -> UnitPrices:
    prices = UnitPrices.from_listing(pricing)
    return replace(prices, uncounted_fees=bool(prices.web_search and _SEARCHES_UNASKED.search(model_id)))


def _supports_max_tokens(entry: Mapping[str, Any]) -> bool:
    parameters = entry.get("supported_parameters")
    return not isinstance(parameters, list) or _names_any(parameters, _LIMIT_PARAMETERS)


def _reasons(entry: Mapping[str, Any]) -> bool:
    """Return whether a model may reason: it describes how, or supports a parameter for it."""
    parameters = entry.get("supported_parameters")
    has_parameter = isinstance(parameters, list) and _names_any(parameters, _REASONING_PARAMETERS)
    return has_parameter or isinstance(entry.get("reasoning"), Mapping)


def _names_any(parameters: list[Any], wanted: frozenset[str]) -> bool:
    return any(isinstance(each, str) and each in wanted for each in parameters)


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _provider_name(value: Any) -> str:
    """Parse a provider's name, which may contain spaces; anything else is empty."""
    return value if isinstance(value, str) and _name(value.replace(" ", "_")) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _limit(value: Any) -> int | None:
    return whole_number(value) or None


def _canonical(entry: CatalogueModel | Endpoint) -> dict[str, Any]:
    return {each.name: getattr(entry, each.name) for each in fields(entry)} | {"prices": entry.prices.to_document()}


def _hash(entries: Any) -> str:
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(canonical.encode()).hexdigest()
