"""The prices of server tools, and the bound of a request that offers some."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.agents.definitions import AgentDefinition
from godoty_service.agents.server_tools import FetchEngine, SearchEngine, WebFetch, WebSearch
from godoty_service.errors import ProviderUnavailable
from godoty_service.pricing.catalogue import CatalogueModel
from godoty_service.pricing.server_tools import (
    NO_SERVER_TOOLS,
    ServerToolBound,
    ServerToolPrices,
    ServerToolUse,
    parse_prices,
)
from godoty_service.pricing.unit_prices import UnitPrices
from godoty_service.pricing.upper_bound import TEMPLATE_TOKENS, upper_bound
from godoty_service.turns.agents.server_tools import server_tool_fields, server_tool_offer
from openrouter_sandbox.answers.server_tools import check_server_tools, run_server_tools
from openrouter_sandbox.conversation import Conversation
from openrouter_sandbox.models.catalogue import Model
from openrouter_sandbox.models.pricing import Counts, charge
from openrouter_sandbox.models.server_tools import listing
from openrouter_sandbox.scenarios.scenario import Scenario

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SEARCH = ServerToolUse(tool="openrouter:web_search", engine="exa", max_uses=3, result_tokens=100)
LISTED = json.dumps(listing()).encode()


def listed(*rows: dict[str, Any], **engine: Any) -> bytes:
    """Return the body of `GET /tools` with one engine of one tool."""
    known = {"id": "exa", "pricing_source": "openrouter", "default_mode": "auto", "pricing": list(rows), **engine}
    other = {"id": "x", "engines": [{"id": "free", "pricing_source": "none", "pricing": []}]}
    return json.dumps({"data": [{"id": "openrouter:web_search", "engines": [known]}, other]}).encode()


def row(price: Any, units: Any = 1, mode: str | None = "auto", unit: str = "request") -> dict[str, Any]:
    """Return a price."""
    return {"unit": unit, "price": price, "mode": mode, "max_units_per_call": units}


def call_price(body: bytes) -> Decimal | None:
    """Return the most that one search by Exa costs."""
    return parse_prices(body).get(("openrouter:web_search", "exa"))


def test_call_costs_its_rows_times_their_units() -> None:
    """Rows of the default mode, and those of every mode; rows of other modes do not count."""
    body = listed(row("0.007"), row("0.001", 15, None, "result"), row("9", 1, "deep"))

    assert call_price(body) == Decimal("0.022")


@pytest.mark.parametrize(
    "body",
    [
        listed(),
        listed(row("-1")),
        listed(row("0.007"), row("-1", 1, None, "result")),
        listed(row(None)),
        listed(row({"usd": 1})),
        listed(row("0.007", 0)),
        listed(row("0.007", -1)),
        listed(row("0.007", None)),
        listed(row("0.007", "1")),
        listed(row("999999", 10**9)),
        listed(row("0.007", 1, "deep")),
        listed(*[row("0.007")] * 51),
        listed(row("0.007"), ["0.5"]),  # type: ignore[arg-type] # a row that is none
        listed(row("0.007"), pricing_source="provider"),
        listed(row("0.007"), pricing_source="byok"),
        listed(row("0.007"), pricing_source="later"),
    ],
)
def test_engine_without_a_finite_price_has_none(body: bytes) -> None:
    """A row that cannot be read makes the call unpriced: nothing is priced by a part of its rows."""
    assert call_price(body) is None


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"null", b'{"data": {}}', b'{"data": []}', b'{"data": [1, null, "a"]}'),
        b"[" * 10**5,
    ],
)
def test_body_that_prices_nothing_is_refused(body: bytes) -> None:
    """Also one of another shape."""
    with pytest.raises(ValueError, match=r"."):
        parse_prices(body)


class Provider:
    """A provider whose list a test changes.

    Attributes:
        now: The time.
        body: What it answers; None: it cannot be reached.
        asked: How often it was asked.
    """

    def __init__(self, body: bytes | None) -> None:
        self.now, self.body, self.asked = NOW, body, 0
        self.prices = ServerToolPrices(fetch=self.fetch, clock=lambda: self.now)

    async def fetch(self) -> bytes:
        """Answer."""
        self.asked += 1
        if self.body is None:
            raise ProviderUnavailable("It cannot be reached.")
        return self.body


@pytest.mark.parametrize(("prices", "dearest"), [(["0.007", "0.1", "0"], Decimal("0.1")), (["0.007", "-1"], None)])
def test_engine_that_is_listed_twice_costs_the_dearest_price(prices: list[str], dearest: Decimal | None) -> None:
    """One that is not known is no price."""
    entries = [json.loads(listed(row(price)))["data"][0]["engines"][0] for price in prices]
    free = {"id": "x", "engines": [{"id": "free", "pricing_source": "none", "pricing": []}]}
    body = {"data": [{"id": "openrouter:web_search", "engines": entries}, free]}

    assert call_price(json.dumps(body).encode()) == dearest


async def test_list_is_fetched_when_a_call_needs_it() -> None:
    """Once an hour; before, no tool has a bound, and without tools nothing is added."""
    provider = Provider(LISTED)
    assert provider.prices.bound([SEARCH]) is None
    assert provider.prices.bound([]) == NO_SERVER_TOOLS
    for minutes in (0, 30, 59):
        provider.now = NOW + timedelta(minutes=minutes)
        await provider.prices.prepare()

    assert provider.asked == 1
    assert provider.prices.bound([SEARCH]) == ServerToolBound(
        fees=Decimal("0.021"), answers=4, description_tokens=2048, result_tokens=100
    )


async def test_stale_list_is_no_bound_while_a_newer_one_can_be_had() -> None:
    """A call after an idle night counts what a search costs now."""
    provider = Provider(listed(row("0.007")))
    await provider.prices.prepare()
    provider.now, provider.body = NOW + timedelta(hours=9), listed(row("0.1"))
    await provider.prices.prepare()
    bound = provider.prices.bound([SEARCH])

    assert bound is not None
    assert bound.fees == 3 * Decimal("0.1")


@pytest.mark.parametrize("failure", [None, b"<html>", b'{"data": []}'])
async def test_last_list_stays_in_force(failure: bytes | None) -> None:
    """While the next cannot be fetched or prices nothing; it is tried again after a minute."""
    provider = Provider(LISTED)
    await provider.prices.prepare()
    provider.body = failure
    for seconds in (3600, 3601, 3660):
        provider.now = NOW + timedelta(seconds=seconds)
        await provider.prices.prepare()
        while provider.prices._fetching is not None:
            await provider.prices._fetching

    assert provider.asked == 3
    assert provider.prices.bound([SEARCH]) is not None


@pytest.mark.parametrize(
    "use",
    [
        ServerToolUse(tool="openrouter:web_search", engine="native", max_uses=1, result_tokens=None),
        ServerToolUse(tool="openrouter:web_search", engine="exa", max_uses=1, result_tokens=None),
        ServerToolUse(tool="openrouter:web_search", engine="unlisted", max_uses=1, result_tokens=1),
        ServerToolUse(tool="openrouter:unlisted", engine="exa", max_uses=1, result_tokens=1),
    ],
)
async def test_one_unbounded_tool_makes_the_request_unbounded(use: ServerToolUse) -> None:
    """Without a price, or with results of any size."""
    provider = Provider(LISTED)
    await provider.prices.prepare()

    assert provider.prices.bound([SEARCH, use]) is None
    assert [provider.prices.is_unbounded(each) for each in (SEARCH, use)] == [False, True]


def model_of(**prices: str) -> CatalogueModel:
    """Return a model."""
    listing = {"prompt": "1", "completion": "10", **prices}
    return CatalogueModel(id="x/y", canonical_slug="x/y", prices=UnitPrices.from_listing(listing))


def test_bound_counts_every_answer_of_the_loop() -> None:
    """By hand: 3 answers of 3,000 + 50 tokens, results in two, twice 100 tokens of output for each earlier answer."""
    tools = ServerToolBound(fees=Decimal("0.5"), answers=3, description_tokens=50, result_tokens=400)
    bound = upper_bound(
        request_bytes=3000 - TEMPLATE_TOKENS,
        max_output_tokens=100,
        models=[model_of(request="7")],
        server_tools=tools,
    )

    inputs = 3 * 3050 + 2 * 400 + (2 * 100) * (0 + 1 + 2)
    assert bound == inputs + 10 * 3 * 100 + 7 * 3 + Decimal("0.5")


def test_results_reach_the_price_of_long_prompts() -> None:
    """An override above a length of the prompt counts if the answers together can exceed it."""
    overrides: Any = [{"min_prompt_tokens": 5000, "prompt": "2"}]
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "0", "overrides": overrides})
    dear = CatalogueModel(id="x/y", canonical_slug="x/y", prices=prices)
    request: dict[str, Any] = {"request_bytes": 3000 - TEMPLATE_TOKENS, "max_output_tokens": 100, "models": [dear]}

    assert upper_bound(**request) == 3000
    tools = ServerToolBound(answers=2, result_tokens=10)
    assert upper_bound(**request, server_tools=tools) == 2 * (6000 + 10 + 200)


searches = st.builds(
    WebSearch,
    engine=st.sampled_from([None, SearchEngine.EXA, SearchEngine.PARALLEL, SearchEngine.PERPLEXITY]),
    max_uses=st.none() | st.integers(min_value=1, max_value=10),
    max_results=st.none() | st.integers(min_value=1, max_value=20),
    max_characters=st.none() | st.integers(min_value=100, max_value=20_000),
)
fetches = st.builds(
    WebFetch,
    engine=st.sampled_from([None, FetchEngine.OPENROUTER, FetchEngine.EXA, FetchEngine.PARALLEL]),
    max_uses=st.none() | st.integers(min_value=1, max_value=10),
    max_content_tokens=st.none() | st.integers(min_value=100, max_value=100_000),
)


@given(st.none() | searches, st.none() | fetches, st.integers(min_value=1, max_value=40), st.sampled_from("01"))
def test_no_run_of_the_emulator_costs_more_than_the_bound(
    search: WebSearch | None, fetch: WebFetch | None, uses: int, together: str
) -> None:
    """With any number of calls, in one step or in many, and results as large as the request allows."""
    definition = AgentDefinition(name="a", web_search=search, web_fetch=fetch)
    offer = server_tool_offer(definition)
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 400,
        "tools": list(offer.entries),
        **server_tool_fields(definition),
    }
    conversation = Conversation(body)
    check_server_tools(conversation)
    entries = {each["type"]: each["parameters"] for each in offer.entries}
    sizes = [parameters.get("max_characters") for parameters in entries.values() if "max_characters" in parameters]
    sizes += [parameters["max_content_tokens"] for parameters in entries.values() if "max_content_tokens" in parameters]
    scenario = Scenario.create(
        "plain", {"uses": uses, "together": together, "result_tokens": min(sizes, default=0), "tokens": 400}
    )
    pricing = {"prompt": "0.000003", "completion": "0.000015"}
    run = run_server_tools(conversation, scenario, Model("x/y", "x/y", "", pricing, 10**6))
    counts = Counts(
        prompt=run.prompt_tokens(conversation.prompt_tokens),
        completion=run.call_tokens + 400,
        surcharge=run.fees,
    )
    prices = ServerToolPrices(fetch=_never)
    prices._prices = parse_prices(LISTED)
    tools = prices.bound(offer.uses)
    assert tools is not None
    bound = upper_bound(
        request_bytes=len(json.dumps(body).encode()),
        max_output_tokens=400,
        models=[model_of(**pricing)],
        server_tools=tools,
    )

    assert bound is not None
    assert charge(pricing, counts, NOW).total <= bound


async def _never() -> bytes:
    raise AssertionError


@pytest.mark.parametrize("engine", ["auto", "native"])
def test_engine_that_ignores_limits_has_no_bound(engine: str) -> None:
    """The tools of a model's provider ignore most limits of a request."""
    search, fetch = WebSearch(engine=SearchEngine(engine)), WebFetch(engine=FetchEngine(engine))
    uses = server_tool_offer(AgentDefinition(name="a", web_search=search, web_fetch=fetch)).uses

    assert [each.label for each in uses] == [
        f"openrouter:web_search with the engine {engine}",
        f"openrouter:web_fetch with the engine {engine}",
    ]
    assert [each.result_tokens for each in uses] == [None, None]
