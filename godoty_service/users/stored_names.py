"""Replaces the names of end users that servers of schema 1 stored, and store during a rolling upgrade, by references.

Ledger entries, sessions with their leases, and event logs may have names. Indexes of the documents with a name find
them, so the job needs no position: it goes on after a kill, any server does it, and it finds what an old server writes
later. Once no name is left, the indexes are empty, and a run is a few reads of nothing.

While servers of schema 1 run, sessions keep the names beside the references: those servers read them.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection, Document
from godoty_service.users.entry_owners import EntryOwners
from godoty_service.users.references import UserReferences

log = structlog.get_logger(__name__)

BATCH = 500  # documents of one operation
_LOG_BATCH = 50  # chunks, which may be large
_LEASE_ID = "user_names"
_LEASE_TIME = timedelta(seconds=30)
_LATE = timedelta(hours=1)  # an adjustment's time is that of its server's clock
_NAMED: Document = {"$gt": ""}
_BY_NAME = (("user", 1), ("tenant_id", 1))  # the ledger's index of names, for a hint
_HOLDERS = "lease.predecessors"
_USER_FIELDS = ("user", "user_reference")
_SESSION_FIELDS = dict.fromkeys(
    ("tenant_id", *(f"{path}{name}" for path in ("", "lease.", f"{_HOLDERS}.") for name in _USER_FIELDS)), 1
)
# An event's document has one key; of a call's, everything but the name is retained.
_WITHOUT_NAME: Document = {"$unsetField": {"field": "user", "input": "$$event.call"}}
_WITHOUT_NAMES: list[Document] = [
    {
        "$set": {
            "events": {
                "$map": {
                    "input": "$events",
                    "as": "event",
                    "in": {
                        "$cond": [
                            {"$eq": [{"$type": "$$event.call.user"}, "missing"]},
                            "$$event",
                            {"$mergeObjects": ["$$event", {"call": _WITHOUT_NAME}]},
                        ]
                    },
                }
            }
        }
    }
]


class _Name(NamedTuple):
    """A name of a tenant's end user."""

    tenant_id: str
    name: str


class StoredNames:
    """Replaces names.

    Attributes:
        kept_in_sessions: Servers of schema 1 run, so sessions that are written have the name beside the reference.
    """

    def __init__(
        self,
        database: Database,
        users: UserReferences,
        *,
        old_servers: Callable[[], Awaitable[list[str]]],
        owner: str,
    ) -> None:
        """Create the job.

        Args:
            database: The database.
            users: The references.
            old_servers: Returns the servers of schema 1 that run.
            owner: The id of this server, for the lease.
        """
        self._ledger = database.collection("ledger")
        self._sessions = database.collection("sessions")
        self._logs = database.collection("turn_logs")
        self._leases = database.collection("schema")
        self._now = database.now
        self._users = users
        self._entry_owners = EntryOwners(self._ledger, users)
        self._old_servers = old_servers
        self._owner = owner
        self.kept_in_sessions = True
        self._completed_until: datetime | None = None  # adjustments before this time have their calls' references

    async def run(self, interval: float) -> None:
        """Replace names every `interval` seconds until cancelled."""
        await run_every(interval, self.replace, failure="user_names_not_replaced")

    async def look_for_old_servers(self) -> None:
        """Determine whether sessions must keep the names."""
        self.kept_in_sessions = bool(await self._old_servers())

    async def replace(self) -> int:
        """Replace all names; return the number of documents that had one, or 0 if another server does it."""
        await self.look_for_old_servers()
        replaced = 0
        while found := await self._next_documents():
            if not await self._acquire_lease():
                return replaced
            collection, documents = found
            if collection is self._ledger:
                await self._replace_in_entries(documents)
            elif collection is self._sessions:
                await self._replace_in_sessions(documents)
            else:
                await self._replace_in_logs(documents)
            replaced += len(documents)
        if replaced:
            log.info("user_names_replaced", documents=replaced)
        await self._complete_adjustments()
        return replaced

    async def _complete_adjustments(self) -> None:
        """Copy references from calls to adjustments without a user, which servers of schema 1 write for these calls."""
        began: datetime = await self._now()
        which: Document = {"kind": "adjustment", "user": None, "user_reference": None}
        if self._completed_until is not None:
            which["time"] = {"$gte": self._completed_until - _LATE}
        call = {"from": self._ledger.name, "localField": "corrects", "foreignField": "_id", "as": "call"}
        pipeline: list[Document] = [
            {"$match": which},
            {"$lookup": call},
            {"$match": {"call.user_reference": _NAMED}},
            {"$limit": BATCH},
            {"$project": {"reference": {"$first": "$call.user_reference"}}},
        ]
        while found := await self._ledger.aggregate(pipeline):
            await self._ledger.update_each(
                [
                    ({"_id": each["_id"], "user_reference": None}, {"$set": {"user_reference": each["reference"]}})
                    for each in found
                ]
            )
        self._completed_until = began

    async def replace_of_user(self, tenant_id: str, name: str, reference: str) -> None:
        """Replace a name in the entries of one tenant.

        They belong to the user whose reference is given, except for those of an earlier user of the name that a server
        of schema 1 has written late.
        """
        query = {"user": name, "tenant_id": tenant_id}
        fields = {"user": 1, "session_uid": 1}
        while found := await self._ledger.find(query, limit=BATCH, fields=fields):
            owners = await self._entry_owners.of(tenant_id, found)
            await self._ledger.update_each(
                [_entry_update(each["_id"], name, owners.get(each["_id"], reference)) for each in found]
            )

    async def claim_sessions(self, tenant_id: str, name: str, reference: str) -> None:
        """Write a user's reference beside its name in the sessions of one tenant that have the name alone.

        From then on no new user of the name acquires them.
        """
        alone = {"user": name, "user_reference": None}
        held: Document = {"lease.user": name, "lease.user_reference": None}
        before: Document = {f"{_HOLDERS}.user": name, _HOLDERS: {"$elemMatch": alone}}
        for which in (alone, held, before):
            while found := await self._sessions.find(
                {"tenant_id": tenant_id, **which}, limit=BATCH, fields=_SESSION_FIELDS
            ):
                await self._sessions.update_each(
                    [
                        (
                            {"_id": each["_id"], f"{path}user": name, f"{path}user_reference": None},
                            {"$set": {f"{path}user_reference": each.get("user_reference") or reference}},
                        )
                        for each in found
                        for path, holder in _holders(each)
                        if holder.get("user") == name and not holder.get("user_reference")
                    ]
                )

    async def has_name(self, tenant_id: str, name: str) -> bool:
        """Return whether an entry, a session, its lease or a lease before that of a tenant has a name."""
        in_sessions = [(self._sessions, path) for path in ("user", "lease.user", f"{_HOLDERS}.user")]
        for collection, path in ((self._ledger, "user"), *in_sessions):
            if await collection.find_one({path: name, "tenant_id": tenant_id}, fields={"_id": 1}):
                return True
        return False

    async def in_ledger(self, tenant_id: str) -> bool:
        """Return whether entries of a tenant have names, which `replace` would insert as users."""
        query = {"user": _NAMED, "tenant_id": tenant_id}
        return await self._ledger.find_one(query, fields={"_id": 1}, hint=_BY_NAME) is not None

    async def _next_documents(self) -> tuple[Collection, list[Document]] | None:
        """Return some documents that have names, with their collection."""
        fields = {"tenant_id": 1, "user": 1, "user_reference": 1, "session_uid": 1}
        if found := await self._ledger.find({"user": _NAMED}, limit=BATCH, fields=fields):
            return self._ledger, found
        if found := await self._logs.find({"events.call.user": _NAMED}, limit=_LOG_BATCH, fields={"_id": 1}):
            return self._logs, found
        if self.kept_in_sessions:
            return None
        for name in ("user", "lease.user", f"{_HOLDERS}.user"):
            if found := await self._sessions.find({name: _NAMED}, limit=BATCH, fields=_SESSION_FIELDS):
                return self._sessions, found
        return None

    async def _replace_in_entries(self, documents: list[Document]) -> None:
        """Replace the names of entries; a reference that an entry has already stays."""
        by_tenant: dict[str, list[Document]] = {}
        for each in documents:
            by_tenant.setdefault(each["tenant_id"], []).append(each)
        for tenant_id, entries in by_tenant.items():
            references = await self._entry_owners.of(tenant_id, entries, create=True)
            await self._ledger.update_each(
                [_entry_update(each["_id"], each["user"], references[each["_id"]]) for each in entries]
            )

    async def _replace_in_sessions(self, documents: list[Document]) -> None:
        """Replace the names of sessions and of their leases, each where it still stands."""
        references = await self._references(name for each in documents for name in _names_of_session(each))
        updates: list[tuple[Document, Document]] = []
        for each in documents:
            for path, holder in _holders(each):
                if name := holder.get("user"):
                    known = holder.get("user_reference") or each.get("user_reference")
                    reference = known or references[_Name(each["tenant_id"], name)]
                    query = {"_id": each["_id"], f"{path}user": name}
                    updates.append((query, {"$set": {f"{path}user": None, f"{path}user_reference": reference}}))
        await self._sessions.update_each(updates)

    async def _replace_in_logs(self, documents: list[Document]) -> None:
        """Remove the names from event logs: no reader needs a user there."""
        await self._logs.update_many({"_id": {"$in": [each["_id"] for each in documents]}}, _WITHOUT_NAMES)

    async def _references(self, names: Iterable[_Name]) -> dict[_Name, str]:
        by_tenant: dict[str, set[str]] = {}
        for each in names:
            by_tenant.setdefault(each.tenant_id, set()).add(each.name)
        found: dict[_Name, str] = {}
        for tenant_id, some in by_tenant.items():
            references = await self._users.of_names(tenant_id, some)
            found.update({_Name(tenant_id, name): reference for name, reference in references.items()})
        return found

    async def _acquire_lease(self) -> bool:
        """Acquire or renew the lease; return False if another server has it."""
        now: datetime = await self._now()
        available = {"_id": _LEASE_ID, "$or": [{"owner": self._owner}, {"until": {"$lt": now}}]}
        lease = {"owner": self._owner, "until": now + _LEASE_TIME}
        try:
            await self._leases.update_one(available, {"$set": lease}, upsert=True)
        except DuplicateKey:
            return False
        return True


def _entry_update(entry_id: str, name: str, reference: str) -> tuple[Document, list[Document]]:
    """Return the update that replaces an entry's name; a reference that it has stays."""
    known = {"$ifNull": ["$user_reference", reference]}
    return {"_id": entry_id, "user": name}, [{"$set": {"user_reference": known}}, {"$unset": "user"}]


def _holders(session: Document) -> Iterable[tuple[str, Document]]:
    """Yield what may have a name: the session, its lease, and the leases before; each with the path of its fields."""
    yield "", session
    lease: dict[str, Any] = session.get("lease") or {}
    yield "lease.", lease
    for number, each in enumerate(lease.get("predecessors") or ()):
        yield f"{_HOLDERS}.{number}.", each


def _names_of_session(session: Document) -> Iterable[_Name]:
    if not session.get("user_reference"):
        for _, each in _holders(session):
            if each.get("user") and not each.get("user_reference"):
                yield _Name(session["tenant_id"], each["user"])
