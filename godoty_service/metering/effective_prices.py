"""The prices that count for a call: the listing's, else those of the operator's price file that hold at its start."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from godoty_service.metering.catalogue import Catalogue, CatalogueModel


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueState:
    """What a catalogue is good for.

    Attributes:
        listing: "priced"; "unpriced": the upstream lists models without prices; "missing": it lists no models at all,
            so any name may be asked for.
        models: Models that are listed.
        priced_models: Those of them that have a price in the listing, be it one that depends.
        price_rules: Model patterns in the operator's price file.
    """

    listing: Literal["priced", "unpriced", "missing"]
    models: int
    priced_models: int
    price_rules: int


def catalogue_state(catalogue: Catalogue) -> CatalogueState:
    """Return what a catalogue is good for."""
    priced = sum(model.prices.are_listed for model in catalogue.models.values())
    listed: Literal["priced", "unpriced"] = "priced" if priced else "unpriced"
    return CatalogueState(
        listing=listed if catalogue.is_listed else "missing",
        models=len(catalogue.models),
        priced_models=priced,
        price_rules=len(catalogue.rules),
    )


def priced_model(
    catalogue: Catalogue, model: str, *, requested: tuple[str, ...] = (), at: datetime
) -> CatalogueModel | None:
    """Return the entry of a model with its prices; None: it has no entry.

    An upstream that lists no prices may name a model in its answers by another name than in its listing. If there are
    no prices under that name, the one model that was requested counts.

    Args:
        catalogue: The one that held when the call started.
        model: As for `Catalogue.find`.
        requested: As for `Catalogue.find`.
        at: The start of the call.
    """
    found = _with_rules(catalogue, catalogue.find(model, requested=requested), at)
    if (found is not None and found.prices.are_listed) or len(requested) != 1 or catalogue.has_prices:
        return found
    return _with_rules(catalogue, catalogue.find(requested[0]), at) or found


def priced_offers(catalogue: Catalogue, model: str, *, at: datetime) -> tuple[CatalogueModel, ...]:
    """Return every entry whose price a request can meet, with its prices."""
    offers = (_with_rules(catalogue, offer, at) for offer in catalogue.offers(model))
    return tuple(offer for offer in offers if offer is not None)


def _with_rules(catalogue: Catalogue, model: CatalogueModel | None, at: datetime) -> CatalogueModel | None:
    """Give an entry without prices those of the price file."""
    if model is None or model.prices.are_listed:
        return model
    prices = catalogue.rules.find(model.id, at=at)
    return model if prices is None else replace(model, prices=prices)
