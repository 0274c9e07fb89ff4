"""Batches concurrent writes to a collection into one operation; each write has its own result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import encode
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.common import MAX_BSON_SIZE
from pymongo.errors import BulkWriteError, DocumentTooLarge, DuplicateKeyError, OperationFailure, PyMongoError

from godoty_service.aio.batching import Batcher
from godoty_service.errors import StorageError, StorageUnavailable
from godoty_service.mongo.errors import DUPLICATE_KEY, UNWRITABLE, translate_errors, translation

Document = dict[str, Any]
Errors = Sequence[StorageError | None]

_MAX_BATCH = 200  # documents of one operation


class BatchedInserts:
    """Inserts into a collection.

    Args:
        collection: The driver's collection.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self._batcher = Batcher(self._insert, max_size=_MAX_BATCH)

    async def submit(self, document: Document) -> None:
        """Insert a document with the next batch.

        Raises:
            DuplicateKey: A unique index refused it.
        """
        await self._batcher.submit(document)

    async def each(self, documents: Sequence[Document]) -> Errors:
        """Insert documents in one operation; return the error of each, or None if it was inserted."""
        if len(documents) > 1:
            return await self._insert(documents)
        try:
            return await self._insert(documents)
        except StorageError as error:
            return [error]

    async def _insert(self, documents: Sequence[Document]) -> Errors:
        if len(documents) == 1:
            with translate_errors():
                await self._collection.insert_one(documents[0])
            return [None]
        errors: list[StorageError | None] = [None] * len(documents)
        encoded = _encode_each(documents, errors)
        if encoded:
            await self._insert_encoded(encoded, errors)
        return errors

    async def _insert_encoded(self, encoded: Mapping[int, RawBSONDocument], errors: list[StorageError | None]) -> None:
        """Insert documents by their index in the batch, and set the errors of those that were not inserted."""
        indexes, refused, unsure = list(encoded), {}, None
        try:
            await self._collection.insert_many(list(encoded.values()), ordered=False)
        except BulkWriteError as error:
            refused = {indexes[each["index"]]: each for each in error.details["writeErrors"]}
            unsure = next(iter(error.details["writeConcernErrors"]), None)
        except PyMongoError as error:
            for index in indexes:
                errors[index] = translation(error)
        for index in indexes:
            if (failure := refused.get(index, unsure)) is not None:
                kind = DuplicateKeyError if failure["code"] == DUPLICATE_KEY else OperationFailure
                errors[index] = translation(kind(failure.get("errmsg", ""), failure["code"]))


@dataclass(slots=True)
class _Update:
    query: Mapping[str, Any]
    update: Mapping[str, Any]
    applied_filter: Mapping[str, Any]
    matched: bool = False


class BatchedUpdates:
    """Updates of one document each, whose query no longer matches once the update is applied.

    Args:
        collection: The driver's collection.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self._batcher = Batcher(self._update, max_size=_MAX_BATCH)

    async def submit(
        self, query: Mapping[str, Any], update: Mapping[str, Any], applied_filter: Mapping[str, Any]
    ) -> bool:
        """Update a document with the next batch; return whether its query matched.

        Args:
            query: Matches the document before the update.
            update: The update.
            applied_filter: Matches the document after this update, and after no other.
        """
        submitted = _Update(query, update, applied_filter)
        await self._batcher.submit(submitted)
        return submitted.matched

    async def _update(self, updates: Sequence[_Update]) -> Errors:
        """Apply updates. The second update of the same document waits for the first."""
        first = {each.query["_id"]: each for each in reversed(updates)}
        errors = await self._update_distinct(list(first.values()))
        by_update = dict(zip(map(id, first.values()), errors, strict=True))
        for each in updates:
            if id(each) not in by_update:
                by_update[id(each)] = await self._update_one(each)
        return [by_update[id(each)] for each in updates]

    async def _update_distinct(self, updates: Sequence[_Update]) -> Errors:
        """Apply updates of distinct documents.

        The result of a bulk write has the number of matches, not which updates matched: if some did not, each document
        is checked.
        """
        if len(updates) == 1:
            return [await self._update_one(updates[0])]
        try:
            with translate_errors():
                result = await self._collection.bulk_write(
                    [UpdateOne(each.query, each.update) for each in updates], ordered=False
                )
        except StorageUnavailable:
            raise
        except StorageError:  # of one update: it must not fail the others
            matched = 0
        else:
            matched = result.matched_count
        if matched < len(updates):
            return await self._check_each(updates)
        for each in updates:
            each.matched = True
        return [None] * len(updates)

    async def _check_each(self, updates: Sequence[_Update]) -> Errors:
        """Find which updates were applied, and retry each of the others by itself."""
        with translate_errors():
            found = self._collection.find({"$or": [each.applied_filter for each in updates]}, {"_id": 1})
            applied = {each["_id"] for each in await found.to_list(None)}
        errors: list[StorageError | None] = []
        unavailable: StorageUnavailable | None = None  # then the others need not wait for it, too
        for each in updates:
            each.matched = each.query["_id"] in applied
            error = None if each.matched else unavailable or await self._retry(each)
            unavailable = error if isinstance(error, StorageUnavailable) else unavailable
            errors.append(error)
        return errors

    async def _retry(self, update: _Update) -> StorageError | None:
        """Apply an update that does not seem to be applied. If its query does not match now, it may be after all."""
        error = await self._update_one(update)
        if error is None and not update.matched:
            try:
                with translate_errors():
                    update.matched = await self._collection.find_one(update.applied_filter, {"_id": 1}) is not None
            except StorageError as failure:
                return failure
        return error

    async def _update_one(self, update: _Update) -> StorageError | None:
        try:
            with translate_errors():
                result = await self._collection.update_one(update.query, update.update)
        except StorageError as error:
            return error
        update.matched = bool(result.matched_count)
        return None


def _encode_each(documents: Sequence[Document], errors: list[StorageError | None]) -> dict[int, RawBSONDocument]:
    """Encode documents by their index, each by itself: one that cannot be written must not fail the others."""
    encoded: dict[int, RawBSONDocument] = {}
    for index, document in enumerate(documents):
        try:
            encoded[index] = _encode(document)
        except (PyMongoError, *UNWRITABLE) as error:
            errors[index] = translation(error)
    return encoded


def _encode(document: Document) -> RawBSONDocument:
    document.setdefault("_id", ObjectId())
    data = encode(document)
    if len(data) > MAX_BSON_SIZE:
        raise DocumentTooLarge("the document is too large")
    return RawBSONDocument(data)
