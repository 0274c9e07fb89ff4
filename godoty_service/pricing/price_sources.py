"""The prices that apply to a call: the listing's, else those of the operator's price file at the call's start."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from godoty_service.pricing.catalogue import Catalogue, CatalogueModel
from godoty_service.pricing.provider_prices import PriceSnapshot
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import PriceEvidence, price


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueSummary:
    """The contents of a catalogue.

    Attributes:
        listing: "priced"; "unpriced": the upstream lists models without prices; "missing": it lists no models, so a
            request may name any.
        models: Number of listed models.
        priced_models: Number of those with a price in the listing, be it one that depends on the call.
        price_rules: Number of model patterns in the operator's price file.
    """

    listing: Literal["priced", "unpriced", "missing"]
    models: int
    priced_models: int
    price_rules: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """The catalogue's price of a call; None: unknown."""

    cost: Decimal | None
    evidence: PriceEvidence | None


def summarize(catalogue: Catalogue) -> CatalogueSummary:
    """Return the contents of a catalogue."""
    priced = sum(model.prices.are_listed for model in catalogue.models.values())
    listed: Literal["priced", "unpriced"] = "priced" if priced else "unpriced"
    return CatalogueSummary(
        listing=listed if catalogue.is_listed else "missing",
        models=len(catalogue.models),
        priced_models=priced,
        price_rules=len(catalogue.rules),
    )


def priced_model(
    catalogue: Catalogue, model: str, *, requested: tuple[str, ...] = (), at: datetime
) -> CatalogueModel | None:
    """Return the entry of a model with its prices; None: it has no entry.

    An upstream that lists no prices may name a model in its answers otherwise than in its listing. If that name has no
    prices, those of the requested model apply, if there was only one.

    Args:
        catalogue: The catalogue in force when the call started.
        model: As for `Catalogue.find`.
        requested: As for `Catalogue.find`.
        at: When the call started.
    """
    found = _with_rules(catalogue, catalogue.find(model, requested=requested), at)
    if (found is not None and found.prices.are_listed) or len(requested) != 1 or catalogue.has_prices:
        return found
    return _with_rules(catalogue, catalogue.find(requested[0]), at) or found


def priced_offers(catalogue: Catalogue, model: str, *, at: datetime) -> tuple[CatalogueModel, ...]:
    """Return every entry whose price may apply to a request, with its prices."""
    offers = (_with_rules(catalogue, offer, at) for offer in catalogue.offers(model))
    return tuple(offer for offer in offers if offer is not None)


def price_call(
    usage: TokenUsage | None,
    catalogue: Catalogue,
    model: CatalogueModel,
    snapshot: PriceSnapshot | None,
    *,
    provider: str | None,
    at: datetime,
) -> Priced:
    """Price a call by its provider's own prices if they are known, else by the catalogue's."""
    own = snapshot.prices.for_provider(provider) if snapshot and provider else None
    # The fees of a variant (`:online` searches) apply with every provider.
    prices = replace(own, uncounted_fees=model.prices.uncounted_fees) if own else model.prices
    evidence = PriceEvidence(
        prices=prices,
        catalogue_hash=catalogue.hash,
        catalogue_time=catalogue.fetch_time,
        provider_prices_hash=snapshot.hash if snapshot and own else None,
        provider_prices_time=snapshot.first_seen if snapshot and own else None,
    )
    return Priced(cost=price(usage, prices, at=at) if usage else None, evidence=evidence)


def _with_rules(catalogue: Catalogue, model: CatalogueModel | None, at: datetime) -> CatalogueModel | None:
    """Return an entry; if the listing has no prices for it, with those of the price file."""
    if model is None or model.prices.are_listed or not catalogue.rules:
        return model
    prices = catalogue.rules.find(model.id, at=at)
    return model if prices is None else replace(model, prices=prices)
