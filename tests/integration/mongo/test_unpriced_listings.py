"""Listings without prices, or none at all: accepted from upstreams that never had any, and never from OpenRouter."""

import json
import zlib
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from godoty_service.errors import ModelUnavailable, ProviderUnavailable
from godoty_service.mongo.client import Database
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.price_file import PriceRules, load_price_file
from godoty_service.pricing.price_sources import Priced
from godoty_service.pricing.server_tools import ServerToolPrices
from godoty_service.pricing.stored_catalogues import Upstream
from godoty_service.pricing.token_usage import TokenUsage
from tests.integration.mongo.prices import Provider

UNPRICED = json.dumps({"object": "list", "data": [{"id": "llama", "object": "model"}, {"id": "lab/*"}]}).encode()
PRICED = json.dumps({"data": [{"id": "llama", "pricing": {"prompt": "1", "completion": "2"}}]}).encode()
MISSING = ModelUnavailable("No such path.", metadata={"provider_code": "404"})
DOWN = ProviderUnavailable("It is down.", metadata={"provider_code": "connection"})
USAGE = TokenUsage(input_tokens=10, output_tokens=1)
OPENROUTER = Upstream(name="https://openrouter.ai/api/v1", lists_prices=True)


class Servers:
    """Servers whose upstream's listing a test replaces.

    Attributes:
        listing: The body of `GET /models`, or its error.
        rejected: The kinds of the lists that were rejected.
        provider: Has the clock of all servers.
    """

    def __init__(self, database: Database, listing: bytes | Exception) -> None:
        self.listing = listing
        self.rejected: list[str] = []
        self.provider = Provider()
        self._database = database

    async def models(self) -> bytes:
        """Answer `GET /models`."""
        if isinstance(self.listing, Exception):
            raise self.listing
        return self.listing

    async def oracle(self, upstream: Upstream | None = None) -> PricingOracle:
        """Build the oracle of a server that has just started."""
        catalogues = self._database.collection("catalogues")
        await catalogues.ensure(PricingOracle.INDEXES)
        _, providers = await self.provider.server(self._database)
        return PricingOracle(
            catalogues,
            fetch_models=self.models,
            providers=providers,
            server_tools=ServerToolPrices(fetch=self.provider.tools),
            upstream=upstream,
            on_rejected=self.rejected.append,
            clock=self.provider.clock,
        )

    def price(self, oracle: PricingOracle, served: str, *requested: str, usage: TokenUsage = USAGE) -> Priced:
        """Price a call of now."""
        return oracle.price(
            usage,
            served_model=served,
            requested=requested or (served,),
            provider="P",
            at=self.provider.now,
            catalogue=oracle.current,
        )


def rules(tmp_path: Path, models: str, prompt: str) -> PriceRules:
    """Read a price file of one table that has applied for years."""
    path = tmp_path / "prices.toml"
    path.write_text(f'[[prices]]\nmodels = "{models}"\nfrom = 2020-01-01\nprompt = "{prompt}"\ncompletion = "0"\n')
    return load_price_file(path)


@pytest.mark.parametrize("listing", [UNPRICED, MISSING], ids=["unpriced", "missing"])
async def test_openrouters_listing_must_have_prices(database: Database, listing: bytes | Exception) -> None:
    """Without prices it is a fault of the day: not even the first one is accepted."""
    oracle = await Servers(database, listing).oracle(OPENROUTER)

    assert not await oracle.refresh()
    assert oracle.current is None


@pytest.mark.parametrize(
    ("before", "listing"),
    [(PRICED, UNPRICED), (PRICED, MISSING), (PRICED, DOWN), (UNPRICED, MISSING), (UNPRICED, DOWN)],
    ids=["unpriced", "missing", "down", "unpriced-missing", "unpriced-down"],
)
async def test_listing_is_not_replaced_by_one_that_has_less(
    database: Database, before: bytes, listing: bytes | Exception
) -> None:
    """An upstream that listed prices, or models, yesterday has them still; the catalogue in force stays."""
    servers = Servers(database, before)
    oracle = await servers.oracle()
    assert await oracle.refresh()
    good, servers.listing = oracle.current, listing

    assert not await oracle.refresh()
    assert oracle.current is good


async def test_operator_accepts_a_listing_without_prices(database: Database) -> None:
    """A gateway that lists prices no longer is served again once an operator has accepted that."""
    servers = Servers(database, PRICED)
    oracle = await servers.oracle()
    await oracle.refresh()
    servers.listing = UNPRICED

    assert not (await oracle.accept()).has_prices
    assert await oracle.refresh()


async def test_catalogue_of_another_upstream_is_neither_loaded_nor_compared(database: Database) -> None:
    """A server whose base URL was changed accepts the new upstream's listing at once."""
    servers = Servers(database, PRICED)
    assert await (await servers.oracle(Upstream(name="https://one"))).refresh()
    servers.listing = DOWN
    other = await servers.oracle(Upstream(name="https://two"))
    await other.load()
    assert other.current is None
    servers.listing = UNPRICED

    assert await other.refresh()
    assert servers.rejected == []


async def test_listing_of_two_upstreams_is_loaded_for_both(database: Database) -> None:
    """Two gateways may list the same models: one document is the catalogue of both."""
    servers = Servers(database, PRICED)
    upstreams = [Upstream(name="https://one"), Upstream(name="https://two")]
    for upstream in upstreams:
        assert await (await servers.oracle(upstream)).refresh()
    servers.listing = DOWN
    for upstream in upstreams:
        restarted = await servers.oracle(upstream)
        await restarted.load()
        assert restarted.current is not None
    assert await database.collection("catalogues").count({}) == 1


async def test_missing_listing_is_stored_and_loaded(database: Database) -> None:
    """A server that starts while the upstream is down knows that a request may name any model."""
    servers = Servers(database, MISSING)
    assert await (await servers.oracle()).refresh()
    servers.listing = DOWN
    restarted = await servers.oracle()
    await restarted.load()

    assert restarted.current is not None
    assert not restarted.current.is_listed
    assert restarted.current.knows("any/model")
    assert not restarted.current.knows("no name")
    assert restarted.current.other_names("any/model") == ()


async def test_listing_that_appears_later_is_accepted(database: Database) -> None:
    """From then on its names count, and an entry with an asterisk stands for all that match."""
    servers = Servers(database, MISSING)
    oracle = await servers.oracle()
    await oracle.refresh()
    servers.listing = UNPRICED

    assert await oracle.refresh()
    assert oracle.current is not None
    assert [oracle.current.knows(name) for name in ("llama", "lab/any", "qwen")] == [True, True, False]


async def test_unknown_price_is_never_zero(database: Database) -> None:
    """Not even if no token was used: a fee for the request may be due."""
    servers = Servers(database, UNPRICED)
    oracle = await servers.oracle()
    await oracle.refresh()

    for usage in (USAGE, TokenUsage(input_tokens=0, output_tokens=0)):
        priced = servers.price(oracle, "llama", usage=usage)
        assert priced.cost is None
        assert priced.evidence is not None
    assert oracle.bound(("llama",), request_bytes=10, max_output_tokens=10) is None


async def test_answer_under_another_name_is_priced_as_the_requested_model(database: Database, tmp_path: Path) -> None:
    """LiteLLM answers with the name behind an alias; if two models were requested, either may have served."""
    servers = Servers(database, UNPRICED)
    oracle = await servers.oracle(Upstream(rules=rules(tmp_path, "llama", "0.5")))
    await oracle.refresh()

    assert servers.price(oracle, "meta-llama-3.3-70b", "llama").cost == 5
    assert servers.price(oracle, "meta-llama-3.3-70b", "llama", "lab/x").cost is None
    assert servers.price(oracle, "lab/x", "lab/x").cost is None


async def test_listed_price_has_precedence_over_the_price_file(database: Database, tmp_path: Path) -> None:
    """The file states what the upstream does not."""
    servers = Servers(database, PRICED)
    oracle = await servers.oracle(Upstream(rules=rules(tmp_path, "*", "0")))
    await oracle.refresh()

    assert servers.price(oracle, "llama").cost == 12


async def test_changed_price_file_applies_while_the_upstream_is_down(database: Database, tmp_path: Path) -> None:
    """A server combines its own file with the stored listing; the catalogue of its calls is stored, too."""
    servers = Servers(database, UNPRICED)
    first = await servers.oracle(Upstream(rules=rules(tmp_path, "llama", "0.5")))
    await first.refresh()
    servers.listing = DOWN
    servers.provider.now += timedelta(hours=1)
    second = await servers.oracle(Upstream(rules=rules(tmp_path, "llama", "0.7")))
    await second.load()

    priced = servers.price(second, "llama")
    assert priced.cost == 7
    assert priced.evidence is not None
    assert first.current is not None
    reader = await servers.oracle()
    for hash_, cost in ((first.current.hash, Decimal(5)), (priced.evidence.catalogue_hash, Decimal(7))):
        found = await reader.price_historical(
            USAGE,
            served_model="llama",
            requested=("llama",),
            provider=None,
            at=servers.provider.now,
            catalogue_hash=hash_,
        )
        assert found.cost == cost


async def test_catalogue_of_an_earlier_build_is_openrouters(database: Database) -> None:
    """It names no upstream: a server on OpenRouter goes on with it, one on another upstream starts without."""
    servers = Servers(database, PRICED)
    await (await servers.oracle()).refresh()
    await database.collection("catalogues").update_many({}, {"$unset": {"upstreams": ""}})
    servers.listing = DOWN
    known = []
    for upstream in (OPENROUTER, Upstream(name="https://two")):
        oracle = await servers.oracle(upstream)
        await oracle.load()
        known.append(oracle.current is not None)

    assert known == [True, False]


async def test_earlier_build_reads_no_listing_without_prices(database: Database) -> None:
    """It would read that there are no models: its field is absent. A listing with prices is where it was."""
    servers = Servers(database, UNPRICED)
    await (await servers.oracle(Upstream(name="https://one"))).refresh()
    servers.listing = PRICED
    await (await servers.oracle(Upstream(name="https://two"))).refresh()
    stored = await database.collection("catalogues").find({})

    assert sorted("body" in each for each in stored) == [False, True]
    (priced,) = [each for each in stored if "body" in each]
    assert zlib.decompress(priced["body"]) == PRICED
