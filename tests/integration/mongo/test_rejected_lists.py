"""Price lists that a provider cannot mean: the last good one stays, an alarm is raised; a real shrink is accepted."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.mongo.client import Database
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.provider_prices import ProviderPrices
from godoty_service.pricing.server_tools import ServerToolPrices
from godoty_service.pricing.token_usage import TokenUsage
from tests.integration.mongo.prices import KEEP_FOR, MODEL, Provider


class Listing:
    """A provider's listing that a test replaces; what was rejected is noted."""

    def __init__(self, database: Database, body: bytes) -> None:
        self.body = body
        self.rejected: list[str] = []
        self._database = database
        self._world = Provider()

    async def models(self) -> bytes:
        """Return the body of `GET /models`."""
        return self.body

    async def oracle(self) -> PricingOracle:
        """Build the oracle of a server that knows nothing yet."""
        await self._database.collection("catalogues").ensure(PricingOracle.INDEXES)
        _, providers = await self._world.server(self._database)
        return PricingOracle(
            self._database.collection("catalogues"),
            fetch_models=self.models,
            providers=providers,
            server_tools=ServerToolPrices(fetch=self._world.tools),
            on_rejected=self.rejected.append,
            clock=self._world.clock,
        )

    @property
    def now(self) -> datetime:
        """What the clock of all says."""
        return self._world.now

    def later(self) -> None:
        """Let ten minutes pass."""
        self._world.now += timedelta(minutes=10)


def entries(numbers: Iterable[int], *, prompt: Any = "0.001", completion: Any = "0.002") -> bytes:
    """A listing of models by number."""
    pricing = {"prompt": prompt, "completion": completion}
    return json.dumps({"data": [{"id": f"x/{each}", "pricing": pricing} for each in numbers]}).encode()


GOOD = entries(range(40))
ABSURD = {
    "empty": entries([]),
    "two-of-forty": entries(range(2)),
    "nineteen-of-forty": entries(range(19)),
    "no-price": entries(range(40), prompt="-1"),
    "prices-of-another-shape": entries(range(40), prompt={"usd": "0.001"}),
    "all-free": entries(range(40), prompt="0", completion="0"),
    "entries-of-another-shape": json.dumps({"data": [[each] for each in range(40)]}).encode(),
    "deep": b'{"data": ' + b"[" * 100_000,
    "error-page": b"<html>",
}


@pytest.mark.parametrize("body", ABSURD.values(), ids=ABSURD.keys())
async def test_absurd_listing_does_not_replace_the_last_good_one(database: Database, body: bytes) -> None:
    """The catalogue in force and its age stay, on this server and for one that starts later; the alarm is raised."""
    listing = Listing(database, GOOD)
    oracle = await listing.oracle()
    assert await oracle.refresh()
    good = oracle.current
    assert good is not None
    listing.later()
    listing.body = body

    assert not await oracle.refresh()
    assert oracle.current is good
    assert oracle.age() == 600
    assert listing.rejected == ["models"]
    restarted = await listing.oracle()
    await restarted.load()
    assert restarted.current is not None
    assert restarted.current.hash == good.hash
    assert not await restarted.refresh()
    listing.body = GOOD
    assert await oracle.refresh()
    assert oracle.age() == 0


@pytest.mark.parametrize("body", [ABSURD["empty"], ABSURD["no-price"]])
async def test_first_listing_without_a_price_is_not_taken(database: Database, body: bytes) -> None:
    """A server that has no catalogue yet does not begin with one that prices nothing."""
    listing = Listing(database, body)
    oracle = await listing.oracle()

    assert not await oracle.refresh()
    assert oracle.current is None
    assert listing.rejected == ["models"]
    assert await database.collection("catalogues").count({}) == 0


async def test_ordinary_changes_are_taken(database: Database) -> None:
    """Models come and go, prices change and some become free: all of this is a listing like any other."""
    listing = Listing(database, GOOD)
    oracle = await listing.oracle()
    await oracle.refresh()
    for body in (entries(range(25)), entries(range(100)), entries(range(51)), entries(range(51), prompt="0.5")):
        listing.later()
        listing.body = body
        assert await oracle.refresh()
        assert oracle.age() == 0
    assert listing.rejected == []
    assert oracle.current is not None
    assert oracle.current.models["x/1"].prices.prompt == Decimal("0.5")


async def test_shrink_that_an_operator_accepts_is_taken_by_every_server(database: Database) -> None:
    """One server's `accept` is enough: what the database holds was accepted, and is what the next is compared with."""
    listing = Listing(database, GOOD)
    oracle, other = await listing.oracle(), await listing.oracle()
    await oracle.refresh()
    await other.refresh()
    listing.later()
    listing.body = ABSURD["two-of-forty"]
    assert not await other.refresh()

    await oracle.accept()

    assert oracle.current is not None
    assert len(oracle.current.models) == 2
    listing.body = entries(range(2), prompt="0.003")  # a price has changed since
    listing.later()
    assert await other.refresh()
    assert other.current is not None
    assert len(other.current.models) == 2


async def test_operator_cannot_accept_a_listing_without_prices(database: Database) -> None:
    """Such a listing prices and bounds nothing: no command makes it the one in force."""
    listing = Listing(database, GOOD)
    oracle = await listing.oracle()
    await oracle.refresh()
    good, listing.body = oracle.current, ABSURD["no-price"]

    with pytest.raises(ValueError, match="price"):
        await oracle.accept()
    assert oracle.current is good


async def test_stored_catalogue_that_cannot_be_read_does_not_stop_the_next_one(database: Database) -> None:
    """A server starts without it, and takes the listing that the provider has now."""
    listing = Listing(database, GOOD)
    oracle = await listing.oracle()
    await database.collection("catalogues").insert_one(
        {"_id": "broken", "seen_time": listing.now, "fetch_time": listing.now, "body": b"x"}
    )

    await oracle.load()
    assert oracle.current is None
    assert await oracle.refresh()
    assert listing.rejected == []


async def test_stored_catalogue_keeps_the_hash_that_entries_name(database: Database) -> None:
    """A catalogue stored by another version, which hashed it otherwise, is still found by its key."""
    listing = Listing(database, GOOD)
    oracle = await listing.oracle()
    await oracle.refresh()
    stored = await database.collection("catalogues").find_one({})
    assert stored is not None
    await database.collection("catalogues").insert_one({**stored, "_id": "hash-of-another-version"})
    restarted = await listing.oracle()

    priced = await restarted.price_historical(
        TokenUsage(input_tokens=1, output_tokens=1),
        served_model="x/1",
        requested=("x/1",),
        provider=None,
        at=stored["fetch_time"],
        catalogue_hash="hash-of-another-version",
    )

    assert priced.evidence is not None
    assert priced.evidence.catalogue_hash == "hash-of-another-version"


@pytest.mark.parametrize("endpoints", [[], [{"provider_name": "Acme"}], [{"provider_name": "Acme", "pricing": {}}]])
async def test_list_of_providers_without_a_price_does_not_replace_the_last_good_one(
    database: Database, endpoints: list[Any]
) -> None:
    """The dearer provider that was known still counts in the bound, and in the price of its calls."""
    provider, rejected = Provider(), list[str]()
    provider.own = {"Acme": "0.001", "Dear": "0.009"}
    bodies = [await provider.endpoints(MODEL), json.dumps({"data": {"id": MODEL, "endpoints": endpoints}}).encode()]

    async def fetch(_: str) -> bytes:
        return bodies.pop(0)

    lists = database.collection("provider_prices")
    providers = ProviderPrices(lists, fetch=fetch, keep_for=KEEP_FOR, on_rejected=rejected.append, clock=provider.clock)
    await providers.prepare([MODEL])
    provider.now += 2 * KEEP_FOR
    await providers.prepare([MODEL])

    newest = providers.newest(MODEL)
    assert newest is not None
    assert [each.provider_name for each in newest.endpoints] == ["Acme", "Dear"]
    assert (bodies, rejected) == ([], ["providers"])
    assert await lists.count({}) == 1
