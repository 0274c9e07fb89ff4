"""Opens the database. Knows the driver's names, and where the two differ; `mongo_failures` knows its errors.

PyMongo's own asynchronous API is the default, Motor is a setting away. Writes are acknowledged by a majority and
journaled, and reads see only what a majority has, so nothing that was read or acknowledged can be rolled back.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

from bson.codec_options import CodecOptions
from pymongo import IndexModel, ReturnDocument, UpdateOne
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from godoty_service.mongo_failures import DUPLICATE_KEY, duplicates, translated
from godoty_service.mongo_together import Faults, Inserts, Updates

Given = ParamSpec("Given")
Result = TypeVar("Result")
Document = dict[str, Any]
Driver = Literal["motor", "pymongo"]

# Motor runs each operation in a thread of a pool; its default of five a core is exhausted by a few slow reads.
_MOTOR_WORKERS = "64"

_BATCH = 500  # documents that are decoded at once: a few milliseconds in which nothing else runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that a collection needs.

    Attributes:
        keys: Field names with 1 or -1, in order.
        unique: Refuse a second document with the same keys.
        where: Index only documents that match this filter.
        expire_after: Delete documents so many seconds after the time in the (single) key.
    """

    keys: Sequence[tuple[str, int]]
    unique: bool = False
    where: Mapping[str, Any] | None = None
    expire_after: int | None = None

    def model(self) -> IndexModel:
        """What the driver takes."""
        options: dict[str, Any] = {"unique": self.unique}
        if self.where is not None:
            options["partialFilterExpression"] = dict(self.where)
        if self.expire_after is not None:
            options["expireAfterSeconds"] = self.expire_after
        return IndexModel(list(self.keys), **options)


def _whole(operation: Callable[Given, Awaitable[Result]]) -> Callable[Given, Coroutine[Any, Any, Result]]:
    """Let an operation that has begun come to its end, also when who waits for it is cancelled.

    PyMongo would close the connection under a cancelled operation, and now and then take the cancel for its own: it
    waits with `asyncio.wait_for`, which forgets a cancel that comes together with the answer (Python before 3.12).
    """

    @wraps(operation)
    async def whole(*given: Given.args, **named: Given.kwargs) -> Result:
        task = asyncio.ensure_future(operation(*given, **named))  # Motor's are futures already
        task.add_done_callback(_heard)
        return await asyncio.shield(task)

    return whole


def _heard(task: "asyncio.Future[Any]") -> None:
    """Take note of how an operation ended for which nobody waits any more."""
    if not task.cancelled():
        task.exception()


class Collection:
    """A collection, with the operations that the rooms use and with our errors."""

    def __init__(self, driver_collection: Any, session: Any = None) -> None:
        self._collection = driver_collection
        self._session = session  # a snapshot's, or none
        self._inserts = Inserts(driver_collection)
        self._updates = Updates(driver_collection)
        self.name: str = driver_collection.name

    def at(self, snapshot: "Snapshot") -> "Collection":
        """The same, read as it was at the snapshot's moment. Writes go past it, as ever."""
        return Collection(self._collection, snapshot.session)

    @_whole
    async def find_one(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> Document | None:
        """Read the first match, or None."""
        with translated():
            found: Document | None = await self._collection.find_one(query, fields, sort=sort, session=self._session)
        return found

    @_whole
    async def find(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        fields: Mapping[str, Any] | None = None,
        batch: int = _BATCH,
    ) -> list[Document]:
        """Read all matches (at most `limit`, unless that is 0), so many at once."""
        with translated():
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
        """Read all matches one by one (at most `limit`, unless that is 0), in constant memory."""
        with translated():
            cursor = self._collection.find(
                query, fields, sort=sort, limit=limit, batch_size=batch, session=self._session
            )
            try:
                while documents := await _whole(cursor.to_list)(batch):
                    for document in documents:
                        yield document
            finally:
                await _whole(cursor.close)()

    @_whole
    async def count(self, query: Mapping[str, Any], *, limit: int = 0) -> int:
        """Count the matches, up to `limit` unless that is 0."""
        options = {"limit": limit} if limit else {}
        with translated():
            number: int = await self._collection.count_documents(query, session=self._session, **options)
        return number

    @_whole
    async def aggregate(
        self, pipeline: Sequence[Mapping[str, Any]], *, hint: Sequence[tuple[str, int]] | None = None
    ) -> list[Document]:
        """Run an aggregation and read its whole result; by the index of these keys, if some are named."""
        with translated():
            named = {"hint": dict(hint)} if hint else {}
            cursor = self._collection.aggregate(pipeline, session=self._session, batchSize=_BATCH, **named)
            if hasattr(cursor, "__await__"):  # PyMongo's is a coroutine, Motor's a cursor
                cursor = await cursor
            found: list[Document] = await cursor.to_list(None)
        return found

    async def insert_one(self, document: Document) -> None:
        """Insert a document, in one operation with those that others insert meanwhile.

        Raises:
            DuplicateKey: A unique index refused it.
        """
        await self._inserts.join(document)

    @_whole
    async def insert_many(self, documents: Sequence[Document]) -> None:
        """Insert documents in order; the first that is refused ends it.

        Raises:
            DuplicateKey: A unique index refused one.
        """
        with translated():
            try:
                await self._collection.insert_many(documents)
            except OperationFailure as error:  # a BulkWriteError hides the duplicate in its details
                if any(each.get("code") == DUPLICATE_KEY for each in (error.details or {}).get("writeErrors", [])):
                    raise DuplicateKeyError("bulk") from error
                raise

    @_whole
    async def insert_each(self, documents: Sequence[Document]) -> Faults:
        """Insert documents side by side; return the error of each, None where it was inserted.

        `DuplicateKey` is that of one which a unique index refused; one that cannot be stored fails alone.
        """
        return await self._inserts.each(documents)

    @_whole
    async def update_one(
        self,
        query: Mapping[str, Any],
        update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        upsert: bool = False,
    ) -> bool:
        """Update the first match; tells whether there was one."""
        with translated():
            result = await self._collection.update_one(query, update, upsert=upsert)
        return bool(result.matched_count)

    async def update_once(
        self, query: Mapping[str, Any], update: Mapping[str, Any], *, done: Mapping[str, Any]
    ) -> bool:
        """Update the match of a query that matches no more afterwards, together with what others update meanwhile.

        Args:
            query: Names one document, by its `_id`, and what it is before.
            update: The update.
            done: Names it, and what it is after this update and after no other.

        Returns:
            Whether it matched.
        """
        return await self._updates.join(query, update, done)

    @_whole
    async def update_many(
        self, query: Mapping[str, Any], update: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> int:
        """Update all matches; tells how many were changed."""
        with translated():
            result = await self._collection.update_many(query, update)
        return int(result.modified_count)

    @_whole
    async def update_each(
        self, updates: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | Sequence[Mapping[str, Any]]]]
    ) -> None:
        """Update the first match of each filter, side by side, in one request."""
        if updates:
            with translated():
                await self._collection.bulk_write([UpdateOne(*each) for each in updates], ordered=False)

    @_whole
    async def upsert_each(self, updates: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Update or insert documents side by side, by pairs of query and update.

        One whose query does not match, and whose insertion a unique index refuses, is passed over: there is such a
        document, but not in the state that was asked for.
        """
        with translated():
            try:
                await self._collection.bulk_write(
                    [UpdateOne(query, update, upsert=True) for query, update in updates], ordered=False
                )
            except OperationFailure as error:
                duplicates(error)

    @_whole
    async def find_one_and_update(
        self,
        query: Mapping[str, Any],
        update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        upsert: bool = False,
        before: bool = False,
    ) -> Document | None:
        """Update the first match and return it as it is then (or, with `before`, as it was)."""
        order = ReturnDocument.BEFORE if before else ReturnDocument.AFTER
        with translated():
            found: Document | None = await self._collection.find_one_and_update(
                query, update, sort=sort, upsert=upsert, return_document=order
            )
        return found

    @_whole
    async def delete_one(self, query: Mapping[str, Any]) -> bool:
        """Delete the first match; tells whether there was one."""
        with translated():
            result = await self._collection.delete_one(query)
        return bool(result.deleted_count)

    @_whole
    async def delete_many(self, query: Mapping[str, Any]) -> int:
        """Delete all matches; tells how many there were."""
        with translated():
            result = await self._collection.delete_many(query)
        return int(result.deleted_count)

    @_whole
    async def ensure(self, indexes: Sequence[Index]) -> None:
        """Make the indexes that are missing, in one operation."""
        with translated():
            await self._collection.create_indexes([each.model() for each in indexes])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the database: what is read at it belongs together. It serves one read after the other.

    Attributes:
        session: The driver's.
    """

    session: Any


class Database:
    """The database and its connection pool."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._database = client.get_database(
            name,
            codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
            write_concern=WriteConcern("majority", j=True),
            read_concern=ReadConcern("majority"),
        )
        self.name = name

    def collection(self, name: str) -> Collection:
        """Name a collection; this does not reach the server."""
        return Collection(self._database[name])

    @_whole
    async def ping(self) -> None:
        """Reach the server.

        Raises:
            StorageUnavailable: It cannot be reached.
        """
        with translated():
            await self._client.admin.command("ping")

    @_whole
    async def now(self) -> datetime:
        """Tell the server's clock, which all replicas share."""
        with translated():
            answer = await self._client.admin.command("hello")
        time: datetime = answer["localTime"]
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Read several things as they were at one moment: that of the first read, at most five minutes ago.

        What a majority had acknowledged before that read is in it. Writers neither wait for it nor hold it up.
        """
        with translated():
            session = self._client.start_session(snapshot=True)
            if hasattr(session, "__await__"):  # Motor's is a future, PyMongo's the session
                session = await session
        try:
            yield Snapshot(session)
        finally:
            await _whole(session.end_session)()

    @_whole
    async def drop(self) -> None:
        """Delete the whole database. Tests call this."""
        with translated():
            await self._client.drop_database(self.name)

    async def close(self) -> None:
        """Close all connections."""
        closing = self._client.close()
        if closing is not None:  # PyMongo's is a coroutine, Motor's returns at once
            await closing


def open_database(*, uri: str, name: str, driver: Driver = "pymongo", timeout: float = 10.0) -> Database:
    """Open a database; the first operation connects.

    Args:
        uri: Where the replica set is.
        name: The database.
        driver: Which driver speaks to it.
        timeout: Seconds that one operation may take, retries and server selection included.
    """
    options: dict[str, Any] = {
        "appname": "godoty",
        "retryWrites": True,
        "retryReads": True,
        "serverSelectionTimeoutMS": int(timeout * 1000),
        "timeoutMS": int(timeout * 1000),
        "maxPoolSize": 200,
    }
    try:
        return Database(_client(driver, uri, options), name)
    except (InvalidURI, ConfigurationError):
        raise ValueError("GODOTY_MONGODB_URI is not the address of a MongoDB.") from None  # it may hold a password


def _client(driver: Driver, uri: str, options: dict[str, Any]) -> Any:
    if driver == "motor":
        os.environ.setdefault("MOTOR_MAX_WORKERS", _MOTOR_WORKERS)  # read when Motor is imported
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 - after the line above

        return AsyncIOMotorClient(uri, **options)
    from pymongo import AsyncMongoClient  # noqa: PLC0415 - only one driver is loaded

    return AsyncMongoClient(uri, **options)
