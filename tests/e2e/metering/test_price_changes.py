"""Prices change while calls run or wait to be settled: each call has those of its start."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.errors import ModelUnavailable
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.openrouter.api import OpenRouterApi
from openrouter_sandbox.models import providers
from tests.e2e.metering.conftest import NEVER, StartCaller
from tests.e2e.metering.reconciler_harness import billed, closed
from tests.support.caller import Caller, read
from tests.support.service import PATIENCE, soon

MODEL = "openai/gpt-4o-mini"
AT_ONCE = {"catalogue_refresh": 0.4, "reconcile_interval": NEVER}
HELD = "@sandbox plain tokens=60 hold_after=10 hold={hold}"


class Listing:
    """OpenRouter's listing, in which the test changes the model's prices; no provider's own list is readable.

    Attributes:
        factor: The factor of the changed prices.
    """

    def __init__(self) -> None:
        self.factor = 1

    def change(self, body: bytes) -> bytes:
        """Return the body of `GET /models` with the changed prices."""
        document = json.loads(body, parse_float=Decimal)
        for entry in document["data"]:
            if entry["id"] == MODEL:
                prices = entry["pricing"]
                prices.update({key: str(Decimal(prices[key]) * self.factor) for key in ("prompt", "completion")})
        return json.dumps(document).encode()


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Listing:
    """The listing of all servers that start from now on."""
    found, models = Listing(), OpenRouterApi.models

    async def changed(account: OpenRouterApi) -> bytes:
        return found.change(await models(account))

    async def none(account: OpenRouterApi, model: str) -> bytes:
        raise ModelUnavailable("There is no such list.")

    monkeypatch.setattr(OpenRouterApi, "models", changed)
    monkeypatch.setattr(OpenRouterApi, "endpoints", none)
    return found


def assert_priced_as_at_the_start(caller: Caller, entry: ModelCall) -> None:
    """Check that the oracle's price equals the bill, at the prices of the request's time."""
    assert entry.catalogue_cost == billed(caller, entry) > 0


async def started(caller: Caller, directive: str) -> Any:
    """Start a turn, and read it to its first text."""
    call = caller.start(directive)
    async for response in call:
        if response.HasField("text_delta"):
            return call
    raise AssertionError("no text came")


async def test_running_call_has_the_catalogue_of_its_start(start_caller: StartCaller, listing: Listing) -> None:
    """The prices double in the middle of an answer: the next call has them, this one does not."""
    caller = await start_caller(**AT_ONCE)
    call = await started(caller, HELD.format(hold="doubled"))
    listing.factor = 2
    await soon(lambda: caller.service.database["catalogues"].count_documents({}) == 2)
    caller.service.backends.allow("doubled")
    await read(call)
    await caller.converse("hello")

    first, second = caller.service.entries("talk")
    assert_priced_as_at_the_start(caller, first)
    assert second.catalogue_cost == 2 * billed(caller, second)
    assert first.evidence is not None
    assert second.evidence is not None
    assert second.evidence.prices.prompt == 2 * (first.evidence.prices.prompt or 0)
    assert first.evidence.catalogue_hash != second.evidence.catalogue_hash


async def test_call_is_settled_with_the_catalogue_of_its_start(start_caller: StartCaller, listing: Listing) -> None:
    """A server that has only seen the doubled prices settles it from the catalogue at the old ones."""
    caller = await start_caller(reconcile_interval=NEVER)
    await caller.converse("@sandbox no-cost record_ms=-1")
    listing.factor = 2
    await start_caller(database=caller.service.database.name, record_patience_with_usage=0.1)
    entry = await closed(caller)

    assert entry.cost_source is CostSource.CATALOGUE
    assert entry.cost == entry.catalogue_cost
    assert_priced_as_at_the_start(caller, entry)


async def test_running_call_has_its_provider_price(start_caller: StartCaller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider multiplies its price by nine, and the server has seen it, before the answer ends."""
    caller = await start_caller(**{**AT_ONCE, "catalogue_refresh": 0.8})  # the first list is fresh when the call starts
    call = await started(caller, HELD.format(hold="ninefold") + " provider=Azure")
    monkeypatch.setitem(providers._FACTORS, (MODEL, "Azure"), Decimal(9))
    async with asyncio.timeout(PATIENCE):
        while caller.service.database["provider_prices"].count_documents({"model": MODEL}) < 2:
            await caller.converse("hello", session_id="other")
            await asyncio.sleep(0.1)
    caller.service.backends.allow("ninefold")
    await read(call)
    await caller.converse("@sandbox plain provider=Azure")

    first, second = caller.service.entries("talk")
    assert_priced_as_at_the_start(caller, first)
    assert_priced_as_at_the_start(caller, second)
    assert first.evidence is not None
    assert second.evidence is not None
    assert first.evidence.prices.prompt == Decimal("0.000000165")
    assert second.evidence.prices.prompt == Decimal("0.00000135")
    assert first.evidence.provider_prices_hash != second.evidence.provider_prices_hash


async def test_call_is_settled_with_its_provider_price(
    start_caller: StartCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has only seen the ninefold price settles it from the list of its start."""
    caller = await start_caller(reconcile_interval=NEVER)
    await caller.converse("@sandbox no-cost provider=Azure record_ms=-1")
    (deferred,) = caller.service.entries("talk")
    monkeypatch.setitem(providers._FACTORS, (MODEL, "Azure"), Decimal(9))
    other = await start_caller(database=caller.service.database.name, record_patience_with_usage=0.1)
    await other.converse("hello", session_id="other")
    entry = await closed(caller)

    assert entry.cost_source is CostSource.CATALOGUE
    assert entry.cost == entry.catalogue_cost
    assert_priced_as_at_the_start(caller, entry)
    assert entry.evidence == deferred.evidence
    assert entry.evidence is not None
    assert entry.evidence.provider_prices_time is not None
    assert entry.evidence.provider_prices_time <= entry.start_time
