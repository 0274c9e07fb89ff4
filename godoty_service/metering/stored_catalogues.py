"""Catalogues as the database keeps them: the listing's body, and the operator's prices that hold with it."""

import asyncio
import zlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog
from bson.binary import Binary

from godoty_service.metering.catalogue import Catalogue
from godoty_service.metering.price_file import PriceRules
from godoty_service.mongo import Collection, Document

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Whose catalogue it is.

    Attributes:
        name: Its base URL. Another one's catalogues are neither loaded nor compared with its own.
        needs_prices: Whether its listing has prices in any case, as OpenRouter's has.
        rules: The operator's own prices, for models that it lists without any.
    """

    name: str = ""
    needs_prices: bool = False
    rules: PriceRules = field(default_factory=PriceRules)


def stored_listing(catalogue: Catalogue, body: bytes | None) -> Document:
    """Return what is kept of a catalogue when it is seen first; its key is its hash."""
    document: Document = {"fetch_time": catalogue.fetch_time, "body": Binary(zlib.compress(body or b""))}
    document |= price_rules(catalogue)
    return document if catalogue.is_listed else document | {"listed": False}


def price_rules(catalogue: Catalogue) -> Document:
    """Return the operator's prices of a catalogue as they are stored."""
    return {"price_rules": catalogue.rules.to_document()} if catalogue.rules else {}


async def newest_catalogue(collection: Collection) -> Catalogue | None:
    """Read the newest catalogue that some server kept; None: none did yet."""
    newest = await newest_document(collection)
    return None if newest is None else await read_catalogue(newest)


async def newest_document(collection: Collection, upstream: Upstream | None = None) -> Document | None:
    """Return the newest catalogue's document, of one upstream if it is named; an earlier build's is OpenRouter's."""
    query: dict[str, Any] = {}
    if upstream is not None:
        query["upstream"] = {"$in": [upstream.name, *([None] if upstream.needs_prices else [])]}
    return await collection.find_one(query, sort=[("seen_time", -1)])


async def readable_catalogue(document: Document | None) -> Catalogue | None:
    """Parse a stored catalogue; one that cannot be read is as good as none."""
    try:
        return None if document is None else await read_catalogue(document)
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        log.warning("stored_catalogue_unreadable", error=str(error))
        return None


async def read_catalogue(document: Document) -> Catalogue:
    """Parse a stored catalogue beside the event loop. Its key is its hash, whatever this version would compute."""
    rules = PriceRules.from_document(document.get("price_rules", ()))
    return replace(await catalogue_with_rules(document, rules), hash=document["_id"])


async def catalogue_with_rules(document: Document, rules: PriceRules) -> Catalogue:
    """Parse a stored catalogue's listing beside the event loop, and put other rules of prices beside it."""
    body, fetch_time = document["body"], document["fetch_time"]
    if not isinstance(body, bytes) or not isinstance(fetch_time, datetime):
        raise TypeError("not a kept catalogue")
    if document.get("listed") is False:
        return Catalogue.unlisted(fetch_time=fetch_time, rules=rules)
    return await asyncio.to_thread(lambda: Catalogue.parse(zlib.decompress(body), fetch_time=fetch_time, rules=rules))
