"""Schema 2: references of end users in place of their names. Servers of schema 1 may run meanwhile.

The steps build the indexes that find names, before servers of schema 2 start. These servers replace the names in the
background, also those that servers of schema 1 still write (`users/stored_names.py`).
"""

from godoty_service.migrations.schema import Migration
from godoty_service.migrations.steps import CreateIndexes
from godoty_service.mongo.collection import Index


def _named(field: str, *others: str) -> Index:
    return Index(keys=tuple((each, 1) for each in (field, *others)), where={field: {"$gt": ""}})


MIGRATION = Migration(
    version=2,
    steps=(
        CreateIndexes(
            "users",
            (Index(keys=(("tenant_id", 1), ("name", 1)), unique=True, where={"name": {"$gt": ""}}),),
        ),
        CreateIndexes("ledger", (_named("user", "tenant_id"),)),
        CreateIndexes(
            "sessions", (_named("user", "tenant_id"), _named("lease.user"), _named("lease.predecessors.user"))
        ),
        CreateIndexes("turn_logs", (_named("events.call.user"),)),
    ),
)
