"""The providers' own prices over time: seen once, kept once, and found by the time of a call."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.mongo.client import Database
from godoty_service.pricing.provider_prices import PriceSnapshot, ProviderPrices
from tests.integration.mongo.prices import KEEP_FOR, MODEL, Provider


@pytest.fixture
def provider() -> Provider:
    """A provider of one model at 0.001 USD for a prompt token."""
    return Provider()


def price(seen: PriceSnapshot | None) -> Decimal | None:
    """What a prompt token of Acme's cost."""
    prices = seen.prices.for_provider("Acme") if seen is not None else None
    return prices.prompt if prices is not None else None


async def changes(provider: Provider, providers: ProviderPrices, *prices: str) -> list[datetime]:
    """Change the price several times, let a server see each, and return the times."""
    times = []
    for asked in prices:
        provider.own = {"Acme": asked}
        provider.now += KEEP_FOR
        times.append(provider.now)
        await provider.fetch_current(providers)
    return times


async def test_each_time_has_the_prices_that_were_seen_last(database: Database, provider: Provider) -> None:
    """Up, down and up again: each holds from when it was seen until the next one was; the first also before that."""
    _, providers = await provider.server(database)
    times = await changes(provider, providers, "1", "2", "1", "2")
    _, restarted = await provider.server(database)

    found: list[tuple[Decimal | None, Decimal | None]] = []
    for time in (times[0] - timedelta(days=1), *times, times[3] + timedelta(days=1)):
        just_before = time - timedelta(milliseconds=1)
        assert price(providers.at(MODEL, time)) == price(await restarted.load_at(MODEL, time))
        assert price(providers.at(MODEL, just_before)) == price(await restarted.load_at(MODEL, just_before))
        found.append((price(providers.at(MODEL, just_before)), price(providers.at(MODEL, time))))
    one, two = Decimal(1), Decimal(2)
    assert found == [(one, one), (one, one), (one, two), (two, one), (one, two), (two, two)]


async def test_unchanged_list_is_stored_once(database: Database, provider: Provider) -> None:
    """Seen by two servers, again and again, its uptime ever other: one document, as old as its first sight."""
    _, one = await provider.server(database)
    first = provider.now
    await provider.fetch_current(one)
    provider.now += KEEP_FOR
    await one.prepare([MODEL])
    await _seen(database, provider.now)
    provider.now += timedelta(seconds=1)
    _, other = await provider.server(database)
    await provider.fetch_current(other)
    await _seen(database, provider.now)

    (kept,) = await database.collection("provider_prices").find({})
    assert (kept["model"], kept["first_seen"], provider.asked) == (MODEL, first, 3)
    seen = other.at(MODEL, provider.now)
    assert seen is not None
    assert (seen.first_seen, seen.hash) == (first, kept["hash"])


async def test_old_lists_are_loaded_from_the_database(database: Database, provider: Provider) -> None:
    """After a dozen changes the oldest is in the database only, whose lists expire 90 days after their last sight."""
    _, providers = await provider.server(database)
    times = await changes(provider, providers, *(str(each) for each in range(1, 13)))

    assert price(providers.at(MODEL, times[0])) == 5
    assert [price(await providers.load_at(MODEL, time)) for time in times] == list(range(1, 13))
    indexes = await database.collection("provider_prices")._collection.index_information()
    assert indexes["seen_time_1"]["expireAfterSeconds"] == 90 * 86_400


async def test_expired_list_is_fetched_again(database: Database, provider: Provider) -> None:
    """Until then the provider is not asked; a failure keeps what was known, and is not repeated at once."""
    _, providers = await provider.server(database)
    await provider.fetch_current(providers)
    await providers.prepare([MODEL])
    assert provider.asked == 1
    provider.reachable = False
    provider.now += KEEP_FOR
    await providers.prepare([MODEL])
    await _asked(provider, 2)
    await providers.prepare([MODEL])

    assert provider.asked == 2
    assert price(providers.at(MODEL, provider.now)) == Decimal("0.001")


async def test_unseen_list_is_fetched_for_an_old_call(database: Database, provider: Provider) -> None:
    """Nothing is nearer to its time. Where the provider does not answer, nothing is known."""
    _, providers = await provider.server(database)
    long_ago = provider.now - timedelta(days=2)
    provider.reachable = False
    assert await providers.load_at(MODEL, long_ago) is None

    provider.reachable = True
    _, restarted = await provider.server(database)
    assert price(await restarted.load_at(MODEL, long_ago)) == Decimal("0.001")


async def _seen(database: Database, time: datetime) -> None:
    """Wait until a list is known to have been seen at a time."""
    async with asyncio.timeout(180):
        while await database.collection("provider_prices").count({"seen_time": time}) == 0:
            await asyncio.sleep(0.01)


async def _asked(provider: Provider, times: int) -> None:
    """Wait for a background fetch."""
    async with asyncio.timeout(180):
        while provider.asked < times:
            await asyncio.sleep(0.01)
