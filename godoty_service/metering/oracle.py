"""The pricing oracle: what a call cost by the catalogue in force when it started. Owns `catalogues`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import structlog

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, ProviderError, provider_message
from godoty_service.metering.bounds import TEMPLATE_TOKENS, output_limit, upper_bound
from godoty_service.metering.call import PriceEvidence
from godoty_service.metering.catalogue import Catalogue, CatalogueModel, Endpoint
from godoty_service.metering.effective_prices import priced_model, priced_offers
from godoty_service.metering.listing_checks import check_priced, check_shrink
from godoty_service.metering.money import format_usd, multiply
from godoty_service.metering.prices import price
from godoty_service.metering.provider_prices import ProviderPrices, SeenPrices
from godoty_service.metering.stored_catalogues import (
    Upstream,
    catalogue_with_rules,
    newest_document,
    price_rules,
    readable_catalogue,
    stored_listing,
)
from godoty_service.metering.usage import TokenUsage
from godoty_service.mongo import Collection, Document, Index

log = structlog.get_logger(__name__)

INDEXES = (Index(keys=[("seen_time", -1)]),)
_NO_SUCH_PATH = frozenset({"404", "405", "501"})  # what an upstream without a listing answers
_KEPT_CATALOGUES = 8  # in memory; all are in the database

Fetch = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """What the catalogue makes of a call. Unknown is None."""

    cost: Decimal | None
    evidence: PriceEvidence | None


class Oracle:
    """Holds the current catalogue, remembers the earlier ones, and prices calls with the one that held."""

    def __init__(
        self,
        collection: Collection,
        *,
        fetch_models: Fetch,
        providers: ProviderPrices,
        least_share: float = 0.5,
        upstream: Upstream | None = None,
        on_rejected: Callable[[str], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        """Build the oracle.

        Args:
            collection: Where catalogues are kept.
            fetch_models: Gets the body of the provider's model listing.
            providers: The providers' own prices.
            least_share: The least part of the priced models that a listing may have left of the one before.
            upstream: Whose listing it is, and the operator's own prices for its models.
            on_rejected: Called with "models" for each listing that was fetched and not taken.
            clock: Tells the time.
        """
        self._catalogues = collection
        self._fetch_models = fetch_models
        self._providers = providers
        self._least_share = least_share
        self._upstream = upstream or Upstream()
        self._on_rejected = on_rejected
        self._clock = clock
        self._by_hash: dict[str, Catalogue] = {}
        self.current: Catalogue | None = None
        self.seen_time: datetime | None = None

    async def load(self) -> None:
        """Take up the newest catalogue that was kept; if there is a price file, with its prices."""
        newest = await newest_document(self._catalogues, self._upstream)
        catalogue = await readable_catalogue(newest)
        if newest is None or catalogue is None:
            return
        rules = self._upstream.rules
        if not rules or catalogue.rules == rules:
            self._remember(catalogue, newest["seen_time"])
            return
        catalogue = replace(await catalogue_with_rules(newest, rules), fetch_time=self._clock())
        stored = {**newest, **price_rules(catalogue), "_id": catalogue.hash, "fetch_time": catalogue.fetch_time}
        await self._catalogues.update_one({"_id": catalogue.hash}, {"$setOnInsert": stored}, upsert=True)
        self._remember(catalogue, newest["seen_time"])

    async def refresh(self) -> bool:
        """Fetch the catalogue and return whether it was taken.

        Where it cannot be fetched or read, or is one that the provider cannot mean, the last one stays. A listing
        that the database has already was accepted before, by a server or by an operator.
        """
        before = await self._accepted()
        try:
            body = await self._fetch(may_be_missing=before is None or not before.is_listed)
        except GodotyError as error:
            said = provider_message(error)
            log.warning("catalogue_fetch_failed", error=str(error), provider_message=said, age_seconds=self.age())
            return False
        try:
            catalogue = await self._parsed(body)
            known = await self._catalogues.find_one({"_id": catalogue.hash})
            if known is None:
                check_shrink(catalogue, before=before, least_share=self._least_share)
        except (ValueError, TypeError) as error:
            log.error("price_list_rejected", list="models", error=str(error), age_seconds=self.age())  # noqa: TRY400 - the text says it all
            self._on_rejected("models")
            return False
        await self._store(catalogue, body, known)
        return True

    async def accept(self) -> Catalogue:
        """Fetch the catalogue and take it, however much smaller than the last one it is: an operator's decision.

        Raises:
            ProviderError: It cannot be fetched.
            ValueError: It is no listing, or no model in it has a price.
        """
        body = await self._fetch(may_be_missing=True)
        catalogue = await self._parsed(body)
        await self._store(catalogue, body, await self._catalogues.find_one({"_id": catalogue.hash}))
        return catalogue

    async def _fetch(self, *, may_be_missing: bool) -> bytes | None:
        """Fetch the listing; None: the upstream has none.

        Raises:
            GodotyError: It cannot be fetched, or is missing and may not be.
        """
        try:
            return await self._fetch_models()
        except ProviderError as error:
            missing = error.metadata.get("provider_code") in _NO_SUCH_PATH
            if not missing or not may_be_missing or self._upstream.needs_prices:
                raise
            return None

    async def _parsed(self, body: bytes | None) -> Catalogue:
        """Parse a listing beside the event loop.

        Raises:
            ValueError: It is no listing, or no model in it has a price.
            TypeError: A price is a float.
        """
        rules = self._upstream.rules
        if body is None:
            return Catalogue.unlisted(fetch_time=self._clock(), rules=rules)
        catalogue = await asyncio.to_thread(Catalogue.parse, body, fetch_time=self._clock(), rules=rules)
        check_priced(catalogue, needs_prices=self._upstream.needs_prices)
        return catalogue

    async def _store(self, catalogue: Catalogue, body: bytes | None, known: Document | None) -> None:
        await self._catalogues.update_one(
            {"_id": catalogue.hash},
            {
                "$set": {"seen_time": catalogue.fetch_time, "upstream": self._upstream.name},
                "$setOnInsert": stored_listing(catalogue, body),
            },
            upsert=True,
        )
        first = replace(catalogue, fetch_time=known["fetch_time"]) if known else catalogue  # equal hash: equal entries
        self._remember(first, catalogue.fetch_time)

    async def _accepted(self) -> Catalogue | None:
        """Return the newest catalogue that any server has taken."""
        newest = await newest_document(self._catalogues, self._upstream)
        if newest is None or (self.current is not None and self.current.hash == newest["_id"]):
            return self.current
        return await readable_catalogue(newest) or self.current

    async def run(self, interval: float) -> None:
        """Refresh for ever, every so many seconds."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.refresh()
            except GodotyError as error:
                log.warning("catalogue_not_kept", error=str(error))

    def age(self) -> float | None:
        """Tell how many seconds ago the provider last confirmed the catalogue; None: there is none."""
        return (self._clock() - self.seen_time).total_seconds() if self.seen_time else None

    async def prepare(self, models: tuple[str, ...]) -> None:
        """Have the providers' own prices of these models at hand, if they come within two seconds."""
        found = [self.current.find(model) for model in models] if self.current else []
        await self._providers.prepare({model.id for model in found if model is not None and model.prices.are_listed})

    def bound(
        self,
        models: tuple[str, ...],
        *,
        request_bytes: int,
        max_output_tokens: int | None,
        max_price: Mapping[str, str] | None = None,
    ) -> Decimal | None:
        """Return what a request can cost at the most, whichever of the models serves it; None: not known.

        Args:
            models: The model and its fallbacks.
            request_bytes: The length of the request.
            max_output_tokens: The limit that the request carries.
            max_price: `provider.max_price` as the request carries it; None: it carries none.
        """
        catalogue = self.current
        offers = self._listed(models)
        if not offers or not all(catalogue and catalogue.offers(model) for model in models):
            return None
        known = [self._providers.newest(offer.id) for offer in offers]
        return upper_bound(
            request_bytes=request_bytes,
            max_output_tokens=max_output_tokens,
            models=offers,
            endpoint_prices=[prices for prices in known if prices is not None],
            max_price=None if max_price is None else _per_token(max_price),
        )

    def output_limit(self, models: tuple[str, ...], *, request_bytes: int) -> int | None:
        """Tell the most output tokens that a request may ask all of these models for; None: not known."""
        return output_limit(request_bytes=request_bytes, models=self._listed(models))

    def ceiling(self, models: tuple[str, ...], *, request_bytes: int) -> dict[str, str]:
        """Return the dearest known prices of these models, as OpenRouter's `provider.max_price` takes them.

        In US dollars for a million tokens, of a prompt that such a request can have: no dearer provider may serve.
        """
        most = request_bytes + TEMPLATE_TOKENS
        rates = [rate for offer in self._offers(models) for rate in offer.prices.states(max_prompt_tokens=most)]
        dearest = {
            "prompt": [rate.prompt for rate in rates if rate.prompt is not None],
            "completion": [rate.completion for rate in rates if rate.completion is not None],
        }
        return {name: format_usd(multiply(max(prices), 1_000_000)) or "0" for name, prices in dearest.items() if prices}

    def _offers(self, models: tuple[str, ...]) -> list[CatalogueModel | Endpoint]:
        """Tell all offers of these models that are known: the list's, and the providers' own."""
        listed = self._listed(models)
        known = [self._providers.newest(offer.id) for offer in listed]
        return [*listed, *(each for prices in known if prices is not None for each in prices.endpoints)]

    def _listed(self, models: tuple[str, ...]) -> list[CatalogueModel]:
        """Return the list's offers of these models, with the prices that hold now."""
        catalogue, now = self.current, self._clock()
        if catalogue is None:
            return []
        return [offer for model in models for offer in priced_offers(catalogue, model, at=now)]

    def listed_name(self, model: str) -> str | None:
        """Return the listing's id of a requested model, where that is another name than its own."""
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
            usage: What was used; None: only the evidence is wanted.
            served_model: Who answered.
            requested: The models that were asked for, in order: they tell variants apart.
            provider: Who served it: his own price counts where it is known.
            at: When the call started.
            catalogue: The one that held then.
        """
        model = priced_model(catalogue, served_model, requested=requested, at=at) if catalogue else None
        if catalogue is None or model is None:
            return Priced(cost=None, evidence=None)
        seen = self._providers.held(model.id, at) if provider else None
        return _priced(usage, catalogue, model, seen, provider=provider, at=at)

    async def served_past(self, slug: str, *, requested: tuple[str, ...], catalogue_hash: str | None) -> str:
        """Return the name under which a model that served is shown, by the catalogue of the call's start.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        catalogue = await self._recall(catalogue_hash) if catalogue_hash is not None else self.current
        return shown_name(slug, requested=requested, catalogue=catalogue)

    async def price_past(
        self,
        usage: TokenUsage,
        *,
        served_model: str,
        requested: tuple[str, ...],
        provider: str | None,
        at: datetime,
        catalogue_hash: str | None,
    ) -> Priced:
        """Price a call of any time and any server, as `price` does; its catalogue is found by its hash.

        Where that has no price for it, the operator's prices of today count, if they hold since the call's start.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        catalogue = await self._recall(catalogue_hash) if catalogue_hash is not None else None
        model = priced_model(catalogue, served_model, requested=requested, at=at) if catalogue else None
        if (model is None or not model.prices.are_listed) and (current := self.current) is not None:
            later = priced_model(current, served_model, requested=requested, at=at)
            if later is not None and later.prices.are_listed and len(current.rules):
                catalogue, model = current, later
        if catalogue is None or model is None:
            return Priced(cost=None, evidence=None)
        seen = await self._providers.recall(model.id, at) if provider and catalogue.has_prices else None
        return _priced(usage, catalogue, model, seen, provider=provider, at=at)

    async def _recall(self, catalogue_hash: str) -> Catalogue | None:
        if catalogue_hash not in self._by_hash:
            found = await self._catalogues.find_one({"_id": catalogue_hash})
            catalogue = await readable_catalogue(found)
            if catalogue is None:
                return None
            self._keep(catalogue)
        return self._by_hash[catalogue_hash]

    def _remember(self, catalogue: Catalogue, seen_time: datetime) -> None:
        self.current = catalogue
        self.seen_time = seen_time
        self._keep(catalogue)

    def _keep(self, catalogue: Catalogue) -> None:
        self._by_hash[catalogue.hash] = catalogue
        for old in list(self._by_hash)[:-_KEPT_CATALOGUES]:
            if self.current is None or old != self.current.hash:
                del self._by_hash[old]


def _per_token(max_price: Mapping[str, str]) -> dict[str, Decimal]:
    """Return the prices of `provider.max_price` for one token."""
    return {name: Decimal(max_price[name]).scaleb(-6) for name in ("prompt", "completion") if name in max_price}


def shown_name(slug: str, *, requested: tuple[str, ...], catalogue: Catalogue | None) -> str:
    """Return the one name of a model that served: the listing's id, or the provider's own name of an unlisted one.

    Args:
        slug: The name that the provider sent.
        requested: The models that were asked for, in order: of several ids of one slug, one of these is meant.
        catalogue: The one that held when the call started.
    """
    return (catalogue.listed_name(slug, requested=requested) if catalogue is not None else None) or slug


def _priced(
    usage: TokenUsage | None,
    catalogue: Catalogue,
    model: CatalogueModel,
    seen: SeenPrices | None,
    *,
    provider: str | None,
    at: datetime,
) -> Priced:
    """Price a call by what held: its provider's own prices where they are known, else the catalogue's."""
    own = seen.prices.for_provider(provider) if seen and provider else None
    # What a variant adds (`:online` searches) holds whoever serves it.
    prices = replace(own, uncounted_fees=model.prices.uncounted_fees) if own else model.prices
    evidence = PriceEvidence(
        prices=prices,
        catalogue_hash=catalogue.hash,
        catalogue_time=catalogue.fetch_time,
        provider_prices_hash=seen.hash if seen and own else None,
        provider_prices_time=seen.first_seen if seen and own else None,
    )
    return Priced(cost=price(usage, prices, at=at) if usage else None, evidence=evidence)
