"""The schema version that a database has. Owns `schema`.

Its document `schema` has these fields:

version  The version of all other documents. A build of schema N works on versions N and N+1.
target   The version that a migration is creating; absent when none has begun.
steps    The steps of that migration that are done.
after    The `_id` of the last document that the current step has changed, in the order of `_id`.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from godoty_service.cluster.heartbeats import lease_end
from godoty_service.errors import DuplicateKey, SchemaError
from godoty_service.migrations.steps import Step
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Document

_ID = "schema"
_NO_DOCUMENTS = frozenset({"schema", "system.profile", "system.views"})  # collections that an empty database may have


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """The change from the version before to a version.

    Attributes:
        version: The version that it creates.
        steps: Run in this order. Each has a name of its own in the migration.
        oldest_server: Servers of older schemas must be stopped before; None: those of two versions before and older.
    """

    version: int
    steps: tuple[Step, ...]
    oldest_server: int | None = None

    @property
    def oldest(self) -> int:
        """The oldest schema of servers that may run meanwhile."""
        return self.version - 1 if self.oldest_server is None else self.oldest_server


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaState:
    """The schema document; the module's docstring describes the fields."""

    version: int
    target: int | None = None
    steps: tuple[str, ...] = ()
    after: Any = None


class Schema:
    """The schema of a database, as a build with some migrations reads it.

    Attributes:
        migrations: Those of this build, one for each version from 1 on.
    """

    def __init__(self, database: Database, migrations: Sequence[Migration]) -> None:
        self.migrations = tuple(migrations)
        self._database = database
        self._documents = database.collection("schema")

    @property
    def supported(self) -> int:
        """The version that this build writes."""
        return self.migrations[-1].version

    async def read(self) -> SchemaState:
        """Return the state; an empty database gets this build's version. Databases from before versions have 0."""
        while (found := await self._documents.find_one({"_id": _ID})) is None:
            if await self._database.structure.collections() - _NO_DOCUMENTS:
                return SchemaState(version=0)
            with suppress(DuplicateKey):  # another process was first
                await self._documents.insert_one({"_id": _ID, "version": self.supported})
        return SchemaState(
            version=found["version"],
            target=found.get("target"),
            steps=tuple(found.get("steps", ())),
            after=found.get("after"),
        )

    async def require_not_newer(self) -> SchemaState:
        """Return the state.

        Raises:
            SchemaError: The database has, or is being migrated to, a version that this build cannot read.
        """
        state = await self.read()
        newest = max(state.version, state.target or 0)
        if newest > self.supported + 1:
            has = "has" if state.version == newest else "is being migrated to"
            raise SchemaError(
                f"The database {has} schema version {newest}; this build supports versions {self.supported} and "
                f"{self.supported + 1}. Use a build of schema version {newest - 1} or {newest}."
            )
        return state

    async def require_current(self) -> None:
        """Refuse a database that this build cannot work on as it is.

        Raises:
            SchemaError: Its version is too new, or older than this build's.
        """
        state = await self.require_not_newer()
        if state.version < self.supported:
            raise SchemaError(
                f"The database has schema version {state.version}; this build needs version {self.supported}. "
                "Run `godoty migrate`."
            )

    async def begin(self, migration: Migration) -> None:
        """Announce a migration: from now on servers that are too old for its version do not start."""
        old = migration.version - 1
        with suppress(DuplicateKey):  # it has begun, or it is done
            await self._documents.update_one(
                {"_id": _ID, "version": old, "target": None},
                {"$set": {"target": migration.version, "steps": []}},
                upsert=True,
            )

    async def withdraw(self, migration: Migration) -> None:
        """Withdraw a migration that has done no step."""
        await self._documents.update_one({**_under(migration), "steps": [], "after": None}, {"$unset": {"target": ""}})

    async def note_step(self, migration: Migration, name: str) -> None:
        """Record that a step is done."""
        await self._documents.update_one(_under(migration), {"$addToSet": {"steps": name}, "$unset": {"after": ""}})

    async def note_after(self, migration: Migration, name: str, after: Any) -> None:
        """Record how far the current step is."""
        await self._documents.update_one({**_under(migration), "steps": {"$ne": name}}, {"$set": {"after": after}})

    async def complete(self, migration: Migration) -> None:
        """Write the version of a migration whose steps are all done."""
        await self._documents.update_one(
            {**_under(migration), "$expr": {"$setIsSubset": [[each.name for each in migration.steps], "$steps"]}},
            {"$set": {"version": migration.version}, "$unset": {"target": "", "steps": "", "after": ""}},
        )

    async def old_servers(self, oldest: int, lease: timedelta) -> list[str]:
        """Return the running servers of schemas older than `oldest`; one that was killed counts for a lease's time."""
        last = {"$max": ["$heartbeat_time", "$beat"]}  # `beat`: schema 0
        alive = {"$gt": [lease_end(lease, last), "$$NOW"]}
        found = await self._database.collection("replicas").find({"$expr": alive}, fields={"schema": 1})
        return sorted(each["_id"] for each in found if each.get("schema", 0) < oldest)


def _under(migration: Migration) -> Document:
    return {"_id": _ID, "version": migration.version - 1, "target": migration.version}
