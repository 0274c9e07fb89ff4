"""Listings without prices, or none at all: taken from upstreams that never had any, and from OpenRouter never."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from godoty_service.errors import ModelUnavailable, ProviderUnavailable
from godoty_service.metering import oracle as oracles
from godoty_service.metering.oracle import Oracle, Priced
from godoty_service.metering.price_file import PriceRules, load_price_file
from godoty_service.metering.stored_catalogues import Upstream
from godoty_service.metering.usage import TokenUsage
from godoty_service.mongo import Database
from tests.mongo.prices import Provider

BARE = json.dumps({"object": "list", "data": [{"id": "llama", "object": "model"}, {"id": "lab/*"}]}).encode()
PRICED = json.dumps({"data": [{"id": "llama", "pricing": {"prompt": "1", "completion": "2"}}]}).encode()
MISSING = ModelUnavailable("No such path.", metadata={"provider_code": "404"})
DOWN = ProviderUnavailable("It is down.", metadata={"provider_code": "connection"})
USED = TokenUsage(input_tokens=10, output_tokens=1)


class Server:
    """A server whose upstream's listing a test replaces."""

    def __init__(self, database: Database, listing: bytes | Exception) -> None:
        self.listing = listing
        self.rejected: list[str] = []
        self.world = Provider()
        self._database = database

    async def models(self) -> bytes:
        """Answer `GET /models`."""
        if isinstance(self.listing, Exception):
            raise self.listing
        return self.listing

    async def oracle(self, upstream: Upstream | None = None) -> Oracle:
        """Build the oracle of a server that has just started."""
        catalogues = self._database.collection("catalogues")
        await catalogues.ensure(oracles.INDEXES)
        _, providers = await self.world.server(self._database)
        return Oracle(
            catalogues,
            fetch_models=self.models,
            providers=providers,
            upstream=upstream,
            on_rejected=self.rejected.append,
            clock=self.world.clock,
        )

    def priced(self, oracle: Oracle, served: str, *requested: str, used: TokenUsage = USED) -> Priced:
        """Price a call of now."""
        names = requested or (served,)
        now = self.world.now
        return oracle.price(used, served_model=served, requested=names, provider="P", at=now, catalogue=oracle.current)


def rules(tmp_path: Path, models: str, prompt: str) -> PriceRules:
    """Read a price file of one table that holds since long ago."""
    path = tmp_path / "prices.toml"
    path.write_text(f'[[prices]]\nmodels = "{models}"\nfrom = 2020-01-01\nprompt = "{prompt}"\ncompletion = "0"\n')
    return load_price_file(path)


@pytest.mark.parametrize("listing", [BARE, MISSING], ids=["bare", "missing"])
async def test_openrouter_has_prices_in_any_case(database: Database, listing: bytes | Exception) -> None:
    """Its listing without prices is a fault of the day: not even the first one is taken."""
    server = Server(database, listing)
    oracle = await server.oracle(Upstream(name="https://openrouter.ai/api/v1", needs_prices=True))

    assert not await oracle.refresh()
    assert oracle.current is None


@pytest.mark.parametrize("listing", [BARE, MISSING, DOWN], ids=["bare", "missing", "down"])
async def test_listing_with_prices_is_not_replaced_by_one_without(
    database: Database, listing: bytes | Exception
) -> None:
    """An upstream that had prices yesterday has them still; the catalogue in force stays."""
    server = Server(database, PRICED)
    oracle = await server.oracle()
    assert await oracle.refresh()
    good, server.listing = oracle.current, listing

    assert not await oracle.refresh()
    assert oracle.current is good


async def test_operator_accepts_a_listing_without_prices(database: Database) -> None:
    """A gateway that stops listing prices is served again when a person says that it is meant."""
    server = Server(database, PRICED)
    oracle = await server.oracle()
    await oracle.refresh()
    server.listing = BARE

    assert not (await oracle.accept()).has_prices
    assert await oracle.refresh()


async def test_catalogue_of_another_upstream_is_not_compared(database: Database) -> None:
    """A server whose base URL was changed takes the new upstream's list at once, and loads no other's."""
    server = Server(database, PRICED)
    assert await (await server.oracle(Upstream(name="https://one"))).refresh()
    server.listing = DOWN
    other = await server.oracle(Upstream(name="https://two"))
    await other.load()
    assert other.current is None
    server.listing = BARE

    assert await other.refresh()
    assert server.rejected == []


async def test_missing_listing_is_stored_and_loaded(database: Database) -> None:
    """A server that starts while the upstream is down knows that any name may be asked for."""
    server = Server(database, MISSING)
    assert await (await server.oracle()).refresh()
    server.listing = DOWN
    restarted = await server.oracle()
    await restarted.load()

    assert restarted.current is not None
    assert not restarted.current.is_listed
    assert restarted.current.knows("any/model")
    assert not restarted.current.knows("no name")


async def test_listing_that_appears_later_is_taken(database: Database) -> None:
    """What was missing once is taken when it comes; from then on its names count."""
    server = Server(database, MISSING)
    oracle = await server.oracle()
    await oracle.refresh()
    server.listing = BARE

    assert await oracle.refresh()
    assert oracle.current is not None
    assert [oracle.current.knows(name) for name in ("llama", "lab/any", "qwen")] == [True, True, False]


async def test_unknown_price_is_never_zero(database: Database) -> None:
    """Not even where nothing was used: a fee for the request may be due."""
    server = Server(database, BARE)
    oracle = await server.oracle()
    await oracle.refresh()

    nothing = TokenUsage(input_tokens=0, output_tokens=0)
    for used in (USED, nothing):
        priced = server.priced(oracle, "llama", used=used)
        assert priced.cost is None
        assert priced.evidence is not None
    assert oracle.bound(("llama",), request_bytes=10, max_output_tokens=10) is None


async def test_answer_under_another_name_is_priced_as_the_requested_model(database: Database, tmp_path: Path) -> None:
    """LiteLLM answers with the name of what is behind an alias; with two models requested, either may have served."""
    server = Server(database, BARE)
    oracle = await server.oracle(Upstream(rules=rules(tmp_path, "llama", "0.5")))
    await oracle.refresh()

    assert server.priced(oracle, "meta-llama-3.3-70b", "llama").cost == 5
    assert server.priced(oracle, "meta-llama-3.3-70b", "llama", "lab/x").cost is None
    assert server.priced(oracle, "lab/x", "lab/x").cost is None


async def test_listed_price_goes_before_the_price_file(database: Database, tmp_path: Path) -> None:
    """The file says what the upstream does not say."""
    server = Server(database, PRICED)
    oracle = await server.oracle(Upstream(rules=rules(tmp_path, "*", "0")))
    await oracle.refresh()

    assert server.priced(oracle, "llama").cost == 12


async def test_changed_price_file_holds_also_while_the_upstream_is_down(database: Database, tmp_path: Path) -> None:
    """A server takes up its own file with the stored listing; the list of its calls is stored, too."""
    server = Server(database, BARE)
    first = await server.oracle(Upstream(rules=rules(tmp_path, "llama", "0.5")))
    await first.refresh()
    server.listing = DOWN
    server.world.now += timedelta(hours=1)
    second = await server.oracle(Upstream(rules=rules(tmp_path, "llama", "0.7")))
    await second.load()

    priced = server.priced(second, "llama")
    assert priced.cost == 7
    assert priced.evidence is not None
    assert first.current is not None
    reader = await server.oracle()
    for hash_, cost in ((first.current.hash, Decimal(5)), (priced.evidence.catalogue_hash, Decimal(7))):
        past = await reader.price_past(
            USED, served_model="llama", requested=("llama",), provider=None, at=server.world.now, catalogue_hash=hash_
        )
        assert past.cost == cost


async def test_catalogue_of_an_earlier_build_is_openrouters(database: Database) -> None:
    """It names no upstream: a server on OpenRouter goes on with it, one on another upstream does without."""
    server = Server(database, PRICED)
    await (await server.oracle()).refresh()
    await database.collection("catalogues").update_many({}, {"$unset": {"upstream": ""}})
    server.listing = DOWN
    known = []
    for upstream in (Upstream(name="https://openrouter.ai/api/v1", needs_prices=True), Upstream(name="https://two")):
        oracle = await server.oracle(upstream)
        await oracle.load()
        known.append(oracle.current is not None)

    assert known == [True, False]
