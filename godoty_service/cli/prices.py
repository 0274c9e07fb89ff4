"""`godoty prices`: the provider's price list as the servers have it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.session import out, print_table, with_provider
from godoty_service.metering.money import format_usd
from godoty_service.metering.price_overrides import PRICE_KEYS
from godoty_service.metering.prices import UnitPrices

if TYPE_CHECKING:
    from godoty_service.rooms import ProviderRooms, Rooms

_DEPENDS = "not known"


def prices(
    model: Annotated[str | None, typer.Argument(help="Print this model's prices, too.")] = None,
    *,
    accept: Annotated[
        bool, typer.Option("--accept", help="Fetch the list now and take it, although it has far fewer models.")
    ] = False,
) -> None:
    """Print which catalogue is in force, how old it is, and what a model costs by it: US dollars for one token."""

    async def work(_: "Rooms", provider: "ProviderRooms") -> None:
        await (provider.oracle.accept() if accept else provider.oracle.load())
        catalogue, age = provider.oracle.current, provider.oracle.age()
        if catalogue is None or age is None:
            raise ValueError("no server has fetched a catalogue yet")
        out.print(f"catalogue  {catalogue.hash}")
        out.print(f"first seen {catalogue.fetch_time.isoformat(timespec='seconds')}, confirmed {age:.0f} s ago")
        out.print(f"models     {len(catalogue.models)}")
        if model is not None:
            offers = catalogue.offers(model)
            if not offers:
                raise ValueError(f"the catalogue has no model {model}")
            for offer in offers:
                print_table((offer.id, "where", "USD"), _rows(offer.prices))

    with_provider(work)


def _rows(prices: UnitPrices) -> Iterator[tuple[str, str, str]]:
    """Give each price, and those that replace it under some condition."""
    for key in PRICE_KEYS:
        if (value := getattr(prices, key)) is not None or key in prices.depends:
            yield key, "", format_usd(value) or _DEPENDS
    for override in prices.overrides:
        told = override.to_document()
        condition = ", ".join(f"{key} {value}" for key, value in told.items() if key not in override.prices)
        for key, value in override.prices.items():
            yield key, condition, format_usd(value) or _DEPENDS
    if prices.uncounted_fees:
        yield "fees that no counter shows", "", _DEPENDS
