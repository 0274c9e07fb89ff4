"""Writes to a collection that leave in one operation with what others write meanwhile; each keeps its own fate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import encode
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.common import MAX_BSON_SIZE
from pymongo.errors import BulkWriteError, DocumentTooLarge, DuplicateKeyError, OperationFailure, PyMongoError

from godoty_service.errors import StorageError, StorageUnavailable
from godoty_service.flights import Flights
from godoty_service.mongo_failures import DUPLICATE_KEY, UNWRITABLE, translated, translation

Document = dict[str, Any]
Faults = Sequence[StorageError | None]

_MOST = 200  # documents of one operation


class Inserts:
    """Inserts into a collection.

    Args:
        collection: The driver's.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self._flights = Flights(self._together, most=_MOST)

    async def join(self, document: Document) -> None:
        """Insert a document.

        Raises:
            DuplicateKey: A unique index refused it.
        """
        await self._flights.join(document)

    async def each(self, documents: Sequence[Document]) -> Faults:
        """Insert documents in one operation; return the error of each, None where it was inserted."""
        if len(documents) > 1:
            return await self._together(documents)
        try:
            return await self._together(documents)
        except StorageError as error:
            return [error]

    async def _together(self, documents: Sequence[Document]) -> Faults:
        if len(documents) == 1:
            with translated():
                await self._collection.insert_one(documents[0])
            return [None]
        faults: list[StorageError | None] = [None] * len(documents)
        written: dict[int, RawBSONDocument] = {}
        for place, document in enumerate(documents):
            try:
                written[place] = _encoded(document)
            except (PyMongoError, *UNWRITABLE) as error:
                faults[place] = translation(error)
        if not written:
            return faults
        places, refused, unsure = list(written), {}, None
        try:
            await self._collection.insert_many(list(written.values()), ordered=False)
        except BulkWriteError as error:
            refused = {places[each["index"]]: each for each in error.details["writeErrors"]}
            unsure = next(iter(error.details["writeConcernErrors"]), None)
        except PyMongoError as error:
            for place in places:
                faults[place] = translation(error)
        for place in places:
            if (failure := refused.get(place, unsure)) is not None:
                kind = DuplicateKeyError if failure["code"] == DUPLICATE_KEY else OperationFailure
                faults[place] = translation(kind(failure.get("errmsg", ""), failure["code"]))
        return faults


@dataclass(slots=True)
class _Update:
    query: Mapping[str, Any]
    update: Mapping[str, Any]
    done: Mapping[str, Any]
    matched: bool = False


class Updates:
    """Updates of a collection, each of one document, and each once: its query matches only before.

    Args:
        collection: The driver's.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self._flights = Flights(self._together, most=_MOST)

    async def join(self, query: Mapping[str, Any], update: Mapping[str, Any], done: Mapping[str, Any]) -> bool:
        """Update a document; tells whether it matched.

        Args:
            query: What it is before.
            update: The update.
            done: What it is after this update, and after no other.
        """
        wanted = _Update(query, update, done)
        await self._flights.join(wanted)
        return wanted.matched

    async def _together(self, updates: Sequence[_Update]) -> Faults:
        """The database counts who matched, and does not tell whom: where not all did, each is looked at."""
        first = {each.query["_id"]: each for each in reversed(updates)}
        faults = await self._each_of_another(list(first.values()))
        told = dict(zip(map(id, first.values()), faults, strict=True))
        for each in updates:
            if id(each) not in told:  # somebody else has just updated its document
                told[id(each)] = await self._by_itself(each)
        return [told[id(each)] for each in updates]

    async def _each_of_another(self, updates: Sequence[_Update]) -> Faults:
        if len(updates) == 1:
            return [await self._by_itself(updates[0])]
        try:
            with translated():
                result = await self._collection.bulk_write(
                    [UpdateOne(each.query, each.update) for each in updates], ordered=False
                )
        except StorageUnavailable:
            raise
        except StorageError:  # of one of them: the others may not suffer from it
            matched = 0
        else:
            matched = result.matched_count
        if matched < len(updates):
            return await self._one_by_one(updates)
        for each in updates:
            each.matched = True
        return [None] * len(updates)

    async def _one_by_one(self, updates: Sequence[_Update]) -> Faults:
        """Find out who was updated, and update the others, if they can be, each by itself."""
        with translated():
            found = self._collection.find({"$or": [each.done for each in updates]}, {"_id": 1})
            done = {each["_id"] for each in await found.to_list(None)}
        faults: list[StorageError | None] = []
        away: StorageUnavailable | None = None  # then nobody else need wait for it
        for each in updates:
            each.matched = each.query["_id"] in done
            fault = None if each.matched else away or await self._again(each)
            away = fault if isinstance(fault, StorageUnavailable) else away
            faults.append(fault)
        return faults

    async def _again(self, wanted: _Update) -> StorageError | None:
        """Update a document that seems not to have been updated; where it does not match now, it may have been."""
        fault = await self._by_itself(wanted)
        if fault is None and not wanted.matched:
            try:
                with translated():
                    wanted.matched = await self._collection.find_one(wanted.done, {"_id": 1}) is not None
            except StorageError as error:
                return error
        return fault

    async def _by_itself(self, wanted: _Update) -> StorageError | None:
        try:
            with translated():
                result = await self._collection.update_one(wanted.query, wanted.update)
        except StorageError as error:
            return error
        wanted.matched = bool(result.matched_count)
        return None


def _encoded(document: Document) -> RawBSONDocument:
    """Encode a document by itself: what cannot be written keeps nobody else's from being so."""
    document.setdefault("_id", ObjectId())
    data = encode(document)
    if len(data) > MAX_BSON_SIZE:
        raise DocumentTooLarge("the document is too large")
    return RawBSONDocument(data)
