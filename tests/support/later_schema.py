"""A made-up build of schema 3, for tests: it writes a field, a state and a value that schema 2 does not know."""

from typing import Any

from godoty_service.ledger import codec, ledger
from godoty_service.migrations import registry
from godoty_service.migrations.schema import Migration
from godoty_service.migrations.steps import CreateIndexes, UpdateDocuments
from godoty_service.mongo.collection import Index

LATER_SCHEMA = "GODOTY_TEST_LATER_SCHEMA"  # in a command's environment: it is this build

MIGRATION = Migration(
    version=3,
    steps=(
        CreateIndexes("ledger", (Index(keys=(("tier", 1),), where={"tier": {"$exists": True}}),)),
        UpdateDocuments("ledger", (({"tier": {"$exists": False}}, [{"$set": {"tier": "standard"}}]),), batch=20),
        UpdateDocuments("sessions", (({"region": {"$exists": False}}, [{"$set": {"region": "eu"}}]),), batch=20),
    ),
)


def install() -> None:
    """Make this process one of schema 3."""
    registry.MIGRATIONS = (*registry.MIGRATIONS, MIGRATION)
    insertion, closing = codec.new_entry_document, ledger._changes

    def new_entry_document(entry: Any) -> Any:
        return insertion(entry) | {"tier": "flex"}

    def changes(call: Any) -> Any:
        written = closing(call)
        return written | {"cost_source": "contract"} if written.get("cost_source") == "billed" else written

    vars(ledger).update(new_entry_document=new_entry_document, _changes=changes)
