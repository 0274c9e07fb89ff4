"""The pricing oracle: what a call cost by the catalogue in force when it started. Owns `catalogues`."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import structlog
from bson.binary import Binary

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, provider_message
from godoty_service.metering.bounds import TEMPLATE_TOKENS, output_limit, upper_bound
from godoty_service.metering.call import PriceEvidence
from godoty_service.metering.catalogue import Catalogue, CatalogueModel, Endpoint
from godoty_service.metering.listing_checks import check_priced, check_shrink
from godoty_service.metering.money import format_usd, multiply
from godoty_service.metering.prices import price
from godoty_service.metering.provider_prices import ProviderPrices, SeenPrices
from godoty_service.metering.usage import TokenUsage
from godoty_service.mongo import Collection, Document, Index

log = structlog.get_logger(__name__)

INDEXES = (Index(keys=[("seen_time", -1)]),)
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
        on_rejected: Callable[[str], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        """Build the oracle.

        Args:
            collection: Where catalogues are kept.
            fetch_models: Gets the body of the provider's model listing.
            providers: The providers' own prices.
            least_share: The least part of the priced models that a listing may have left of the one before.
            on_rejected: Called with "models" for each listing that was fetched and not taken.
            clock: Tells the time.
        """
        self._catalogues = collection
        self._fetch_models = fetch_models
        self._providers = providers
        self._least_share = least_share
        self._on_rejected = on_rejected
        self._clock = clock
        self._by_hash: dict[str, Catalogue] = {}
        self.current: Catalogue | None = None
        self.seen_time: datetime | None = None

    async def load(self) -> None:
        """Take up the newest catalogue that was kept."""
        newest = await _newest(self._catalogues)
        catalogue = await _readable(newest)
        if newest is not None and catalogue is not None:
            self._remember(catalogue, newest["seen_time"])

    async def refresh(self) -> bool:
        """Fetch the catalogue and return whether it was taken.

        Where it cannot be fetched or read, or is one that the provider cannot mean, the last one stays. A listing
        that the database has already was accepted before, by a server or by an operator.
        """
        try:
            body = await self._fetch_models()
        except GodotyError as error:
            said = provider_message(error)
            log.warning("catalogue_fetch_failed", error=str(error), provider_message=said, age_seconds=self.age())
            return False
        try:
            catalogue = await asyncio.to_thread(Catalogue.parse, body, fetch_time=self._clock())
            check_priced(catalogue)
            known = await self._catalogues.find_one({"_id": catalogue.hash})
            if known is None:
                check_shrink(catalogue, before=await self._accepted(), least_share=self._least_share)
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
        body = await self._fetch_models()
        catalogue = await asyncio.to_thread(Catalogue.parse, body, fetch_time=self._clock())
        check_priced(catalogue)
        await self._store(catalogue, body, await self._catalogues.find_one({"_id": catalogue.hash}))
        return catalogue

    async def _store(self, catalogue: Catalogue, body: bytes, known: Document | None) -> None:
        await self._catalogues.update_one(
            {"_id": catalogue.hash},
            {
                "$set": {"seen_time": catalogue.fetch_time},
                "$setOnInsert": {"fetch_time": catalogue.fetch_time, "body": Binary(zlib.compress(body))},
            },
            upsert=True,
        )
        first = replace(catalogue, fetch_time=known["fetch_time"]) if known else catalogue  # equal hash: equal entries
        self._remember(first, catalogue.fetch_time)

    async def _accepted(self) -> Catalogue | None:
        """Return the newest catalogue that any server has taken."""
        newest = await _newest(self._catalogues)
        if newest is None or (self.current is not None and self.current.hash == newest["_id"]):
            return self.current
        return await _readable(newest) or self.current

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
        await self._providers.prepare({model.id for model in found if model is not None})

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
        offers = [offer for model in models for offer in catalogue.offers(model)] if catalogue else []
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
        catalogue = self.current
        offers = [offer for model in models for offer in catalogue.offers(model)] if catalogue else []
        return output_limit(request_bytes=request_bytes, models=offers)

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
        catalogue = self.current
        listed = [offer for model in models for offer in catalogue.offers(model)] if catalogue else []
        known = [self._providers.newest(offer.id) for offer in listed]
        return [*listed, *(each for prices in known if prices is not None for each in prices.endpoints)]

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
        model = catalogue.find(served_model, requested=requested) if catalogue else None
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
        catalogue_hash: str,
    ) -> Priced:
        """Price a call of any time and any server, as `price` does; its catalogue is found by its hash.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        catalogue = await self._recall(catalogue_hash)
        model = catalogue.find(served_model, requested=requested) if catalogue else None
        if catalogue is None or model is None:
            return Priced(cost=None, evidence=None)
        seen = await self._providers.recall(model.id, at) if provider else None
        return _priced(usage, catalogue, model, seen, provider=provider, at=at)

    async def _recall(self, catalogue_hash: str) -> Catalogue | None:
        if catalogue_hash not in self._by_hash:
            found = await self._catalogues.find_one({"_id": catalogue_hash})
            catalogue = await _readable(found)
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


async def newest_catalogue(collection: Collection) -> Catalogue | None:
    """Read the newest catalogue that some server kept; None: none did yet."""
    newest = await _newest(collection)
    return None if newest is None else await _read(newest)


async def _newest(collection: Collection) -> Document | None:
    return await collection.find_one({}, sort=[("seen_time", -1)])


async def _readable(document: Document | None) -> Catalogue | None:
    """Parse a stored catalogue; one that cannot be read is as good as none."""
    try:
        return None if document is None else await _read(document)
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        log.warning("stored_catalogue_unreadable", error=str(error))
        return None


async def _read(document: Document) -> Catalogue:
    """Parse a stored catalogue beside the event loop. Its key is its hash, whatever this version would compute."""
    body, fetch_time = document["body"], document["fetch_time"]
    if not isinstance(body, bytes) or not isinstance(fetch_time, datetime):
        raise TypeError("not a kept catalogue")
    parsed = await asyncio.to_thread(lambda: Catalogue.parse(zlib.decompress(body), fetch_time=fetch_time))
    return replace(parsed, hash=document["_id"])
