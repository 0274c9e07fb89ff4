"""Kinds of steps of a migration. Each may be run again after any part of it, and ends with the same documents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from godoty_service.errors import SchemaError
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection, Document, Index

BATCH = 2_000  # documents of one operation: a fraction of a second, also where all of them change


class Progress(Protocol):
    """How far a step is.

    Attributes:
        after: What `advance` was given last, also by a process that was killed; None: nothing.
    """

    after: Any

    async def advance(self, after: Any) -> None:
        """Record that all documents up to this `_id` are done."""


class Step(Protocol):
    """A step of a migration."""

    @property
    def name(self) -> str:
        """Its name, which stays the same in all builds."""

    async def run(self, database: Database, progress: Progress) -> None:
        """Run it, from where an earlier run was killed."""


@dataclass(frozen=True, slots=True)
class RenameCollection:
    """Renames a collection, with its indexes."""

    old: str
    new: str

    @property
    def name(self) -> str:
        """Its name."""
        return f"rename collection {self.old} to {self.new}"

    async def run(self, database: Database, progress: Progress) -> None:  # noqa: ARG002 - one operation
        """Rename it, unless it is renamed already.

        Raises:
            SchemaError: Both collections have documents.
        """
        collections = await database.structure.collections()
        if self.old not in collections:
            return
        if self.new in collections and await database.collection(self.new).count({}, limit=1):
            raise SchemaError(
                f"The collections {self.old} and {self.new} both have documents. A server of an older schema has run "
                f"since the migration began: stop it, and move the documents of {self.old} by hand."
            )
        await database.structure.rename(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Rename:
    """A field's new name, and the new names of its values.

    Attributes:
        old: Its path.
        new: Its new path, under the same parent.
        values: New values by the old ones; a value that is not in here stays.
    """

    old: str
    new: str
    values: Mapping[str, str] = field(default_factory=dict)

    def update(self) -> tuple[Document, Sequence[Document]]:
        """Return the filter of the documents that have the old field, and the update that renames it."""
        value: Any = f"${self.old}"
        if self.values:
            branches = [{"case": {"$eq": [value, old]}, "then": new} for old, new in self.values.items()]
            value = {"$switch": {"branches": branches, "default": value}}
        return {self.old: {"$exists": True}}, [{"$set": {self.new: value}}, {"$unset": self.old}]


@dataclass(frozen=True, slots=True)
class UpdateDocuments:
    """Updates documents of a collection in batches, in the order of their `_id`, all of which have one type.

    Attributes:
        collection: The collection.
        updates: Renames, and pairs of a filter and an update whose result the filter does not match.
        batch: Documents of one operation.
    """

    collection: str
    updates: tuple[Rename | tuple[Document, Sequence[Document]], ...]
    batch: int = BATCH

    @property
    def name(self) -> str:
        """Its name."""
        return f"update {self.collection}"

    async def run(self, database: Database, progress: Progress) -> None:
        """Update batch after batch."""
        collection = database.collection(self.collection)
        updates = [each.update() if isinstance(each, Rename) else each for each in self.updates]
        while (last := await self._last_of_batch(collection, progress.after)) is not None:
            ids = {"$lte": last} if progress.after is None else {"$gt": progress.after, "$lte": last}
            for query, update in updates:
                await collection.update_many({"$and": [{"_id": ids}, query]}, update)
            await progress.advance(last)

    async def _last_of_batch(self, collection: Collection, after: Any) -> Any:
        """Return the `_id` of the last document of the next batch; None: there is no next one."""
        found = await collection.aggregate(
            [
                {"$match": {} if after is None else {"_id": {"$gt": after}}},
                {"$sort": {"_id": 1}},
                {"$limit": self.batch},
                {"$group": {"_id": None, "last": {"$max": "$_id"}}},
            ]
        )
        return found[0]["last"] if found else None


@dataclass(frozen=True, slots=True)
class ReplaceDocuments:
    """Replaces documents of a small collection by what a function makes of each.

    Attributes:
        collection: The collection.
        query: Finds the documents that are to be replaced, and none that is.
        replacement: Returns the new document.
        name: Its name.
    """

    collection: str
    query: Document
    replacement: Callable[[Document], Document]
    name: str

    async def run(self, database: Database, progress: Progress) -> None:  # noqa: ARG002 - the query finds the rest
        """Replace one after the other."""
        collection = database.collection(self.collection)
        async for each in collection.iterate(self.query):
            new = [{"$replaceWith": {"$literal": self.replacement(each)}}]
            await collection.update_one({"$and": [{"_id": each["_id"]}, self.query]}, new)


@dataclass(frozen=True, slots=True)
class CreateIndexes:
    """Builds indexes that are missing, before the documents get the fields: so a build stores no key."""

    collection: str
    indexes: tuple[Index, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return f"create indexes of {self.collection}"

    async def run(self, database: Database, progress: Progress) -> None:  # noqa: ARG002 - the server does the work
        """Build them."""
        await database.structure.create_indexes(self.collection, [each.model() for each in self.indexes])


@dataclass(frozen=True, slots=True)
class DropIndex:
    """Drops an index."""

    collection: str
    index: str

    @property
    def name(self) -> str:
        """Its name."""
        return f"drop index {self.index} of {self.collection}"

    async def run(self, database: Database, progress: Progress) -> None:  # noqa: ARG002 - one operation
        """Drop it, if it exists."""
        await database.structure.drop_index(self.collection, self.index)


@dataclass(frozen=True, slots=True)
class DeleteDocuments:
    """Deletes documents of a small collection."""

    collection: str
    query: Document

    @property
    def name(self) -> str:
        """Its name."""
        return f"delete documents of {self.collection}"

    async def run(self, database: Database, progress: Progress) -> None:  # noqa: ARG002 - one operation
        """Delete them."""
        await database.collection(self.collection).delete_many(self.query)
