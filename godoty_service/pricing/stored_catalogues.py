"""Catalogues as they are stored: the body of the listing, and the operator's prices that apply with it."""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import structlog
from bson.binary import Binary

from godoty_service.mongo.collection import Collection, Document
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.price_file import PriceRules

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The provider whose listing a catalogue is.

    Attributes:
        name: Its base URL. Catalogues of other upstreams are neither loaded nor compared with its own.
        lists_prices: Whether its listing always has prices, as OpenRouter's has.
        rules: The operator's own prices for models that it lists without prices.
    """

    name: str = ""
    lists_prices: bool = False
    rules: PriceRules = field(default_factory=PriceRules)


def stored_fields(catalogue: Catalogue, body: bytes | None) -> Document:
    """Return the fields of a new catalogue's document, whose key is its hash.

    A listing without prices is not in `body`: an earlier build would read from it that there are no models, and refuse
    them all. Without the field it goes on as if there were no catalogue.
    """
    document: Document = {"fetch_time": catalogue.fetch_time, **rule_fields(catalogue.rules)}
    if body is None:
        return document | {"listed": False}
    return document | {"body" if catalogue.has_prices else "unpriced_body": Binary(zlib.compress(body))}


def rule_fields(rules: PriceRules) -> Document:
    """Return the field of the operator's prices."""
    return {"price_rules": rules.to_document()} if rules else {}


async def newest_catalogue(collection: Collection) -> Catalogue | None:
    """Return the newest stored catalogue of any upstream; None: none is stored yet."""
    newest = await newest_document(collection)
    return None if newest is None else await decode_catalogue(newest)


async def newest_document(collection: Collection, upstream: Upstream | None = None) -> Document | None:
    """Return the newest catalogue's document, of one upstream or of any; those of earlier builds are OpenRouter's."""
    query: dict[str, Any] = {}
    if upstream is not None:
        query["upstreams"] = {"$in": [upstream.name, *([None] if upstream.lists_prices else [])]}
    return await collection.find_one(query, sort=[("seen_time", -1)])


async def decode_or_none(document: Document | None) -> Catalogue | None:
    """Decode a stored catalogue; None for one that cannot be decoded."""
    try:
        return None if document is None else await decode_catalogue(document)
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        log.warning("stored_catalogue_unreadable", error=str(error))
        return None


async def decode_catalogue(document: Document) -> Catalogue:
    """Decode a stored catalogue in a thread. Its key is its hash, even if this version would compute another.

    Raises:
        ValueError: The document is no catalogue; also TypeError, KeyError and zlib.error.
    """
    rules = PriceRules.from_document(document.get("price_rules", ()))
    return replace(await decode_with_rules(document, rules), hash=document["_id"])


async def decode_with_rules(document: Mapping[str, Any], rules: PriceRules) -> Catalogue:
    """Decode a stored catalogue's listing in a thread, with other prices of the operator; errors as above."""
    fetch_time = document["fetch_time"]
    if not isinstance(fetch_time, datetime):
        raise TypeError("not a stored catalogue")
    if document.get("listed") is False:
        return Catalogue.unlisted(fetch_time=fetch_time, rules=rules)
    body = document.get("body", document.get("unpriced_body"))
    if not isinstance(body, bytes):
        raise TypeError("not a stored catalogue")
    return await asyncio.to_thread(lambda: parse_listing(zlib.decompress(body), fetch_time=fetch_time, rules=rules))


def parse_listing(body: bytes, *, fetch_time: datetime, rules: PriceRules) -> Catalogue:
    """Parse the body of `GET /models`. The last one is not parsed again: it is fetched each hour, and changes seldom.

    Raises:
        ValueError: It is no listing.
        TypeError: A price is a float.
    """
    if rules:
        return Catalogue.parse(body, fetch_time=fetch_time, rules=rules)
    return replace(_last_parsed(body), fetch_time=fetch_time)


@lru_cache(maxsize=1)
def _last_parsed(body: bytes) -> Catalogue:
    return Catalogue.parse(body, fetch_time=datetime.min.replace(tzinfo=UTC))
