"""The turns' records, by turn id and by request id. Owns the collection `turns`."""

from collections import abc
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.turns.event_log.outbox import Wants

_Ids = abc.Collection[str]

_NO_REPLICA = ""  # of a turn that no server runs
# Logs outlive their records by this margin, so that a record that was read has a complete log although the database
# deletes expired documents in any order and clocks differ.
_LOG_MARGIN = timedelta(hours=1)
_NOT_DELETED = {"$ne": True}
_MAX_READ = 100  # records of one read
_NOTIFIED: Document = {"outbox": True}  # webhooks are to be notified of the turn's end
_MARK_VALID = 3_000  # milliseconds that the mark of a remote reader is valid
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """A turn as every server can read it.

    Attributes:
        fingerprint: The fingerprint of its request.
        replica_id: The server that runs it; empty: none.
        model: The model that its request names; None: none, or the record is of an earlier build.
        deleted: It was deleted with its session; the record reserves its request id.
    """

    turn_id: str
    tenant_id: str
    session_id: str
    request_id: str | None
    fingerprint: str
    replica_id: str
    model: str | None = None
    deleted: bool = False


class TurnStore:
    """The records of turns, by tenant."""

    COLLECTION = "turns"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(
            keys=[("tenant_id", 1), ("request_id", 1)],
            unique=True,
            where={"request_id": {"$type": "string"}},
        ),
        Index(keys=[("tenant_id", 1), ("session_id", 1), ("_id", 1)]),
        Index(keys=[("tenant_id", 1), ("_id", 1)]),
        Index(keys=[("expire_time", 1)], expire_after=0),
        Index(keys=[("replica_id", 1)], where={"follow_time": {"$exists": True}}),
        Index(keys=[("outbox", 1), ("replica_id", 1)], where=_NOTIFIED),
    )

    def __init__(
        self,
        collection: Collection,
        *,
        retention: timedelta,
        max_duration: timedelta,
        clock: Clock = utc_now,
        wants: Wants = lambda _: False,
    ) -> None:
        """Initialize the store.

        Args:
            collection: The collection `turns`.
            retention: The time after a turn's end for which its record and log are retained.
            max_duration: The longest duration of a turn: the expiry time is set when a document is written.
            clock: The current time.
            wants: Returns whether a tenant is notified of its turns.
        """
        self._turns = collection
        self._wants = wants
        self._retention = retention + max_duration
        self._clock = clock
        self._refused: dict[str, TurnRecord] = {}  # records that are still to be deleted, by turn id

    def log_expiry(self) -> datetime:
        """Return the expiry time of a log chunk written now: later than that of its turn's record."""
        return self._clock() + self._retention + _LOG_MARGIN

    async def extend(self, tenant_id: str, turn_ids: _Ids) -> None:
        """Retain the records of turns for as long as if they began now."""
        expiry = self._clock() + self._retention
        query = {"tenant_id": tenant_id, "_id": {"$in": list(turn_ids)}, "deleted": _NOT_DELETED, **self._not_expired()}
        await self._turns.update_many({**query, "expire_time": {"$lt": expiry}}, {"$set": {"expire_time": expiry}})

    async def begin(self, record: TurnRecord) -> TurnRecord | None:
        """Insert a new turn's record; return the record that has its request id already, if there is one."""
        document: Document = {
            "_id": record.turn_id,
            "tenant_id": record.tenant_id,
            "session_id": record.session_id,
            "fingerprint": record.fingerprint,
            "replica_id": record.replica_id,
            "cancel": False,
            "expire_time": self._clock() + self._retention,
        }
        if record.request_id:
            document["request_id"] = record.request_id
        if record.model:
            document["model"] = record.model
        if self._wants(record.tenant_id):
            document |= _NOTIFIED
        while True:
            try:
                await self._turns.insert_one(document)
            except DuplicateKey:
                found = await self.of_request(record.tenant_id, record.request_id or "")
                if found is not None:
                    return found
                await self._delete_expired(record)  # or it was refused meanwhile
                continue
            return None

    async def _delete_expired(self, record: TurnRecord) -> None:
        """Delete the record with a request's id if it has expired and the database has not deleted it yet."""
        query = {"tenant_id": record.tenant_id, "request_id": record.request_id}
        await self._turns.delete_one({**query, "expire_time": {"$lte": self._clock()}})

    async def delete_refused(self, record: TurnRecord) -> None:
        """Delete the record of a refused turn, so that its request id can be used again; `reap` retries it.

        Raises:
            StorageError: It may still exist.
        """
        self._refused[record.turn_id] = record
        await self._turns.delete_one({"_id": record.turn_id, "tenant_id": record.tenant_id})
        self._refused.pop(record.turn_id, None)

    def is_refused(self, record: TurnRecord) -> bool:
        """Return whether this server refused a turn and still has to delete its record."""
        return record.turn_id in self._refused

    async def reap(self) -> None:
        """Delete the records of refused turns that could not be deleted when they were refused.

        Raises:
            StorageError: Some remain, and are retried at the next call.
        """
        for record in list(self._refused.values()):
            await self.delete_refused(record)

    async def abandon(self, record: TurnRecord) -> bool:
        """Record that no server runs a turn; a server that does after all reads this before it begins.

        Returns:
            Whether the record still exists: that of a refused turn may have been deleted since it was read.
        """
        query = {"_id": record.turn_id, "tenant_id": record.tenant_id}
        return await self._turns.update_one(query, {"$set": {"replica_id": _NO_REPLICA}})

    async def delete_abandoned(self, record: TurnRecord) -> None:
        """Delete the record of an abandoned turn that never began: its request id can be used again."""
        query = {"_id": record.turn_id, "tenant_id": record.tenant_id}
        await self._turns.delete_one({**query, "replica_id": _NO_REPLICA})

    async def find(self, tenant_id: str, turn_id: str) -> TurnRecord | None:
        """Return a turn's record; None: it is unknown, was deleted, or has expired."""
        query = {"_id": turn_id, "tenant_id": tenant_id, "deleted": _NOT_DELETED, **self._not_expired()}
        found = await self._turns.find_one(query)
        return _from_document(found) if found else None

    async def of_request(self, tenant_id: str, request_id: str) -> TurnRecord | None:
        """Return the record of the turn with a request id, including one that was deleted with its session."""
        found = await self._turns.find_one({"tenant_id": tenant_id, "request_id": request_id, **self._not_expired()})
        return _from_document(found) if found else None

    async def request_cancel(self, record: TurnRecord) -> None:
        """Request that the server that runs a turn cancels it."""
        await self._turns.update_one({"_id": record.turn_id, "tenant_id": record.tenant_id}, {"$set": {"cancel": True}})

    async def to_cancel(self, running: _Ids) -> set[str]:
        """Return those of these turns whose cancellation was requested."""
        found = await self._turns.find({"_id": {"$in": list(running)}, "cancel": True}, fields={"_id": 1})
        return {each["_id"] for each in found}

    async def mark_remote_reader(self, record: TurnRecord) -> None:
        """Mark a turn as read by another server for the next 3 seconds, by the database's clock."""
        query = {"_id": record.turn_id, "tenant_id": record.tenant_id}
        await self._turns.update_one(query, [{"$set": {"follow_time": "$$NOW"}}])

    async def with_remote_reader(self, graces: Mapping[str, timedelta]) -> set[str]:
        """Return those of some turns that another server reads, or has read within a turn's grace.

        Args:
            graces: The time for which a turn without a reader continues, by turn id.
        """
        age = {"$subtract": ["$$NOW", "$follow_time"]}
        query = {"_id": {"$in": list(graces)}, "follow_time": {"$exists": True}}
        found = await self._turns.find(query, fields={"age": age})
        return {each["_id"] for each in found if each["age"] < _MARK_VALID + graces[each["_id"]] // _MILLISECOND}

    async def remotely_read(self, replica_id: str, *, excluding: _Ids) -> list[TurnRecord]:
        """Return some turns of a server, except the given ones, that another server reads."""
        fresh = {"$gt": ["$follow_time", {"$subtract": ["$$NOW", _MARK_VALID]}]}
        query = {"replica_id": replica_id, "follow_time": {"$exists": True}, "_id": {"$nin": list(excluding)}}
        return [_from_document(each) for each in await self._turns.find({**query, "$expr": fresh}, limit=_MAX_READ)]

    async def replicas_to_notify(self) -> set[str]:
        """Return the servers that run turns of whose ends webhooks are to be notified, or ran them until they died."""
        found = await self._turns.aggregate([{"$match": _NOTIFIED}, {"$group": {"_id": "$replica_id"}}])
        return {each["_id"] for each in found}

    async def to_notify(self, replica_ids: _Ids) -> list[TurnRecord]:
        """Return some turns of servers of whose ends webhooks are to be notified."""
        query = {**_NOTIFIED, "replica_id": {"$in": list(replica_ids)}}
        return [_from_document(each) for each in await self._turns.find(query, limit=_MAX_READ)]

    async def set_notified(self, turn_ids: _Ids) -> None:
        """Record that the ends of turns are known to those who notify webhooks."""
        await self._turns.update_many({**_NOTIFIED, "_id": {"$in": list(turn_ids)}}, {"$unset": {"outbox": ""}})

    async def page(self, tenant_id: str, *, session_id: str | None, before: str | None, limit: int) -> list[TurnRecord]:
        """Return the newest turns of a tenant, or of one of its sessions, that are older than the turn `before`."""
        query: Document = {"tenant_id": tenant_id, "deleted": _NOT_DELETED, **self._not_expired()}
        if session_id is not None:
            query["session_id"] = session_id
        if before is not None:
            query["_id"] = {"$lt": before}
        return [_from_document(each) for each in await self._turns.find(query, sort=[("_id", -1)], limit=limit)]

    async def find_all(self, tenant_id: str, turn_ids: _Ids) -> list[TurnRecord]:
        """Return those of these turns that exist, newest first."""
        query = {"tenant_id": tenant_id, "_id": {"$in": list(turn_ids)}, "deleted": _NOT_DELETED, **self._not_expired()}
        return [_from_document(each) for each in await self._turns.find(query, sort=[("_id", -1)])]

    async def of_session(self, tenant_id: str, session_id: str) -> list[str]:
        """Return the ids of a session's turns."""
        query = {"tenant_id": tenant_id, "session_id": session_id, "deleted": _NOT_DELETED}
        return [each["_id"] for each in await self._turns.find(query, fields={"_id": 1})]

    def _not_expired(self) -> Document:
        return {"expire_time": {"$gt": self._clock()}}

    async def delete(self, tenant_id: str, turn_ids: _Ids) -> None:
        """Delete turns. A record with a request id remains until it expires: a late duplicate starts no new turn."""
        query = {"tenant_id": tenant_id, "_id": {"$in": list(turn_ids)}}
        await self._turns.update_many({**query, "request_id": {"$exists": True}}, {"$set": {"deleted": True}})
        await self._turns.delete_many({**query, "request_id": {"$exists": False}})

    async def some_ids(self, tenant_id: str) -> list[str]:
        """Return the ids of some turns of a tenant, also deleted ones; none if it has no more."""
        found = await self._turns.find({"tenant_id": tenant_id}, fields={"_id": 1}, limit=_MAX_READ)
        return [each["_id"] for each in found]

    async def erase(self, tenant_id: str, turn_ids: _Ids) -> None:
        """Delete turns with their request ids."""
        await self._turns.delete_many({"tenant_id": tenant_id, "_id": {"$in": list(turn_ids)}})


def _from_document(document: Document) -> TurnRecord:
    return TurnRecord(
        turn_id=document["_id"],
        tenant_id=document["tenant_id"],
        session_id=document["session_id"],
        request_id=document.get("request_id"),
        fingerprint=document["fingerprint"],
        replica_id=document["replica_id"],
        model=document.get("model"),
        deleted=document.get("deleted", False),
    )
