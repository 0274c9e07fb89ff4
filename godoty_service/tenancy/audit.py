"""Audit log of administrators' changes. Owns `admin_changes`, which is append-only."""

import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from godoty_service.clock import Clock, utc_now
from godoty_service.ids import new_id
from godoty_service.mongo.collection import Collection, Document, Index

_BATCH = 50  # changes per database batch: each has at most some 30 KB


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminChange:
    """A change.

    Attributes:
        change_id: Sorts by time.
        time: When it was made.
        by: The id of the API key, or the user of the command line.
        action: The method, such as "SetPolicy"; only from the command line: "ResealProviderKeys", "ResolveCall" and
            "RepairTimes".
        tenant_id: The tenant that was changed; empty: none.
        details: The new values as JSON, without secrets.
    """

    change_id: str
    time: datetime
    by: str
    action: str
    tenant_id: str
    details: str


class AdminChanges:
    """The audit log."""

    COLLECTION = "admin_changes"
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("tenant_id", 1), ("_id", -1)]),)

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._changes = collection
        self._clock = clock

    async def record(self, *, by: str, action: str, tenant_id: str, details: Mapping[str, Any]) -> None:
        """Insert a change. Details without a value (None, False, empty) are omitted."""
        given = {name: value for name, value in details.items() if value or (value == 0 and value is not False)}
        now = self._clock()
        await self._changes.insert_one(
            {
                "_id": new_id("change", made=now),
                "time": now,
                "by": by,
                "action": action,
                "tenant_id": tenant_id,
                "details": json.dumps(given, default=_to_json, ensure_ascii=False),
            }
        )

    async def page(
        self, *, tenant_id: str | None, before: str | None, limit: int, max_bytes: int | None = None
    ) -> list[AdminChange]:
        """Return changes, newest first.

        Args:
            tenant_id: Only changes to this tenant; None: to any.
            before: The id of the last change of the previous page; None: start with the newest.
            limit: Maximum number of changes.
            max_bytes: Stop once their details exceed this size together; None: no bound.
        """
        query: Document = {} if tenant_id is None else {"tenant_id": tenant_id}
        if before is not None:
            query["_id"] = {"$lt": before}
        changes: list[AdminChange] = []
        remaining = max_bytes
        documents = self._changes.iterate(query, sort=[("_id", -1)], limit=limit, batch=_BATCH)
        async with aclosing(documents):
            async for each in documents:
                changes.append(_read(each))
                if remaining is not None and (remaining := remaining - len(each["details"])) < 0:
                    break
        return changes


def _read(document: Document) -> AdminChange:
    """Convert a document; fields of a later build are ignored."""
    return AdminChange(
        change_id=document["_id"],
        time=document["time"],
        by=document["by"],
        action=document["action"],
        tenant_id=document["tenant_id"],
        details=document["details"],
    )


def _to_json(value: Any) -> str:
    """Convert a value of a type that JSON lacks.

    Raises:
        TypeError: The type has no conversion.
    """
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"no JSON form for a {type(value).__name__}")
