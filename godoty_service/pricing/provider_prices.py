"""Each provider's prices for each model over time: fetched on demand and stored. Owns `provider_prices`."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

import structlog
from bson.binary import Binary

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, StorageError, provider_message
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.pricing.catalogue import EndpointPrices
from godoty_service.pricing.listing_checks import check_endpoints

log = structlog.get_logger(__name__)

_CACHED = 8  # lists per model in memory; the database has all of 90 days
_WAIT = 2.0  # seconds from its start that calls wait for a fetch if no list is valid

FetchFor = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSnapshot:
    """A list of a model's providers, valid from `first_seen` until another one is seen or it is stale."""

    prices: EndpointPrices
    hash: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetch:
    """A fetch in progress."""

    task: asyncio.Task[None]
    started_at: float  # by the event loop's clock


class ProviderPrices:
    """Fetches, stores and caches the providers' price lists, by model id."""

    COLLECTION = "provider_prices"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("model", 1), ("first_seen", 1)]),
        Index(keys=[("seen_time", 1)], expire_after=90 * 24 * 3600),  # no call waits so long for its price
    )

    def __init__(
        self,
        collection: Collection,
        *,
        fetch: FetchFor,
        keep_for: timedelta,
        on_rejected: Callable[[str], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        """Build it.

        Args:
            collection: Stores the lists.
            fetch: Fetches the body of a model's list of providers.
            keep_for: How long a list is valid after it was seen; it is refreshed in the background after half of this.
            on_rejected: Called with "providers" for each list that was fetched and rejected.
            clock: Returns the time.
        """
        self._lists = collection
        self._fetch_list = fetch
        self._valid_for = keep_for
        self._on_rejected = on_rejected
        self._clock = clock
        self._seen: dict[str, tuple[PriceSnapshot, ...]] = {}  # the oldest first
        self._tried: dict[str, datetime] = {}
        self._fetching: dict[str, _Fetch] = {}

    async def prepare(self, models: Iterable[str]) -> None:
        """Load valid lists of these models; wait at most two seconds for those that are missing or stale."""
        now = asyncio.get_running_loop().time()
        fetches = [
            each
            for model in models
            if (each := self._start_refresh(model)) is not None and now - each.started_at < _WAIT
        ]
        if fetches:
            await asyncio.wait([each.task for each in fetches], timeout=_WAIT - now + max(map(_started_at, fetches)))

    def newest(self, model: str) -> EndpointPrices | None:
        """Return the newest list of a model; None: none is known."""
        seen = self._seen.get(model)
        return seen[-1].prices if seen else None

    def at(self, model: str, at: datetime) -> PriceSnapshot | None:
        """Return the list in force at a time, of those that this server has seen; before all of them, the first."""
        seen = self._seen.get(model, ())
        before = next((each for each in reversed(seen) if each.first_seen <= at), None)
        after = next((each for each in seen if each.first_seen > at), None)
        return self._nearest(before, after, at)

    async def load_at(self, model: str, at: datetime) -> PriceSnapshot | None:
        """Return the list in force at a time, of those that any server has seen; fetch one if there is none.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        before = await self._newest({"model": model, "first_seen": {"$lte": at}})
        after = await self._lists.find_one({"model": model, "first_seen": {"$gt": at}}, sort=[("first_seen", 1)])
        found = self._nearest(_decode(before) if before else None, _decode(after) if after else None, at)
        if found is not None:
            return found
        await self.prepare([model])
        return self.at(model, at)

    def _nearest(self, before: PriceSnapshot | None, after: PriceSnapshot | None, at: datetime) -> PriceSnapshot | None:
        """Return the list in force, of those seen before and after a time: the later one if the earlier was stale."""
        if before is None or after is None:
            return before or after
        unseen = at - before.last_seen
        return after if unseen > self._valid_for and after.first_seen - at < unseen else before

    def _start_refresh(self, model: str) -> _Fetch | None:
        """Start fetching a list if that is due; return the fetch if calls must wait for it."""
        now, tried, fetch = self._clock(), self._tried.get(model), self._fetching.get(model)
        if fetch is None:
            if tried is not None and now - tried < self._valid_for / 2:
                return None
            task = asyncio.create_task(self._fetch(model))
            fetch = self._fetching[model] = _Fetch(task=task, started_at=asyncio.get_running_loop().time())
        seen = self._seen.get(model)
        return None if seen and now - seen[-1].last_seen < self._valid_for else fetch

    async def _fetch(self, model: str) -> None:
        try:
            body = await self._fetch_list(model)
        except GodotyError as error:
            message = provider_message(error)
            log.warning("provider_prices_fetch_failed", model=model, error=str(error), provider_message=message)
        else:
            await self._check(model, body)
        finally:
            self._tried[model] = self._clock()
            self._fetching.pop(model, None)

    async def _check(self, model: str, body: bytes) -> None:
        """Accept a fetched list, unless it is malformed or implausible: then the last one stays in force."""
        now = self._clock()
        try:
            prices = EndpointPrices.parse(body)
            check_endpoints(prices)
        except (ValueError, TypeError) as error:
            log.error("price_list_rejected", list="providers", model=model, error=str(error))  # noqa: TRY400 - the text is the whole cause
            self._on_rejected("providers")
        else:
            await self._accept(
                model, PriceSnapshot(prices=prices, hash=prices.hash, first_seen=now, last_seen=now), body
            )

    async def _accept(self, model: str, seen: PriceSnapshot, body: bytes) -> None:
        try:
            seen = await self._store(model, seen, body)
        except StorageError as error:
            log.warning("provider_prices_not_stored", model=model, error=str(error))
        before = self._seen.get(model, ())
        if before and before[-1].hash == seen.hash:
            before, seen = before[:-1], replace(before[-1], last_seen=seen.last_seen)
        self._seen[model] = (*before, seen)[-_CACHED:]

    async def _store(self, model: str, seen: PriceSnapshot, body: bytes) -> PriceSnapshot:
        """Insert a list unless it equals the newest one; return it with the time from which it is valid."""
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


def _decode(document: Document) -> PriceSnapshot:
    prices = EndpointPrices.parse(zlib.decompress(document["body"]))
    return PriceSnapshot(
        prices=prices,
        hash=document["hash"],
        first_seen=document["first_seen"],
        last_seen=document["seen_time"],
    )


def _started_at(fetch: _Fetch) -> float:
    return fetch.started_at
