"""Audit log of administrators' changes. Owns `admin_changes`, which is append-only."""

import json
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar

from godoty_service.clock import Clock, utc_now
from godoty_service.ids import new_id
from godoty_service.mongo.collection import Collection, Document, Index

_BATCH = 50  # changes per database batch: each has at most some 60 KB
_KEY_ID = re.compile(r"[0-9a-f]{16}")

Values = Mapping[str, Any]


class ActorKind(StrEnum):
    """What can make a change."""

    KEY = "key"
    CLI = "cli"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The author of a change.

    Attributes:
        kind: What made it.
        id: The id of the API key, the user of the command line, or the name of a job of the service.
        peer: The caller's address; empty: unknown, or none.
    """

    kind: ActorKind
    id: str
    peer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminChange:
    """A change.

    Attributes:
        change_id: Sorts by time.
        time: When it was made.
        actor: The author.
        method: The method, such as "UpdatePolicy"; only from the command line: "ResealProviderKeys", "ResolveCall" and
            "RepairTimes".
        tenant_id: The tenant that was changed; empty: none.
        old_value: The values before, as JSON, without secrets; empty: none, or not recorded.
        new_value: The new values as JSON, without secrets.
    """

    change_id: str
    time: datetime
    actor: Actor
    method: str
    tenant_id: str
    old_value: str
    new_value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFilter:
    """Which changes to list; None: any.

    Attributes:
        tenant_id: Only changes to this tenant.
        start: Only changes at this time or later.
        end: Only changes before this time.
    """

    tenant_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def query(self) -> Document:
        """Return the query of the matching documents."""
        times = {"$gte": self.start, "$lt": self.end}
        bounds = {operator: time for operator, time in times.items() if time is not None}
        tenant = {} if self.tenant_id is None else {"tenant_id": self.tenant_id}
        return {**tenant, **({"time": bounds} if bounds else {})}


class AdminChanges:
    """The audit log."""

    COLLECTION = "admin_changes"
    INDEXES: ClassVar[tuple[Index, ...]] = (Index(keys=[("tenant_id", 1), ("_id", -1)]),)

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._changes = collection
        self._clock = clock

    async def record(self, *, actor: Actor, method: str, tenant_id: str, old: Values | None, new: Values) -> None:
        """Insert a change.

        Args:
            actor: The author.
            method: The method.
            tenant_id: The tenant that is changed; empty: none.
            old: The values before; None: there are none.
            new: The new values.
        """
        now = self._clock()
        await self._changes.insert_one(
            {
                "_id": new_id("change", made=now),
                "time": now,
                "by": actor.id,
                "kind": actor.kind.value,
                "peer": actor.peer,
                "action": method,
                "tenant_id": tenant_id,
                "old": "" if old is None else _as_json(old),
                "details": _as_json(new),
            }
        )

    async def page(
        self, wanted: ChangeFilter, *, before: str | None, limit: int, max_bytes: int | None = None
    ) -> list[AdminChange]:
        """Return changes, newest first.

        Args:
            wanted: Which changes.
            before: The id of the last change of the previous page; None: start with the newest.
            limit: Maximum number of changes.
            max_bytes: Stop once their values exceed this size together; None: no bound.
        """
        query = wanted.query()
        if before is not None:
            query["_id"] = {"$lt": before}
        changes: list[AdminChange] = []
        remaining = max_bytes
        documents = self._changes.iterate(query, sort=[("_id", -1)], limit=limit, batch=_BATCH)
        async with aclosing(documents):
            async for each in documents:
                changes.append(_read(each))
                size = len(changes[-1].old_value) + len(changes[-1].new_value)
                if remaining is not None and (remaining := remaining - size) < 0:
                    break
        return changes


def _read(document: Document) -> AdminChange:
    """Convert a document. Those of earlier builds lack the kind, the peer and the old values."""
    author = document["by"]
    kind = ActorKind.KEY if _KEY_ID.fullmatch(author) else ActorKind.CLI
    if document.get("kind") in set(ActorKind):  # a later build may define more
        kind = ActorKind(document["kind"])
    return AdminChange(
        change_id=document["_id"],
        time=document["time"],
        actor=Actor(kind=kind, id=author, peer=document.get("peer", "")),
        method=document["action"],
        tenant_id=document["tenant_id"],
        old_value=document.get("old", ""),
        new_value=document["details"],
    )


def _as_json(values: Values) -> str:
    return json.dumps(dict(values), default=_to_json, ensure_ascii=False)


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
