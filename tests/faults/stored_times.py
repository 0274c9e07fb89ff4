"""Finds the times stored in a database, at any depth of its documents."""

from datetime import UTC, datetime
from typing import Any

from pymongo.database import Database

# In the future by design.
EXPIRIES = {
    *("expire_time", "until", "due", "since", "delete_time", "lease_until"),
    *("check_time", "deadline", "next_time", "due_time", "pause_until"),
}


def late_times(database: Database[dict[str, Any]], *, now: datetime) -> list[str]:
    """Return the stored times after `now`, except expiries."""
    return [
        f"{name} {path}: {time.isoformat()}"
        for name in database.list_collection_names()
        for document in database[name].find()
        for path, time in _times(document)
        if path.rpartition(".")[2] not in EXPIRIES and time > now
    ]


def late_expiries(database: Database[dict[str, Any]], *, until: datetime) -> list[str]:
    """Return the stored times after `until`, expiries included."""
    return [
        f"{name} {path}: {time.isoformat()}"
        for name in database.list_collection_names()
        for document in database[name].find()
        for path, time in _times(document)
        if time > until
    ]


def _times(value: Any, path: str = "") -> list[tuple[str, datetime]]:
    if isinstance(value, datetime):
        return [(path, value if value.tzinfo else value.replace(tzinfo=UTC))]
    if isinstance(value, dict):
        return [found for name, each in value.items() for found in _times(each, f"{path}.{name}")]
    if isinstance(value, list):
        return [found for each in value for found in _times(each, path)]
    return []
