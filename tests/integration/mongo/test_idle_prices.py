"""The providers' prices after idleness: the first call waits for a fresh list, and no list outlives its time unseen."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from godoty_service.mongo.client import Database
from godoty_service.pricing import provider_prices
from godoty_service.pricing.provider_prices import PriceSnapshot, ProviderPrices
from tests.integration.mongo.prices import KEEP_FOR, MODEL, Provider

LONGEST_WAIT = provider_prices._WAIT  # what it is outside of tests


class Slow(Provider):
    """A provider with slow responses.

    Attributes:
        responding: While it is cleared, responses wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.responding = asyncio.Event()
        self.responding.set()

    async def endpoints(self, model: str) -> bytes:
        """The body of `GET /models/{model}/endpoints`, once `responding` is set."""
        await self.responding.wait()
        return await super().endpoints(model)


@pytest.fixture
async def provider() -> AsyncIterator[Slow]:
    """A provider with slow responses; pending ones are released at the end."""
    slow = Slow()
    yield slow
    slow.responding.set()


def price(seen: PriceSnapshot | None) -> Decimal | None:
    """What a prompt token of Acme's costs."""
    prices = seen.prices.for_provider("Acme") if seen is not None else None
    return prices.prompt if prices is not None else None


async def known(provider: Provider, database: Database) -> ProviderPrices:
    """A server that has seen the first list."""
    _, providers = await provider.server(database)
    await providers.prepare([MODEL])
    return providers


async def test_first_call_after_idleness_has_the_prices_of_its_time(database: Database, provider: Slow) -> None:
    """The list that was fetched hours ago is stale: the call waits for the one that holds now, and is priced by it."""
    providers = await known(provider, database)
    provider.now += timedelta(hours=3)
    provider.own = {"Acme": "0.009"}

    await providers.prepare([MODEL])

    newest = providers.newest(MODEL)
    assert newest is not None
    assert price(providers.at(MODEL, provider.now)) == Decimal("0.009")


async def test_calls_of_a_busy_server_do_not_wait(database: Database, provider: Slow) -> None:
    """A list is renewed beside the calls when half of its time is over: in steady traffic none ever waits."""
    providers = await known(provider, database)
    provider.own = {"Acme": "0.009"}
    provider.responding.clear()
    provider.now += KEEP_FOR / 2

    async with asyncio.timeout(180):
        await providers.prepare([MODEL])
    assert price(providers.at(MODEL, provider.now)) == Decimal("0.001")
    provider.responding.set()
    async with asyncio.timeout(180):
        while price(providers.at(MODEL, provider.now)) != Decimal("0.009"):
            await asyncio.sleep(0.01)
    assert provider.asked == 2


async def test_list_that_comes_too_late_for_its_call_still_prices_it(
    database: Database, provider: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds are waited at most, by all calls of that time together; the call is priced by the nearest list."""
    providers = await known(provider, database)
    monkeypatch.setattr(provider_prices, "_WAIT", LONGEST_WAIT)
    provider.now += timedelta(hours=3)
    start = provider.now
    provider.own = {"Acme": "0.009"}
    provider.responding.clear()
    begun = time.monotonic()
    await providers.prepare([MODEL])
    assert time.monotonic() - begun > 1.5
    async with asyncio.timeout(30):
        for _ in range(20):  # if each waited, they would take 40 seconds
            await providers.prepare([MODEL])
    provider.now += timedelta(seconds=5)
    provider.responding.set()
    async with asyncio.timeout(180):
        while price(providers.at(MODEL, provider.now)) != Decimal("0.009"):
            await asyncio.sleep(0.01)
    _, restarted = await provider.server(database)

    assert price(providers.at(MODEL, start)) == Decimal("0.009")
    assert price(await restarted.load_at(MODEL, start)) == Decimal("0.009")
    just_after_the_first = start - timedelta(hours=3) + timedelta(minutes=1)
    assert price(providers.at(MODEL, just_after_the_first)) == Decimal("0.001")
    assert price(await restarted.load_at(MODEL, just_after_the_first)) == Decimal("0.001")


async def test_fetch_that_fails_after_idleness_is_not_repeated_by_every_call(
    database: Database, provider: Slow
) -> None:
    """The stale list prices what comes meanwhile; the provider is asked again when half of a list's time is over."""
    providers = await known(provider, database)
    provider.now += timedelta(hours=3)
    provider.reachable = False
    for _ in range(3):
        await providers.prepare([MODEL])

    assert provider.asked == 2
    assert price(providers.at(MODEL, provider.now)) == Decimal("0.001")
    provider.reachable = True
    provider.own = {"Acme": "0.009"}
    provider.now += KEEP_FOR
    await providers.prepare([MODEL])
    assert price(providers.at(MODEL, provider.now)) == Decimal("0.009")
