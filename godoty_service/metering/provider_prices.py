"""What each provider asks for each model, over time: fetched when needed, kept as seen. Owns `provider_prices`."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from bson.binary import Binary

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, StorageError
from godoty_service.metering.catalogue import EndpointPrices
from godoty_service.mongo import Collection, Document, Index

log = structlog.get_logger(__name__)

INDEXES = (
    Index(keys=[("model", 1), ("first_seen", 1)]),
    Index(keys=[("seen_time", 1)], expire_after=90 * 24 * 3600),  # no call waits so long for its price
)
_REMEMBERED = 8  # lists of a model in memory; the database has all of 90 days
_WAIT = 2.0  # seconds that a turn's first call of a model waits for its providers' prices

FetchFor = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPrices:
    """A list of a model's providers: it holds from `first_seen` on, until another one is seen."""

    prices: EndpointPrices
    hash: str
    first_seen: datetime


class ProviderPrices:
    """The providers' lists, by the ids of the models."""

    def __init__(self, collection: Collection, *, fetch: FetchFor, keep_for: timedelta, clock: Clock = utc_now) -> None:
        """Build it.

        Args:
            collection: Where the lists are kept.
            fetch: Gets the body of a model's list of providers.
            keep_for: How long a list serves before it is fetched anew.
            clock: Tells the time.
        """
        self._lists = collection
        self._fetch_list = fetch
        self._keep_for = keep_for
        self._clock = clock
        self._seen: dict[str, tuple[SeenPrices, ...]] = {}  # the oldest first
        self._tried: dict[str, datetime] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}

    async def prepare(self, models: Iterable[str]) -> None:
        """Have the lists of these models at hand, if they come within two seconds."""
        tasks = [task for model in models if (task := self._due(model)) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_WAIT)

    def newest(self, model: str) -> EndpointPrices | None:
        """Tell what providers ask now; None: not known."""
        seen = self._seen.get(model)
        return seen[-1].prices if seen else None

    def held(self, model: str, at: datetime) -> SeenPrices | None:
        """Tell what held at a time by what this server has seen; before all of it, the first is as near as it gets."""
        seen = self._seen.get(model, ())
        return next((each for each in reversed(seen) if each.first_seen <= at), seen[0] if seen else None)

    async def recall(self, model: str, at: datetime) -> SeenPrices | None:
        """Tell the same by what any server has seen; a list that nobody ever saw is fetched.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        found = await self._newest({"model": model, "first_seen": {"$lte": at}})
        found = found or await self._lists.find_one({"model": model}, sort=[("first_seen", 1)])
        if found is not None:
            return _read(found)
        await self.prepare([model])
        return self.held(model, at)

    def _due(self, model: str) -> asyncio.Task[None] | None:
        """Start fetching a list where that is due; only one that was never asked for is waited for."""
        tried = self._tried.get(model)
        if tried is not None and self._clock() - tried < self._keep_for:
            return None
        task = self._fetching.get(model)
        if task is None:
            task = self._fetching[model] = asyncio.create_task(self._fetch(model))
        return task if tried is None else None

    async def _fetch(self, model: str) -> None:
        try:
            body = await self._fetch_list(model)
            prices = EndpointPrices.parse(body)
        except (GodotyError, ValueError, TypeError) as error:
            log.warning("provider_prices_fetch_failed", model=model, error=str(error))
        else:
            await self._take(model, SeenPrices(prices=prices, hash=prices.hash, first_seen=self._clock()), body)
        finally:
            self._tried[model] = self._clock()
            self._fetching.pop(model, None)

    async def _take(self, model: str, seen: SeenPrices, body: bytes) -> None:
        try:
            seen = await self._keep(model, seen, body)
        except StorageError as error:
            log.warning("provider_prices_not_kept", model=model, error=str(error))
        before = self._seen.get(model, ())
        if not before or before[-1].hash != seen.hash:
            self._seen[model] = (*before, seen)[-_REMEMBERED:]

    async def _keep(self, model: str, seen: SeenPrices, body: bytes) -> SeenPrices:
        """Keep a list unless it is the one seen last; returns it with the time from which it holds."""
        last = await self._newest({"model": model})
        if last is not None and last["hash"] == seen.hash:
            await self._lists.update_one({"_id": last["_id"]}, {"$max": {"seen_time": seen.first_seen}})
            return replace(seen, first_seen=last["first_seen"])
        await self._lists.insert_one(
            {
                "model": model,
                "hash": seen.hash,
                "first_seen": seen.first_seen,
                "seen_time": seen.first_seen,
                "body": Binary(zlib.compress(body)),
            }
        )
        return seen

    async def _newest(self, query: Document) -> Document | None:
        return await self._lists.find_one(query, sort=[("first_seen", -1)])


def _read(document: Document) -> SeenPrices:
    prices = EndpointPrices.parse(zlib.decompress(document["body"]))
    return SeenPrices(prices=prices, hash=document["hash"], first_seen=document["first_seen"])
