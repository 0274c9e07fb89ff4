"""What a provider lists, with prices that a test changes, and a clock that it turns."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty_service.errors import ProviderUnavailable
from godoty_service.mongo.client import Database
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.provider_prices import ProviderPrices
from godoty_service.pricing.server_tools import ServerToolPrices

MODEL = "maker/model"
KEEP_FOR = timedelta(minutes=10)


class Provider:
    """A provider of one model.

    Attributes:
        now: What its clock says; the servers' too.
        listed: The price of a prompt token in `/models`, in US dollars.
        own: By provider, what a prompt token costs there.
        reachable: Whether it answers.
        asked: How often it was asked for the providers' prices.
    """

    def __init__(self) -> None:
        # Of today: MongoDB deletes what was seen last 90 days ago, by its own clock.
        self.now = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
        self.listed = "0.001"
        self.own = {"Acme": "0.001"}
        self.reachable = True
        self.asked = 0

    def clock(self) -> datetime:
        """The time."""
        return self.now

    async def models(self) -> bytes:
        """The body of `GET /models`."""
        self._answer()
        return _body([{"id": MODEL, "pricing": _pricing(self.listed), "context_length": 1000}])

    async def endpoints(self, model: str) -> bytes:
        """The body of `GET /models/{model}/endpoints`."""
        self.asked += 1
        self._answer()
        offers = [
            {"provider_name": name, "tag": name.lower(), "pricing": _pricing(price), "uptime_last_30m": self.asked}
            for name, price in self.own.items()
        ]
        return _body({"id": model, "endpoints": offers})

    async def tools(self) -> bytes:
        """The body of `GET /tools`."""
        self._answer()
        return _body([])

    async def server(self, database: Database) -> tuple[PricingOracle, ProviderPrices]:
        """Start the prices of a server: nothing is loaded or fetched yet."""
        await database.collection("catalogues").ensure(PricingOracle.INDEXES)
        await database.collection("provider_prices").ensure(ProviderPrices.INDEXES)
        providers = ProviderPrices(
            database.collection("provider_prices"), fetch=self.endpoints, keep_for=KEEP_FOR, clock=self.clock
        )
        catalogues = database.collection("catalogues")
        oracle = PricingOracle(
            catalogues,
            fetch_models=self.models,
            providers=providers,
            server_tools=ServerToolPrices(fetch=self.tools),
            clock=self.clock,
        )
        return oracle, providers

    async def fetch_current(self, providers: ProviderPrices) -> None:
        """Make a server fetch the current list, and wait until it has it."""
        await providers.prepare([MODEL])
        prompt = {Decimal(price) for price in self.own.values()}
        async with asyncio.timeout(180):
            while (newest := providers.newest(MODEL)) is None or {
                each.prices.prompt for each in newest.endpoints
            } != prompt:
                await asyncio.sleep(0.01)

    def _answer(self) -> None:
        if not self.reachable:
            raise ProviderUnavailable("The provider cannot be reached.")


def _pricing(price: str) -> dict[str, str]:
    return {"prompt": price, "completion": "0"}


def _body(data: Any) -> bytes:
    return json.dumps({"data": data}).encode()
