"""Checks of a fetched price list, before it replaces the one in force: what a provider cannot mean is rejected."""

from collections.abc import Iterable
from decimal import Decimal

from godoty_service.metering.catalogue import Catalogue, EndpointPrices
from godoty_service.metering.prices import UnitPrices


class ImplausibleList(ValueError):
    """A list that can be read and is not taken: it prices nothing, or far less than the one in force."""


def check_priced(catalogue: Catalogue) -> None:
    """Refuse a listing in which no model has a price.

    Raises:
        ImplausibleList: It is such a listing.
    """
    if not _count(_prices_of(catalogue)):
        raise ImplausibleList(f"none of its {len(catalogue.models)} models has a price")


def check_shrink(catalogue: Catalogue, *, before: Catalogue | None, least_share: float) -> None:
    """Refuse a listing that prices far fewer models than the one before, or makes most of what was charged free.

    Args:
        catalogue: The listing that was fetched.
        before: The newest one that was accepted; None: there is none.
        least_share: The least part of the earlier models that may be left, between 0 and 1.

    Raises:
        ImplausibleList: It is such a listing.
    """
    if before is None:
        return
    for name, above in (("priced", None), ("charged", Decimal(0))):
        now, then = (_count(_prices_of(each), above=above) for each in (catalogue, before))
        if now < then * least_share:
            raise ImplausibleList(f"it has {now} {name} models, and the list before had {then}")


def check_endpoints(prices: EndpointPrices) -> None:
    """Refuse a list of providers in which none has a price: a model that is on offer has one.

    Raises:
        ImplausibleList: It is such a list.
    """
    if not _count(entry.prices for entry in prices.endpoints):
        raise ImplausibleList(f"none of its {len(prices.endpoints)} providers has a price")


def _prices_of(catalogue: Catalogue) -> Iterable[UnitPrices]:
    return (model.prices for model in catalogue.models.values())


def _count(prices: Iterable[UnitPrices], *, above: Decimal | None = None) -> int:
    """Count those whose prompt and completion prices are known, and of them together above an amount."""
    known = ((each.prompt, each.completion) for each in prices)
    sums = [max(prompt, completion) for prompt, completion in known if prompt is not None and completion is not None]
    return sum(above is None or each > above for each in sums)
