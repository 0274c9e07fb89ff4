"""Fills a session's ledger in bulk, and counts the operations of MongoDB."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any, Self

from pymongo import AsyncMongoClient

from godoty_service.ledger.session_totals import session_totals_from_document, session_totals_to_document
from godoty_service.ledger.totals import Totals
from godoty_service.pricing.token_usage import TokenUsage

_SIDE = 1000  # documents of the seed: a product of two of them makes a million
_LOG_SECONDS = 0.5  # until the last writes of a turn are applied
_OURS = ("sessions", "ledger", "api_keys", "tenants", "policies", "messages", "turns")
Document = dict[str, Any]


class Filler:
    """Writes to the service's database directly.

    Args:
        uri: The replica set.
        name: The service's database.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(uri, tz_aware=True)
        self._database = self._client[name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def fill(self, session_id: str, *, copies: int) -> None:
        """Copy a session's only entry `copies` times, and multiply the session's totals accordingly."""
        session = await self._database["sessions"].find_one({"session_id": session_id})
        entry = await self._database["ledger"].find_one({"session_id": session_id})
        if session is None or entry is None:
            raise RuntimeError(f"the session {session_id} has no turn")
        entry.pop("rollup_state", None)  # the copies need not be rolled up
        seed = self._database["bench_seed"]
        await seed.insert_many([{"_id": number} for number in range(_SIDE)])
        await seed.aggregate(_copies(entry, copies), allowDiskUse=True)
        await seed.drop()
        totals = _multiplied(session["totals"], copies)
        await self._database["sessions"].update_one({"_id": session["_id"]}, {"$set": {"totals": totals}})

    async def copy(self, session_id: str, *, copies: int) -> list[str]:
        """Insert sessions with the same totals as one, without entries; return their names."""
        session = await self._database["sessions"].find_one({"session_id": session_id})
        if session is None:
            raise RuntimeError(f"there is no session {session_id}")
        names = [f"{session_id}-{number}" for number in range(copies)]
        made = [{**session, "_id": f"{session['_id']}-{name}", "session_id": name} for name in names]
        await self._database["sessions"].insert_many(made)
        return names

    async def sums(self, session_id: str) -> tuple[int, Decimal]:
        """Return the number of a session's entries and the sum of their costs, from a scan."""
        pipeline: list[Document] = [
            {"$match": {"session_id": session_id}},
            {"$group": {"_id": None, "calls": {"$sum": 1}, "cost": {"$sum": "$cost"}}},
        ]
        found = [each async for each in await self._database["ledger"].aggregate(pipeline)]
        return found[0]["calls"], found[0]["cost"].to_decimal()

    @asynccontextmanager
    async def profiled(self) -> AsyncIterator[Counter[str]]:
        """Count the operations on the service's collections; the counts are complete after the block."""
        seen: Counter[str] = Counter()
        await asyncio.sleep(_LOG_SECONDS)
        await self._database.command("profile", 2)
        yield seen
        await self._database.command("profile", 0)
        async for each in self._database["system.profile"].find():
            collection = each["ns"].partition(".")[2]
            if collection in _OURS:
                seen[f"{collection} {each['op']}"] += 1
        await self._database["system.profile"].drop()


def _copies(entry: Document, copies: int) -> list[Document]:
    """Return a pipeline over the seed that writes copies of an entry, numbered from 2, to the ledger."""
    number = {"$add": [{"$multiply": ["$_id", _SIDE]}, "$other._id", 2]}
    text = {"$toString": number}
    changed = {
        "_id": {"$concat": [f"{entry['_id']}_", text]},
        "number": number,
        "turn_id": {"$concat": [f"{entry['turn_id']}_", text]},
        "generation_id": {"$concat": [f"{entry['generation_id']}_", text]},
    }
    return [
        {"$lookup": {"from": "bench_seed", "pipeline": [], "as": "other"}},
        {"$unwind": "$other"},
        {"$match": {"$expr": {"$lte": [number, copies + 1]}}},
        {"$replaceWith": {"$mergeObjects": [{"$literal": entry}, changed]}},
        {"$merge": {"into": "ledger", "whenMatched": "fail", "whenNotMatched": "insert"}},
    ]


def _multiplied(document: Document, copies: int) -> Document:
    """Return the session totals of one entry and `copies` copies of it."""
    one = session_totals_from_document(document)
    by_model = tuple((model, _times(totals, copies + 1)) for model, totals in one.by_model)
    return session_totals_to_document(
        replace(one, last_number=copies + 1, totals=_times(one.totals, copies + 1), by_model=by_model)
    )


def _times(totals: Totals, factor: int) -> Totals:
    counters = {name: value and value * factor for name, value in _counters(totals.usage).items()}
    return replace(
        totals,
        cost=totals.cost * factor,
        usage=TokenUsage(**counters),
        model_calls=totals.model_calls * factor,
        turns=totals.turns * factor,
    )


def _counters(usage: TokenUsage) -> dict[str, int | None]:
    return {name: getattr(usage, name) for name in usage.__dataclass_fields__}
