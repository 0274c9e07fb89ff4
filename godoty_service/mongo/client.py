"""Opens the database. Knows the two drivers, and where they differ; `mongo.errors` translates their errors.

PyMongo's own asynchronous API is the default; Motor is chosen by a setting. Writes are acknowledged by a majority and
journaled, and reads see only what a majority has, so nothing that was read or acknowledged can be rolled back.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from bson.codec_options import CodecOptions
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from godoty_service.mongo.collection import Collection, Snapshot, uncancellable
from godoty_service.mongo.errors import translate_errors
from godoty_service.mongo.structure import Structure

Driver = Literal["motor", "pymongo"]

# Motor runs each operation in a thread of a pool; its default of five a core is exhausted by a few slow reads.
_MOTOR_WORKERS = "64"


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
        self.structure = Structure(self._database)

    def collection(self, name: str) -> Collection:
        """Return a collection; this does not contact the server."""
        return Collection(self._database[name])

    @uncancellable
    async def ping(self) -> None:
        """Ping the server.

        Raises:
            StorageUnavailable: It cannot be reached.
        """
        with translate_errors():
            await self._client.admin.command("ping")

    @uncancellable
    async def now(self) -> datetime:
        """Return the server's time, which all replicas share."""
        with translate_errors():
            answer = await self._client.admin.command("hello")
        time: datetime = answer["localTime"]
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Take a snapshot at the time of its first read; it can be read for at most five minutes.

        It contains all writes that a majority had acknowledged before that read. It blocks no writer, and no writer
        blocks it.
        """
        with translate_errors():
            session = self._client.start_session(snapshot=True)
            if hasattr(session, "__await__"):  # Motor's is a future, PyMongo's the session
                session = await session
        try:
            yield Snapshot(session)
        finally:
            await uncancellable(session.end_session)()

    @uncancellable
    async def drop(self) -> None:
        """Delete the whole database, for tests."""
        with translate_errors():
            await self._client.drop_database(self.name)

    async def close(self) -> None:
        """Close all connections."""
        closing = self._client.close()
        if closing is not None:  # PyMongo's is a coroutine, Motor's returns at once
            await closing


def open_database(*, uri: str, name: str, driver: Driver = "pymongo", timeout: float = 10.0) -> Database:
    """Open a database; the first operation connects.

    Args:
        uri: The address of the replica set.
        name: The name of the database.
        driver: Which driver to use.
        timeout: Seconds that one operation may take, including retries and server selection.
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
