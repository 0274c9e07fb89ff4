"""Checks of a fetched price list before it replaces the one in force: an implausible list is rejected."""

from collections.abc import Iterable
from decimal import Decimal

from godoty_service.pricing.catalogue import Catalogue, EndpointPrices
from godoty_service.pricing.unit_prices import UnitPrices


class ImplausibleList(ValueError):
    """A list that is well-formed and rejected: it prices nothing, or far less than the one in force."""


def check_priced(catalogue: Catalogue, *, lists_prices: bool) -> None:
    """Reject a listing in which no model has a price.

    Args:
        catalogue: The fetched listing.
        lists_prices: Whether the upstream always lists prices, as OpenRouter does. Others may list models without any.

    Raises:
        ImplausibleList: The listing is rejected.
    """
    is_unpriced = bool(catalogue.models) and not catalogue.has_prices
    if not _count(_prices_of(catalogue)) and (lists_prices or not is_unpriced):
        raise ImplausibleList(f"none of its {len(catalogue.models)} models has a price")


def check_shrink(catalogue: Catalogue, *, before: Catalogue | None, least_share: float) -> None:
    """Reject a listing that prices far fewer models than the one before, or makes most charged models free.

    Args:
        catalogue: The fetched listing.
        before: The newest accepted one; None: there is none.
        least_share: The smallest accepted ratio to the earlier number of models, between 0 and 1.

    Raises:
        ImplausibleList: The listing is rejected.
    """
    if before is None:
        return
    for name, above in (("priced", None), ("charged", Decimal(0))):
        now, then = (_count(_prices_of(each), above=above) for each in (catalogue, before))
        if now < then * least_share:
            raise ImplausibleList(f"it has {now} {name} models, and the list before had {then}")


def check_endpoints(prices: EndpointPrices) -> None:
    """Reject a list of providers in which none has a price: a model that is offered has one.

    Raises:
        ImplausibleList: The list is rejected.
    """
    if not _count(entry.prices for entry in prices.endpoints):
        raise ImplausibleList(f"none of its {len(prices.endpoints)} providers has a price")


def _prices_of(catalogue: Catalogue) -> Iterable[UnitPrices]:
    return (model.prices for model in catalogue.models.values())


def _count(prices: Iterable[UnitPrices], *, above: Decimal | None = None) -> int:
    """Count the prices with a known prompt and completion price, the larger of them above an amount if given."""
    known = ((each.prompt, each.completion) for each in prices)
    largest = [max(prompt, completion) for prompt, completion in known if prompt is not None and completion is not None]
    return sum(above is None or each > above for each in largest)
