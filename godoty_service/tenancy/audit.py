"""What administrators changed: who, when, what. Owns `admin_changes`; nothing of it is ever changed or deleted."""

import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from godoty_service.clock import Clock, utc_now
from godoty_service.ids import new_id
from godoty_service.mongo import Collection, Document, Index

_AT_ONCE = 50  # changes of one batch: each has some 30 KB at most

INDEXES = (Index(keys=[("tenant_id", 1), ("_id", -1)]),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminChange:
    """A change.

    Attributes:
        change_id: Sorts by time.
        time: When.
        by: The id of the API key, or the user of the command line.
        action: The method, such as "SetPolicy"; of the command line alone "ResealProviderKeys", "ResolveCall" and
            "RepairTimes".
        tenant_id: To which tenant; empty: to none.
        details: What it was set to, as JSON, without any secret.
    """

    change_id: str
    time: datetime
    by: str
    action: str
    tenant_id: str
    details: str


class AdminChanges:
    """The record of all changes."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._changes = collection
        self._clock = clock

    async def record(self, *, by: str, action: str, tenant_id: str, details: Mapping[str, Any]) -> None:
        """Write a change down. Details that say nothing (None, False, empty) are left out."""
        said = {name: value for name, value in details.items() if value or (value == 0 and value is not False)}
        now = self._clock()
        await self._changes.insert_one(
            {
                "_id": new_id("change", made=now),
                "time": now,
                "by": by,
                "action": action,
                "tenant_id": tenant_id,
                "details": json.dumps(said, default=_plain, ensure_ascii=False),
            }
        )

    async def page(
        self, *, tenant_id: str | None, before: str | None, limit: int, most_bytes: int | None = None
    ) -> list[AdminChange]:
        """Read changes, the newest first.

        Args:
            tenant_id: Only those to this tenant; None: to all.
            before: The id of the last one of the page before.
            limit: How many, at most.
            most_bytes: No more are read once their details have more bytes together; None: no bound.
        """
        query: Document = {} if tenant_id is None else {"tenant_id": tenant_id}
        if before is not None:
            query["_id"] = {"$lt": before}
        changes: list[AdminChange] = []
        left = most_bytes
        documents = self._changes.iterate(query, sort=[("_id", -1)], limit=limit, batch=_AT_ONCE)
        async with aclosing(documents):
            async for each in documents:
                changes.append(_read(each))
                if left is not None and (left := left - len(each["details"])) < 0:
                    break
        return changes


def _read(document: Document) -> AdminChange:
    """Read a change; fields of a later build are ignored."""
    return AdminChange(
        change_id=document["_id"],
        time=document["time"],
        by=document["by"],
        action=document["action"],
        tenant_id=document["tenant_id"],
        details=document["details"],
    )


def _plain(value: Any) -> str:
    """Write what JSON has no form for.

    Raises:
        TypeError: Nobody said how.
    """
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"no form for a {type(value).__name__}")
