"""The pricing oracle: prices calls by the catalogue in force when they started. Owns `catalogues`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import ClassVar

import structlog

from godoty_service.aio.caching import TtlCache
from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, ProviderError, provider_message
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.pricing.attached import NOTHING_ATTACHED, AttachedInput, attached_input
from godoty_service.pricing.catalogue import Catalogue, CatalogueModel, Endpoint
from godoty_service.pricing.listing_checks import check_priced, check_shrink
from godoty_service.pricing.money import format_usd, multiply
from godoty_service.pricing.price_sources import Priced, price_call, priced_model, priced_offers
from godoty_service.pricing.provider_prices import ProviderPrices
from godoty_service.pricing.server_tools import NO_SERVER_TOOLS, ServerToolPrices, ServerToolUse
from godoty_service.pricing.stored_catalogues import (
    Upstream,
    decode_or_none,
    decode_with_rules,
    newest_document,
    parse_listing,
    rule_fields,
    stored_fields,
)
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.upper_bound import TEMPLATE_TOKENS, output_limit, upper_bound

log = structlog.get_logger(__name__)

_NO_SUCH_PATH = frozenset({"404", "405", "501"})  # answers of upstreams without a listing
_CACHED_CATALOGUES = 8  # beside the current one; the database has all

Fetch = Callable[[], Awaitable[bytes]]


class PricingOracle:
    """Refreshes the current catalogue, stores all of them, and prices calls by the one that was in force."""

    COLLECTION = "catalogues"
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("seen_time", -1)]),)

    def __init__(
        self,
        collection: Collection,
        *,
        fetch_models: Fetch,
        providers: ProviderPrices,
        upstream: Upstream | None = None,
        server_tools: ServerToolPrices,
        least_share: float = 0.5,
        on_rejected: Callable[[str], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        """Build the oracle.

        Args:
            collection: Stores the catalogues.
            fetch_models: Fetches the body of the provider's model listing.
            providers: The providers' own prices.
            upstream: The provider of the listing, and the operator's own prices for its models.
            server_tools: The prices of the provider's server tools.
            least_share: The smallest accepted ratio of priced models to those of the listing before.
            on_rejected: Called with "models" for each listing that was fetched and rejected.
            clock: Returns the time.
        """
        self._catalogues = collection
        self._fetch_models = fetch_models
        self._providers = providers
        self._upstream = upstream or Upstream()
        self._server_tools = server_tools
        self._least_share = least_share
        self._on_rejected = on_rejected
        self._clock = clock
        self._cache: TtlCache[str, Catalogue | None] = TtlCache(size=_CACHED_CATALOGUES)
        self.current: Catalogue | None = None
        self.seen_time: datetime | None = None

    async def load(self) -> None:
        """Load the newest stored catalogue of this upstream as the current one, with the operator's prices of now."""
        newest = await newest_document(self._catalogues, self._upstream)
        catalogue = await decode_or_none(newest)
        if newest is None or catalogue is None:
            return
        rules = self._upstream.rules
        if rules and catalogue.rules != rules:
            catalogue = replace(await decode_with_rules(newest, rules), fetch_time=self._clock())
            changed = {**newest, **rule_fields(rules), "_id": catalogue.hash, "fetch_time": catalogue.fetch_time}
            await self._catalogues.update_one({"_id": catalogue.hash}, {"$setOnInsert": changed}, upsert=True)
        self._set_current(catalogue, newest["seen_time"])

    async def refresh(self) -> bool:
        """Fetch the catalogue and return whether it was accepted.

        If it cannot be fetched, or is malformed or implausible, the last one stays in force. A listing that the
        database has already was accepted before, by a server or by an operator.
        """
        try:
            body = await self._fetch(accept_missing=False)
        except GodotyError as error:
            message = provider_message(error)
            log.warning("catalogue_fetch_failed", error=str(error), provider_message=message, age_seconds=self.age())
            return False
        try:
            catalogue = await self._parse(body)
            known = await self._known(catalogue)
            if known is None:
                check_shrink(catalogue, before=await self._last_accepted(), least_share=self._least_share)
        except (ValueError, TypeError) as error:
            log.error("price_list_rejected", list="models", error=str(error), age_seconds=self.age())  # noqa: TRY400 - the text is the whole cause
            self._on_rejected("models")
            return False
        await self._store(catalogue, body, known)
        return True

    async def accept(self) -> Catalogue:
        """Fetch the catalogue and accept it even if it is far smaller than the last one: an operator's decision.

        Raises:
            ProviderError: It cannot be fetched.
            ValueError: The body is no listing, or no model in it has a price.
        """
        body = await self._fetch(accept_missing=True)
        catalogue = await self._parse(body)
        await self._store(catalogue, body, await self._known(catalogue))
        return catalogue

    async def _fetch(self, *, accept_missing: bool) -> bytes | None:
        """Fetch the listing; None: the upstream has none, and never had one unless `accept_missing` is set.

        Raises:
            GodotyError: It cannot be fetched.
        """
        try:
            return await self._fetch_models()
        except ProviderError as error:
            if error.metadata.get("provider_code") not in _NO_SUCH_PATH or self._upstream.lists_prices:
                raise
            before = None if accept_missing else await self._last_accepted()
            if before is not None and before.is_listed:
                raise
            return None

    async def _parse(self, body: bytes | None) -> Catalogue:
        """Parse a listing in a thread.

        Raises:
            ValueError: It is no listing, or must have prices and has none.
            TypeError: A price is a float.
        """
        rules = self._upstream.rules
        if body is None:
            return Catalogue.unlisted(fetch_time=self._clock(), rules=rules)
        catalogue = await asyncio.to_thread(parse_listing, body, fetch_time=self._clock(), rules=rules)
        check_priced(catalogue, lists_prices=self._upstream.lists_prices)
        return catalogue

    async def _known(self, catalogue: Catalogue) -> Document | None:
        """Return when an equal catalogue was first fetched, without its body; None: it is not stored."""
        return await self._catalogues.find_one({"_id": catalogue.hash}, fields={"fetch_time": 1})

    async def _store(self, catalogue: Catalogue, body: bytes | None, known: Document | None) -> None:
        query = {"_id": catalogue.hash}
        seen = {"$set": {"seen_time": catalogue.fetch_time}, "$addToSet": {"upstreams": self._upstream.name}}
        if known is None or not await self._catalogues.update_one(query, seen):
            new = await asyncio.to_thread(stored_fields, catalogue, body)  # it compresses the body
            await self._catalogues.update_one(query, {**seen, "$setOnInsert": new}, upsert=True)
        first = replace(catalogue, fetch_time=known["fetch_time"]) if known else catalogue  # equal hash: equal entries
        self._set_current(first, catalogue.fetch_time)

    async def _last_accepted(self) -> Catalogue | None:
        """Return the newest catalogue of this upstream that any server accepted."""
        newest = await newest_document(self._catalogues, self._upstream)
        if newest is None or (self.current is not None and self.current.hash == newest["_id"]):
            return self.current
        return await decode_or_none(newest) or self.current

    async def run(self, interval: float) -> None:
        """Refresh until cancelled, once per interval in seconds."""
        await run_every(interval, self.refresh, failure="catalogue_not_stored")

    def age(self) -> float | None:
        """Return the seconds since the provider last confirmed the catalogue; None: there is none."""
        return (self._clock() - self.seen_time).total_seconds() if self.seen_time else None

    async def prepare(self, models: tuple[str, ...], *, server_tools: bool = False) -> None:
        """Load the providers' own prices of these models, and those of server tools: at most two seconds for each."""
        if server_tools:
            await self._server_tools.prepare()
        found = [self.current.find(model) for model in models] if self.current else []
        await self._providers.prepare({model.id for model in found if model is not None and model.prices.are_listed})

    def bound(
        self,
        models: tuple[str, ...],
        *,
        request_bytes: int,
        max_output_tokens: int | None,
        max_price: Mapping[str, str] | None = None,
        server_tools: Sequence[ServerToolUse] = (),
        attached: AttachedInput = NOTHING_ATTACHED,
    ) -> Decimal | None:
        """Return the upper bound of a request's cost for any of the models; None: it is not known.

        Args:
            models: The model and its fallbacks.
            request_bytes: The length of the request, without images and documents.
            max_output_tokens: The output limit that the request carries.
            max_price: `provider.max_price` as the request carries it; None: it carries none.
            server_tools: What the request may use of server tools.
            attached: What images and documents count, as `attached` returns it.
        """
        tools = self._server_tools.bound(server_tools) if server_tools else NO_SERVER_TOOLS
        if tools is None:
            return None
        catalogue, offers = self.current, self._listed(models)
        if not offers or not all(catalogue and catalogue.offers(model) for model in models):
            return None
        known = [self._providers.newest(offer.id) for offer in offers]
        return upper_bound(
            request_bytes=request_bytes,
            max_output_tokens=max_output_tokens,
            models=offers,
            endpoint_prices=[prices for prices in known if prices is not None],
            max_price=None if max_price is None else _per_token(max_price),
            server_tools=tools,
            attached=attached,
        )

    def unbounded_tools(self, server_tools: Sequence[ServerToolUse]) -> list[str]:
        """Return the server tools that have no finite bound, as errors name them."""
        return [each.label for each in server_tools if self._server_tools.is_unbounded(each)]

    def attached(
        self, models: tuple[str, ...], *, images: Sequence[tuple[int, int]], pages: Sequence[int], parser: str
    ) -> AttachedInput:
        """Return what images and documents count for a request to these models, as `attached_input` does."""
        return attached_input(self._listed(models), images=images, pages=pages, parser=parser)

    def output_limit(self, models: tuple[str, ...], *, request_bytes: int) -> int | None:
        """Return the largest output limit that all of these models accept; None: it is not known."""
        return output_limit(request_bytes=request_bytes, models=self._listed(models))

    def max_price(self, models: tuple[str, ...], *, request_bytes: int) -> dict[str, str]:
        """Return the dearest known prices of these models in the form of OpenRouter's `provider.max_price`.

        They are in US dollars per million tokens, for prompts that this request can have: no dearer provider may serve.
        """
        longest = request_bytes + TEMPLATE_TOKENS
        rates = [rate for offer in self._offers(models) for rate in offer.prices.variants(max_prompt_tokens=longest)]
        dearest = {
            "prompt": [rate.prompt for rate in rates if rate.prompt is not None],
            "completion": [rate.completion for rate in rates if rate.completion is not None],
        }
        return {name: format_usd(multiply(max(prices), 1_000_000)) or "0" for name, prices in dearest.items() if prices}

    def _offers(self, models: tuple[str, ...]) -> list[CatalogueModel | Endpoint]:
        """Return all known offers of these models: the catalogue's and the providers' own."""
        listed = self._listed(models)
        known = [self._providers.newest(offer.id) for offer in listed]
        return [*listed, *(each for prices in known if prices is not None for each in prices.endpoints)]

    def _listed(self, models: tuple[str, ...]) -> list[CatalogueModel]:
        """Return the catalogue's offers of these models, with the prices of now."""
        catalogue, now = self.current, self._clock()
        if catalogue is None:
            return []
        return [offer for model in models for offer in priced_offers(catalogue, model, at=now)]

    def listed_name(self, model: str) -> str | None:
        """Return the listing's id of a requested model; None: it is the requested name, or not known."""
        name = self.current.listed_name(model) if self.current is not None else None
        return None if name == model else name

    def price(
        self,
        usage: TokenUsage | None,
        *,
        served_model: str,
        requested: tuple[str, ...],
        provider: str | None,
        at: datetime,
        catalogue: Catalogue | None,
    ) -> Priced:
        """Price a call.

        Args:
            usage: The usage; None: only the evidence is wanted.
            served_model: The model that answered.
            requested: The requested models in order: they determine the variant.
            provider: The provider that served it: its own prices apply if they are known.
            at: When the call started.
            catalogue: The catalogue in force then.
        """
        model = priced_model(catalogue, served_model, requested=requested, at=at) if catalogue else None
        if catalogue is None or model is None:
            return Priced(cost=None, evidence=None)
        snapshot = self._providers.at(model.id, at) if provider else None
        return price_call(usage, catalogue, model, snapshot, provider=provider, at=at)

    async def load_display_name(self, slug: str, *, requested: tuple[str, ...], catalogue_hash: str | None) -> str:
        """Return the name under which a served model is shown, by the catalogue in force at the call's start.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        catalogue = await self._load(catalogue_hash) if catalogue_hash is not None else self.current
        return display_name(slug, requested=requested, catalogue=catalogue)

    async def price_historical(
        self,
        usage: TokenUsage,
        *,
        served_model: str,
        requested: tuple[str, ...],
        provider: str | None,
        at: datetime,
        catalogue_hash: str | None,
    ) -> Priced:
        """Price a call of any time and any server as `price` does, by the catalogue of this hash; None: it had none.

        If that has no price for it, the operator's prices of now apply, from their own time on.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        catalogue = await self._load(catalogue_hash) if catalogue_hash is not None else None
        model = priced_model(catalogue, served_model, requested=requested, at=at) if catalogue else None
        current = self.current
        if current is not None and current.rules and (model is None or not model.prices.are_listed):
            later = priced_model(current, served_model, requested=requested, at=at)
            if later is not None and later.prices.are_listed:
                catalogue, model = current, later
        if catalogue is None or model is None:
            return Priced(cost=None, evidence=None)
        snapshot = await self._providers.load_at(model.id, at) if provider and catalogue.has_prices else None
        return price_call(usage, catalogue, model, snapshot, provider=provider, at=at)

    async def _load(self, catalogue_hash: str) -> Catalogue | None:
        if self.current is not None and self.current.hash == catalogue_hash:
            return self.current
        catalogue = self._cache.get(catalogue_hash)
        if catalogue is None:
            catalogue = await self._cache.load(catalogue_hash, partial(self._read, catalogue_hash))
        if catalogue is None:  # another server may store it later
            self._cache.forget(catalogue_hash)
        return catalogue

    async def _read(self, catalogue_hash: str) -> Catalogue | None:
        return await decode_or_none(await self._catalogues.find_one({"_id": catalogue_hash}))

    def _set_current(self, catalogue: Catalogue, seen_time: datetime) -> None:
        if self.current is not None and self.current.hash != catalogue.hash:
            self._cache.put(self.current.hash, self.current)
        self.current = catalogue
        self.seen_time = seen_time


def _per_token(max_price: Mapping[str, str]) -> dict[str, Decimal]:
    """Return the prices of `provider.max_price` per token."""
    return {name: Decimal(max_price[name]).scaleb(-6) for name in ("prompt", "completion") if name in max_price}


def display_name(slug: str, *, requested: tuple[str, ...], catalogue: Catalogue | None) -> str:
    """Return the one name of a served model: the listing's id, or an unlisted model's provider name.

    Args:
        slug: The name that the provider sent.
        requested: The requested models in order: of several ids of one slug, one of these wins.
        catalogue: The catalogue in force when the call started.
    """
    return (catalogue.listed_name(slug, requested=requested) if catalogue is not None else None) or slug
