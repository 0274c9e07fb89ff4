"""A collection of the database: its operations, which translate the driver's errors, and its indexes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pymongo import IndexModel, ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError, OperationFailure

from godoty_service.aio.tasks import retrieve_exception
from godoty_service.mongo.batching import BatchedInserts, BatchedUpdates, Errors
from godoty_service.mongo.errors import DUPLICATE_KEY, duplicates, translate_errors

Given = ParamSpec("Given")
Result = TypeVar("Result")
Document = dict[str, Any]

_BATCH = 500  # documents that are decoded at once: a few milliseconds in which nothing else runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that a collection needs.

    Attributes:
        keys: Field names with 1 or -1, in order.
        unique: Refuse a second document with the same keys.
        where: Index only documents that match this filter.
        expire_after: Seconds after the time in the (single) key at which a document is deleted.
    """

    keys: Sequence[tuple[str, int]]
    unique: bool = False
    where: Mapping[str, Any] | None = None
    expire_after: int | None = None

    def model(self) -> IndexModel:
        """Return the driver's form of it."""
        options: dict[str, Any] = {"unique": self.unique}
        if self.where is not None:
            options["partialFilterExpression"] = dict(self.where)
        if self.expire_after is not None:
            options["expireAfterSeconds"] = self.expire_after
        return IndexModel(list(self.keys), **options)


def uncancellable(operation: Callable[Given, Awaitable[Result]]) -> Callable[Given, Coroutine[Any, Any, Result]]:
    """Finish an operation that has begun even if its caller is cancelled.

    PyMongo closes the connection of a cancelled operation, and may swallow the cancellation: it waits with
    `asyncio.wait_for`, which loses a cancellation that arrives together with the result (Python before 3.12).
    """

    @wraps(operation)
    async def shielded(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        task = asyncio.ensure_future(operation(*args, **kwargs))  # Motor's are futures already
        task.add_done_callback(retrieve_exception)  # its caller may be cancelled
        return await asyncio.shield(task)

    return shielded


class Collection:
    """The operations of a collection: they raise our errors, not the driver's, and finish even if cancelled."""

    def __init__(self, driver_collection: Any, session: Any = None) -> None:
        self._collection = driver_collection
        self._session = session  # of a snapshot, or None
        self._inserts = BatchedInserts(driver_collection)
        self._updates = BatchedUpdates(driver_collection)
        self.name: str = driver_collection.name

    def read_at(self, snapshot: "Snapshot") -> "Collection":
        """Return the collection as it was at the snapshot's time. Writes do not use the snapshot."""
        return Collection(self._collection, snapshot.session)

    @uncancellable
    async def find_one(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        fields: Mapping[str, Any] | None = None,
        hint: Sequence[tuple[str, int]] | None = None,
    ) -> Document | None:
        """Return the first match, or None.

        Args:
            query: The filter.
            sort: The order.
            fields: The fields to return; None: all.
            hint: Keys of the index to use; None: the database chooses.
        """
        with translate_errors():
            found: Document | None = await self._collection.find_one(
                query, fields, sort=sort, hint=hint, session=self._session
            )
        return found

    @uncancellable
    async def find(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        fields: Mapping[str, Any] | None = None,
        batch: int = _BATCH,
    ) -> list[Document]:
        """Return all matches (at most `limit`, unless that is 0), read in batches."""
        with translate_errors():
            found: list[Document] = await self._collection.find(
                query, fields, sort=sort, limit=limit, batch_size=min(limit or batch, batch), session=self._session
            ).to_list(None)
        return found

    async def iterate(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        fields: Mapping[str, Any] | None = None,
        batch: int = _BATCH,
    ) -> AsyncGenerator[Document, None]:
        """Yield all matches one by one (at most `limit`, unless that is 0), in constant memory."""
        with translate_errors():
            cursor = self._collection.find(
                query, fields, sort=sort, limit=limit, batch_size=batch, session=self._session
            )
            try:
                while documents := await uncancellable(cursor.to_list)(batch):
                    for document in documents:
                        yield document
            finally:
                await uncancellable(cursor.close)()

    @uncancellable
    async def count(
        self, query: Mapping[str, Any], *, limit: int = 0, hint: Sequence[tuple[str, int]] | None = None
    ) -> int:
        """Return the number of matches.

        Args:
            query: The filter.
            limit: Count up to this number; 0: count all.
            hint: Keys of the index to use; None: the database chooses.
        """
        options: dict[str, Any] = {"limit": limit} if limit else {}
        if hint is not None:
            options["hint"] = list(hint)
        with translate_errors():
            number: int = await self._collection.count_documents(query, session=self._session, **options)
        return number

    @uncancellable
    async def aggregate(
        self, pipeline: Sequence[Mapping[str, Any]], *, hint: Sequence[tuple[str, int]] | None = None
    ) -> list[Document]:
        """Run an aggregation and return its whole result.

        Args:
            pipeline: The stages.
            hint: Keys of the index to use; None: the database chooses.
        """
        with translate_errors():
            named = {"hint": dict(hint)} if hint else {}
            cursor = self._collection.aggregate(pipeline, session=self._session, batchSize=_BATCH, **named)
            if hasattr(cursor, "__await__"):  # PyMongo's is a coroutine, Motor's a cursor
                cursor = await cursor
            found: list[Document] = await cursor.to_list(None)
        return found

    async def insert_one(self, document: Document) -> None:
        """Insert a document, batched with those that are inserted concurrently.

        Raises:
            DuplicateKey: A unique index refused it.
        """
        await self._inserts.submit(document)

    @uncancellable
    async def insert_many(self, documents: Sequence[Document]) -> None:
        """Insert documents in order, and stop at the first that is refused.

        Raises:
            DuplicateKey: A unique index refused one.
        """
        with translate_errors():
            try:
                await self._collection.insert_many(documents)
            except OperationFailure as error:  # a BulkWriteError hides the duplicate in its details
                if any(each.get("code") == DUPLICATE_KEY for each in (error.details or {}).get("writeErrors", [])):
                    raise DuplicateKeyError("bulk") from error
                raise

    @uncancellable
    async def insert_each(self, documents: Sequence[Document]) -> Errors:
        """Insert documents in any order; return the error of each, or None if it was inserted.

        A document that cannot be stored does not fail the others; `DuplicateKey`: a unique index refused it.
        """
        return await self._inserts.each(documents)

    @uncancellable
    async def update_one(
        self,
        query: Mapping[str, Any],
        update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        upsert: bool = False,
    ) -> bool:
        """Update the first match; return whether there was one."""
        with translate_errors():
            result = await self._collection.update_one(query, update, upsert=upsert)
        return bool(result.matched_count)

    async def update_once(
        self, query: Mapping[str, Any], update: Mapping[str, Any], *, applied_filter: Mapping[str, Any]
    ) -> bool:
        """Update a document whose query no longer matches afterwards, batched with concurrent updates.

        Args:
            query: Matches one document, by its `_id`, before the update.
            update: The update.
            applied_filter: Matches that document after this update, and after no other.

        Returns:
            Whether the query matched.
        """
        return await self._updates.submit(query, update, applied_filter)

    @uncancellable
    async def update_many(
        self, query: Mapping[str, Any], update: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> int:
        """Update all matches; return how many were changed."""
        with translate_errors():
            result = await self._collection.update_many(query, update)
        return int(result.modified_count)

    @uncancellable
    async def update_each(
        self, updates: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | Sequence[Mapping[str, Any]]]]
    ) -> None:
        """Update the first match of each filter, in any order, in one request."""
        if updates:
            with translate_errors():
                await self._collection.bulk_write([UpdateOne(*each) for each in updates], ordered=False)

    @uncancellable
    async def upsert_each(self, updates: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Update or insert documents in any order, by pairs of query and update.

        A document whose query does not match, and whose insertion a unique index refuses, is skipped: it exists, but
        not in the state that the query asks for.
        """
        with translate_errors():
            try:
                await self._collection.bulk_write(
                    [UpdateOne(query, update, upsert=True) for query, update in updates], ordered=False
                )
            except OperationFailure as error:
                duplicates(error)

    @uncancellable
    async def find_one_and_update(
        self,
        query: Mapping[str, Any],
        update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        upsert: bool = False,
        before: bool = False,
    ) -> Document | None:
        """Update the first match; return it as it is afterwards (with `before`: as it was before), or None."""
        order = ReturnDocument.BEFORE if before else ReturnDocument.AFTER
        with translate_errors():
            found: Document | None = await self._collection.find_one_and_update(
                query, update, sort=sort, upsert=upsert, return_document=order
            )
        return found

    @uncancellable
    async def delete_one(self, query: Mapping[str, Any]) -> bool:
        """Delete the first match; return whether there was one."""
        with translate_errors():
            result = await self._collection.delete_one(query)
        return bool(result.deleted_count)

    @uncancellable
    async def delete_many(self, query: Mapping[str, Any]) -> int:
        """Delete all matches; return how many there were."""
        with translate_errors():
            result = await self._collection.delete_many(query)
        return int(result.deleted_count)

    async def delete_all(self, query: Mapping[str, Any], *, piece: int = _BATCH) -> None:
        """Delete all matches, in operations of bounded size."""
        while found := await self.find(query, fields={"_id": 1}, limit=piece):
            await self.delete_many({"_id": {"$in": [each["_id"] for each in found]}})

    @uncancellable
    async def ensure(self, indexes: Sequence[Index]) -> None:
        """Create missing indexes in one operation."""
        with translate_errors():
            await self._collection.create_indexes([each.model() for each in indexes])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One point in time of the database: what is read at it is consistent. Reads at it run one after another.

    Attributes:
        session: The driver's session.
    """

    session: Any
