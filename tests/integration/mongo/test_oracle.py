"""The oracle over time: prices change, servers come and go, and each call keeps the prices of its start."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.price_sources import Priced
from godoty_service.pricing.token_usage import TokenUsage
from tests.integration.mongo.prices import KEEP_FOR, MODEL, Provider

ONE = TokenUsage(input_tokens=1, output_tokens=0)


@pytest.fixture
def provider() -> Provider:
    """A provider of one model at 0.001 USD for a prompt token."""
    return Provider()


async def past(oracle: PricingOracle, catalogue_hash: str, *, at: datetime, provider: str | None = None) -> Priced:
    """Price one prompt token of a call that started then."""
    return await oracle.price_historical(
        ONE, served_model=MODEL, requested=(MODEL,), provider=provider, at=at, catalogue_hash=catalogue_hash
    )


def running(oracle: PricingOracle, *, at: datetime, provider: str | None = None) -> Priced:
    """Price one prompt token of a call of this server."""
    return oracle.price(ONE, served_model=MODEL, requested=(MODEL,), provider=provider, at=at, catalogue=oracle.current)


async def hash_of(oracle: PricingOracle) -> str:
    """Fetch the catalogue and return its hash."""
    assert await oracle.refresh()
    assert oracle.current is not None
    return oracle.current.hash


async def test_call_is_priced_by_catalogue_of_its_start(database: Database, provider: Provider) -> None:
    """Of two catalogues each prices its own calls, also for a server that has seen neither, and names itself."""
    oracle, _ = await provider.server(database)
    start = provider.now
    cheap = await hash_of(oracle)
    provider.now += timedelta(hours=1)
    provider.listed = "0.009"
    dear = await hash_of(oracle)
    assert cheap != dear
    restarted, _ = await provider.server(database)

    for each in (oracle, restarted):
        before, after = await past(each, cheap, at=start), await past(each, dear, at=provider.now)
        assert (before.cost, after.cost) == (Decimal("0.001"), Decimal("0.009"))
        assert before.evidence is not None
        assert (before.evidence.catalogue_hash, before.evidence.catalogue_time) == (cheap, start)
        assert (await past(each, "another", at=start)).cost is None


async def test_stored_catalogue_is_read_once_and_one_that_is_missing_again(
    database: Database, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that need it at the same time share the read; a catalogue that is not stored may be stored later."""
    oracle, _ = await provider.server(database)
    stored = await hash_of(oracle)
    restarted, _ = await provider.server(database)
    reads: list[str] = []
    real = Collection.find_one

    def find_one(collection: Collection, query: Any, **named: Any) -> Any:
        reads.append(query["_id"])
        return real(collection, query, **named)

    monkeypatch.setattr(Collection, "find_one", find_one)
    for catalogue_hash, cost in ((stored, Decimal("0.001")), ("later", None)):
        calls = (past(restarted, catalogue_hash, at=provider.now) for _ in range(20))
        assert {each.cost for each in await asyncio.gather(*calls)} == {cost}
    await past(restarted, stored, at=provider.now)
    assert reads == [stored, "later"]
    catalogues = database.collection("catalogues")
    document = await real(catalogues, {"_id": stored})
    assert document is not None
    await catalogues.insert_one({**document, "_id": "later"})

    assert (await past(restarted, "later", at=provider.now)).cost == Decimal("0.001")


async def test_offline_server_prices_by_newest_stored_catalogue(database: Database, provider: Provider) -> None:
    """The catalogue that another server confirmed last is loaded with its age; before, a price is unknown, never 0."""
    oracle, _ = await provider.server(database)
    await oracle.refresh()
    provider.now += timedelta(hours=1)
    provider.listed = "0.009"
    newest = await hash_of(oracle)
    provider.reachable = False
    provider.now += timedelta(minutes=3)
    restarted, _ = await provider.server(database)
    assert not await restarted.refresh()
    assert running(restarted, at=provider.now) == Priced(cost=None, evidence=None)
    assert restarted.bound((MODEL,), request_bytes=10, max_output_tokens=10) is None

    await restarted.load()

    assert running(restarted, at=provider.now).cost == Decimal("0.009")
    assert restarted.current is not None
    assert restarted.current.hash == newest
    assert restarted.age() == 180
    assert restarted.bound((MODEL,), request_bytes=10, max_output_tokens=10) is not None


async def test_repeated_catalogue_becomes_the_newest(database: Database, provider: Provider) -> None:
    """Prices go up and down again: the first catalogue is confirmed anew, and a restart takes that one up."""
    oracle, _ = await provider.server(database)
    first = await hash_of(oracle)
    for price in ("0.009", "0.001"):
        provider.now += timedelta(hours=1)
        provider.listed = price
        await oracle.refresh()
    restarted, _ = await provider.server(database)
    await restarted.load()

    assert restarted.current is not None
    assert restarted.current.hash == first


async def test_bound_covers_the_dearest_provider(database: Database, provider: Provider) -> None:
    """No provider can exceed the bound: one with nine times the listed price raises the bound ninefold."""
    provider.own = {"Acme": "0.001", "Dear": "0.009"}
    oracle, _ = await provider.server(database)
    await oracle.refresh()
    listed = oracle.bound((MODEL,), request_bytes=10, max_output_tokens=10)
    assert listed is not None

    await oracle.prepare((MODEL,))

    assert oracle.bound((MODEL,), request_bytes=10, max_output_tokens=10) == 9 * listed
    assert oracle.max_price((MODEL,), request_bytes=10) == {"prompt": "9000", "completion": "0"}


async def test_provider_is_priced_by_its_price_at_the_start(database: Database, provider: Provider) -> None:
    """He raises his price while the call runs, or before it is settled elsewhere: the call's price stays."""
    oracle, providers = await provider.server(database)
    catalogue = await hash_of(oracle)
    await oracle.prepare((MODEL,))
    seen = provider.now
    provider.now += timedelta(seconds=1)
    start = provider.now
    before = running(oracle, at=start, provider="Acme")
    provider.own = {"Acme": "0.009"}
    provider.now += KEEP_FOR
    await provider.fetch_current(providers)
    provider.now += timedelta(seconds=1)
    restarted, _ = await provider.server(database)

    assert before.cost == Decimal("0.001")
    assert running(oracle, at=start, provider="Acme") == before
    assert await past(oracle, catalogue, at=start, provider="Acme") == before
    assert await past(restarted, catalogue, at=start, provider="Acme") == before
    after = await past(restarted, catalogue, at=provider.now, provider="Acme")
    assert after.cost == running(oracle, at=provider.now, provider="Acme").cost == Decimal("0.009")
    assert before.evidence is not None
    assert after.evidence is not None
    assert before.evidence.catalogue_hash == after.evidence.catalogue_hash == catalogue
    assert before.evidence.provider_prices_hash != after.evidence.provider_prices_hash
    assert before.evidence.provider_prices_time == seen
    assert after.evidence.provider_prices_time == seen + timedelta(seconds=1) + KEEP_FOR


async def test_unlisted_provider_is_priced_by_the_catalogue(database: Database, provider: Provider) -> None:
    """The evidence then names the catalogue alone."""
    oracle, _ = await provider.server(database)
    await oracle.refresh()
    await oracle.prepare((MODEL,))

    found = running(oracle, at=provider.now, provider="Unlisted")

    assert found.cost == Decimal("0.001")
    assert found.evidence is not None
    assert (found.evidence.provider_prices_hash, found.evidence.provider_prices_time) == (None, None)
