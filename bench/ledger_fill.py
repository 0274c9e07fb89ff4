"""Fills a session's ledger in bulk, and looks at what MongoDB does."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any, Self

from pymongo import AsyncMongoClient

from godoty_service.metering.fold_document import fold_from_document, fold_to_document
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage import TokenUsage

_SIDE = 1000  # documents of the seed: a product of two of them makes a million
_LOG_SECONDS = 0.5  # until what a turn leaves behind is written
_OURS = ("sessions", "ledger", "api_keys", "tenants", "policies", "messages", "turns")
Document = dict[str, Any]


class Filler:
    """Works on a database from outside the service.

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
        """Copy a session's only entry so often, and carry the session's fold past the copies."""
        session = await self._database["sessions"].find_one({"session_id": session_id})
        entry = await self._database["ledger"].find_one({"session_id": session_id})
        if session is None or entry is None:
            raise RuntimeError(f"the session {session_id} has no turn")
        entry.pop("unbooked", None)  # the copies are no usage that is still to be summed up
        seed = self._database["bench_seed"]
        await seed.insert_many([{"_id": number} for number in range(_SIDE)])
        await seed.aggregate(_copies(entry, copies), allowDiskUse=True)
        await seed.drop()
        fold = _past(session["fold"], copies)
        await self._database["sessions"].update_one({"_id": session["_id"]}, {"$set": {"fold": fold}})

    async def copy(self, session_id: str, *, copies: int) -> list[str]:
        """Make sessions that tell the same as one; returns their names. They have no entries."""
        session = await self._database["sessions"].find_one({"session_id": session_id})
        if session is None:
            raise RuntimeError(f"there is no session {session_id}")
        names = [f"{session_id}-{number}" for number in range(copies)]
        made = [{**session, "_id": f"{session['_id']}-{name}", "session_id": name} for name in names]
        await self._database["sessions"].insert_many(made)
        return names

    async def sums(self, session_id: str) -> tuple[int, Decimal]:
        """How many entries a session has, and their cost, from all of them."""
        pipeline: list[Document] = [
            {"$match": {"session_id": session_id}},
            {"$group": {"_id": None, "calls": {"$sum": 1}, "cost": {"$sum": "$cost"}}},
        ]
        found = [each async for each in await self._database["ledger"].aggregate(pipeline)]
        return found[0]["calls"], found[0]["cost"].to_decimal()

    @asynccontextmanager
    async def profiled(self) -> AsyncIterator[Counter[str]]:
        """Count the operations on the service's collections; filled when the block is left."""
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
    """A pipeline over the seed that writes copies of an entry, numbered from 2 on, into the ledger."""
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


def _past(document: Document, copies: int) -> Document:
    """A fold of one entry, after so many more of its kind."""
    fold = fold_from_document(document)
    by_model = tuple((model, _times(totals, copies + 1)) for model, totals in fold.by_model)
    return fold_to_document(
        replace(fold, through=copies + 1, totals=_times(fold.totals, copies + 1), by_model=by_model)
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
