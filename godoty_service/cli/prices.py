"""`godoty prices`: the price list that the servers use."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.context import out, print_table, with_provider
from godoty_service.pricing.money import format_usd
from godoty_service.pricing.price_overrides import PRICE_KEYS
from godoty_service.pricing.price_sources import priced_offers, summarize
from godoty_service.pricing.unit_prices import UnitPrices

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components
    from godoty_service.bootstrap.provider import ProviderComponents

_UNKNOWN = "unknown"
_LISTINGS = {
    "priced": "models with prices",
    "unpriced": "models without prices: a cost is unknown unless the answer or GODOTY_PRICE_FILE states it",
    "missing": "none: the upstream lists no models, so a request may name any",
}


def prices(
    model: Annotated[str | None, typer.Argument(help="Also print this model's prices.")] = None,
    *,
    accept: Annotated[
        bool, typer.Option("--accept", help="Fetch the list now and accept it, even if it has far fewer models.")
    ] = False,
) -> None:
    """Print the catalogue in use and its age, and optionally a model's prices in US dollars per token."""

    async def work(components: "Components", provider: "ProviderComponents") -> None:
        await (provider.oracle.accept() if accept else provider.oracle.load())
        catalogue, age = provider.oracle.current, provider.oracle.age()
        if catalogue is None or age is None:
            raise ValueError("no server has fetched a catalogue yet: start one, or use --accept")
        out.print(f"catalogue  {catalogue.hash}")
        out.print(f"first seen {catalogue.fetch_time.isoformat(timespec='seconds')}, confirmed {age:.0f} s ago")
        summary = summarize(catalogue)
        out.print(f"models     {summary.models}")
        out.print(f"priced     {summary.priced_models}")
        out.print(f"listing    {_LISTINGS[summary.listing]}")
        out.print(f"price file {summary.price_rules} model patterns")
        if model is not None:
            offers = priced_offers(catalogue, model, at=components.clock())
            if not offers:
                raise ValueError(f"the catalogue has no model {model}")
            for offer in offers:
                if not offer.prices.are_listed:
                    out.print(f"{offer.id}: no price is known, so the cost of its calls is unknown")
                    continue
                print_table((offer.id, "condition", "USD"), _rows(offer.prices))

    with_provider(work)


def _rows(prices: UnitPrices) -> Iterator[tuple[str, str, str]]:
    """Yield each price, and those that replace it under a condition."""
    for key in PRICE_KEYS:
        if (value := getattr(prices, key)) is not None or key in prices.unpriced_keys:
            yield key, "", format_usd(value) or _UNKNOWN
    for override in prices.overrides:
        fields = override.to_document()
        condition = ", ".join(f"{key} {value}" for key, value in fields.items() if key not in override.prices)
        for key, value in override.prices.items():
            yield key, condition, format_usd(value) or _UNKNOWN
    if prices.uncounted_fees:
        yield "fees without a usage counter", "", _UNKNOWN
