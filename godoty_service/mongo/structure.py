"""Changes to the collections and indexes of a database, for migrations."""

from collections.abc import Sequence
from typing import Any

import pymongo
from pymongo import IndexModel
from pymongo.errors import OperationFailure

from godoty_service.mongo.errors import translate_errors

_MISSING = frozenset({26, 27})  # codes: there is no such collection, or no such index


class Structure:
    """Collections and indexes. The client's time limit does not apply: building an index of a large ledger takes long.

    Args:
        driver_database: The driver's.
    """

    def __init__(self, driver_database: Any) -> None:
        self._database = driver_database

    async def collections(self) -> set[str]:
        """Return the names of the collections."""
        with translate_errors():
            return set(await self._database.list_collection_names())

    async def rename(self, old: str, new: str) -> None:
        """Rename a collection, with its indexes, in place of an empty collection that has the new name.

        Does nothing if the old name is gone: another process has renamed it.
        """
        with translate_errors():
            try:
                await self._database[old].rename(new, dropTarget=True)
            except OperationFailure as error:
                if error.code not in _MISSING:
                    raise

    async def create_indexes(self, collection: str, indexes: Sequence[IndexModel]) -> None:
        """Build the indexes that are missing. Other clients read and write meanwhile."""
        with translate_errors(), pymongo.timeout(None):
            await self._database[collection].create_indexes(list(indexes))

    async def drop_index(self, collection: str, name: str) -> None:
        """Drop an index, if it exists."""
        with translate_errors():
            try:
                await self._database[collection].drop_index(name)
            except OperationFailure as error:
                if error.code not in _MISSING:
                    raise
