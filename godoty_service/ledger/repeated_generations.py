"""Finds generation ids that several entries have, in pieces: no operation takes longer in a larger ledger."""

from collections.abc import AsyncIterator

from godoty_service.ledger.codec import call_from_document
from godoty_service.ledger.entries import ModelCall
from godoty_service.mongo.collection import Collection, Document, Index

PIECE = 20_000  # generation ids that one operation reads, from the index alone: about 30 ms of the database's time
_KEYS = [("generation_id", 1)]
_HAS_GENERATION: Document = {"generation_id": {"$gt": ""}}  # a text; the index has no other entries
INDEX = Index(keys=_KEYS, where=_HAS_GENERATION)
_BATCH = 1_000  # ids in one query


async def repeated_generations(
    entries: Collection, tenant_id: str | None, *, piece: int = PIECE
) -> AsyncIterator[ModelCall]:
    """Yield the calls of a tenant, or of all, whose generation id another entry of any tenant has as well.

    Args:
        entries: The collection `ledger`.
        tenant_id: The tenant; None: all tenants.
        piece: The most ids that one operation reads.
    """
    after: str | None = ""
    while after is not None:
        until = await _last_of_piece(entries, after, piece)
        for ids in _batches(await _repeated(entries, after, until)):
            for each in await entries.find({"generation_id": {"$gt": "", "$in": ids}}, sort=_KEYS):
                if tenant_id in (None, each["tenant_id"]):
                    yield call_from_document(each)
        after = until


async def _last_of_piece(entries: Collection, after: str, piece: int) -> str | None:
    """Return the last id of the piece that begins after an id; None: the rest is one piece."""
    last = await entries.aggregate(
        [
            {"$match": {"generation_id": {"$gt": after}}},
            {"$sort": dict(_KEYS)},
            {"$skip": piece - 1},
            {"$limit": 1},
            {"$project": {"_id": 0, "generation_id": 1}},
        ],
        hint=_KEYS,
    )
    return last[0]["generation_id"] if last else None


async def _repeated(entries: Collection, after: str, until: str | None) -> list[str]:
    """Return the ids of a piece, including its last one, that several entries have."""
    end = {} if until is None else {"$lte": until}
    found = await entries.aggregate(
        [
            {"$match": {"generation_id": {"$gt": after, **end}}},
            {"$group": {"_id": "$generation_id", "entries": {"$sum": 1}}},
            {"$match": {"entries": {"$gt": 1}}},
        ],
        hint=_KEYS,
    )
    return sorted(each["_id"] for each in found)


def _batches(ids: list[str]) -> list[list[str]]:
    return [ids[place : place + _BATCH] for place in range(0, len(ids), _BATCH)]
