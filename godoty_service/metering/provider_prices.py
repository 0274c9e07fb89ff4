"""What each provider asks for each model, over time: fetched when needed, kept as seen. Owns `provider_prices`."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from bson.binary import Binary

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, StorageError, provider_message
from godoty_service.metering.catalogue import EndpointPrices
from godoty_service.metering.listing_checks import check_endpoints
from godoty_service.mongo import Collection, Document, Index

log = structlog.get_logger(__name__)

INDEXES = (
    Index(keys=[("model", 1), ("first_seen", 1)]),
    Index(keys=[("seen_time", 1)], expire_after=90 * 24 * 3600),  # no call waits so long for its price
)
_REMEMBERED = 8  # lists of a model in memory; the database has all of 90 days
_WAIT = 2.0  # seconds from a fetch's start that calls wait for it where no list holds

FetchFor = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPrices:
    """A list of a model's providers: it holds from `first_seen` on, until another one is seen or it is stale."""

    prices: EndpointPrices
    hash: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetch:
    """A fetch that is under way."""

    task: asyncio.Task[None]
    started_at: float  # by the event loop's clock


class ProviderPrices:
    """The providers' lists, by the ids of the models."""

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
            collection: Where the lists are kept.
            fetch: Gets the body of a model's list of providers.
            keep_for: How long a list holds after it was seen; it is renewed beside the calls when half of this is over.
            on_rejected: Called with "providers" for each list that was fetched and not taken.
            clock: Tells the time.
        """
        self._lists = collection
        self._fetch_list = fetch
        self._keep_for = keep_for
        self._on_rejected = on_rejected
        self._clock = clock
        self._seen: dict[str, tuple[SeenPrices, ...]] = {}  # the oldest first
        self._tried: dict[str, datetime] = {}
        self._fetching: dict[str, _Fetch] = {}

    async def prepare(self, models: Iterable[str]) -> None:
        """Have lists of these models that hold now; one that is missing or stale is waited for, two seconds at most."""
        now = asyncio.get_running_loop().time()
        fetches = [
            each for model in models if (each := self._renewal(model)) is not None and now - each.started_at < _WAIT
        ]
        if fetches:
            await asyncio.wait([each.task for each in fetches], timeout=_WAIT - now + max(map(_started_at, fetches)))

    def newest(self, model: str) -> EndpointPrices | None:
        """Tell what providers ask now; None: not known."""
        seen = self._seen.get(model)
        return seen[-1].prices if seen else None

    def held(self, model: str, at: datetime) -> SeenPrices | None:
        """Return the list that held at a time by what this server has seen; before all of it, the first."""
        seen = self._seen.get(model, ())
        before = next((each for each in reversed(seen) if each.first_seen <= at), None)
        after = next((each for each in seen if each.first_seen > at), None)
        return self._nearest(before, after, at)

    async def recall(self, model: str, at: datetime) -> SeenPrices | None:
        """Return the same by what any server has seen; a list that nobody ever saw is fetched.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        before = await self._newest({"model": model, "first_seen": {"$lte": at}})
        after = await self._lists.find_one({"model": model, "first_seen": {"$gt": at}}, sort=[("first_seen", 1)])
        found = self._nearest(_read(before) if before else None, _read(after) if after else None, at)
        if found is not None:
            return found
        await self.prepare([model])
        return self.held(model, at)

    def _nearest(self, before: SeenPrices | None, after: SeenPrices | None, at: datetime) -> SeenPrices | None:
        """Choose between the lists that were seen around a time: one that is stale then gives way to a nearer one."""
        if before is None or after is None:
            return before or after
        unseen = at - before.last_seen
        return after if unseen > self._keep_for and after.first_seen - at < unseen else before

    def _renewal(self, model: str) -> _Fetch | None:
        """Start fetching a list where that is due; returns a fetch that has to be waited for."""
        now, tried, fetch = self._clock(), self._tried.get(model), self._fetching.get(model)
        if fetch is None:
            if tried is not None and now - tried < self._keep_for / 2:
                return None
            task = asyncio.create_task(self._fetch(model))
            fetch = self._fetching[model] = _Fetch(task=task, started_at=asyncio.get_running_loop().time())
        seen = self._seen.get(model)
        return None if seen and now - seen[-1].last_seen < self._keep_for else fetch

    async def _fetch(self, model: str) -> None:
        try:
            body = await self._fetch_list(model)
        except GodotyError as error:
            said = provider_message(error)
            log.warning("provider_prices_fetch_failed", model=model, error=str(error), provider_message=said)
        else:
            await self._check(model, body)
        finally:
            self._tried[model] = self._clock()
            self._fetching.pop(model, None)

    async def _check(self, model: str, body: bytes) -> None:
        """Take a list up, unless it is one that the provider cannot mean: then the last one stays."""
        now = self._clock()
        try:
            prices = EndpointPrices.parse(body)
            check_endpoints(prices)
        except (ValueError, TypeError) as error:
            log.error("price_list_rejected", list="providers", model=model, error=str(error))  # noqa: TRY400 - the text says it all
            self._on_rejected("providers")
        else:
            await self._take(model, SeenPrices(prices=prices, hash=prices.hash, first_seen=now, last_seen=now), body)

    async def _take(self, model: str, seen: SeenPrices, body: bytes) -> None:
        try:
            seen = await self._keep(model, seen, body)
        except StorageError as error:
            log.warning("provider_prices_not_kept", model=model, error=str(error))
        before = self._seen.get(model, ())
        if before and before[-1].hash == seen.hash:
            before, seen = before[:-1], replace(before[-1], last_seen=seen.last_seen)
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
    return SeenPrices(
        prices=prices,
        hash=document["hash"],
        first_seen=document["first_seen"],
        last_seen=document["seen_time"],
    )


def _started_at(fetch: _Fetch) -> float:
    return fetch.started_at
