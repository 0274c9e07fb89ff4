"""Which turns there are, and which request made each. Owns `turns`."""

from collections.abc import Collection as Some
from dataclasses import dataclass
from datetime import datetime, timedelta

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey
from godoty_service.mongo import Collection, Document, Index

INDEXES = (
    Index(
        keys=[("tenant_id", 1), ("request_id", 1)],
        unique=True,
        where={"request_id": {"$type": "string"}},
    ),
    Index(keys=[("tenant_id", 1), ("session_id", 1)]),
    Index(keys=[("expire_time", 1)], expire_after=0),
    Index(keys=[("replica_id", 1)], where={"follow_time": {"$exists": True}}),
)
_NO_REPLICA = ""  # of a turn that no server runs
# Logs are kept so much longer than their records: whoever reads a record finds its log whole, though the database
# deletes what has expired in no order, and clocks differ.
_LOG_MARGIN = timedelta(hours=1)
_NOT_DELETED = {"$ne": True}
_AT_ONCE = 100  # records of one read
_FOLLOWED_FOR = 3_000  # milliseconds that a mark of a reader in another server is good for


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """What every server can know of a turn.

    Attributes:
        fingerprint: Of the request that made it.
        replica_id: The server that runs it; empty: none does.
        deleted: It was deleted with its session; the record keeps its request id in use.
    """

    turn_id: str
    tenant_id: str
    session_id: str
    request_id: str | None
    fingerprint: str
    replica_id: str
    deleted: bool = False


class TurnRecords:
    """Turns by tenant."""

    def __init__(
        self, collection: Collection, *, keep_for: timedelta, longest: timedelta, clock: Clock = utc_now
    ) -> None:
        """Build it.

        Args:
            collection: `turns`.
            keep_for: How long after its end a turn's record and log are kept.
            longest: How long a turn takes at the most: what is kept is dated when it is written.
            clock: Tells the time.
        """
        self._turns = collection
        self._keep_for = keep_for + longest
        self._clock = clock
        self._refused: dict[str, TurnRecord] = {}  # those that are still to be forgotten, by turn

    def log_expiry(self) -> datetime:
        """Return the expiry time of a log chunk written now: later than that of its turn's record."""
        return self._clock() + self._keep_for + _LOG_MARGIN

    async def begin(self, record: TurnRecord) -> TurnRecord | None:
        """Write a new turn down; returns the one that had its request id already, if there is one."""
        document: Document = {
            "_id": record.turn_id,
            "tenant_id": record.tenant_id,
            "session_id": record.session_id,
            "fingerprint": record.fingerprint,
            "replica_id": record.replica_id,
            "cancel": False,
            "expire_time": self._clock() + self._keep_for,
        }
        if record.request_id:
            document["request_id"] = record.request_id
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
        """Delete the record with a request's id if it has expired and the database has not come to it."""
        query = {"tenant_id": record.tenant_id, "request_id": record.request_id}
        await self._turns.delete_one({**query, "expire_time": {"$lte": self._clock()}})

    async def forget(self, record: TurnRecord) -> None:
        """Delete the record of a turn that was refused, so that its request id is not used; `reap` tries again.

        Raises:
            StorageError: It may still be there.
        """
        self._refused[record.turn_id] = record
        await self._turns.delete_one({"_id": record.turn_id, "tenant_id": record.tenant_id})
        self._refused.pop(record.turn_id, None)

    def is_refused(self, record: TurnRecord) -> bool:
        """Return whether a turn was refused by this server, and its record is still to be deleted."""
        return record.turn_id in self._refused

    async def reap(self) -> None:
        """Delete the records of refused turns which could not be deleted when they were refused.

        Raises:
            StorageError: Some are left for the next time.
        """
        for record in list(self._refused.values()):
            await self.forget(record)

    async def abandon(self, record: TurnRecord) -> None:
        """Record that no server runs a turn; a server that does so after all sees it before it begins."""
        query = {"_id": record.turn_id, "tenant_id": record.tenant_id}
        await self._turns.update_one(query, {"$set": {"replica_id": _NO_REPLICA}})

    async def forget_abandoned(self, record: TurnRecord) -> None:
        """Delete the record of an abandoned turn that never began: its request id is not used."""
        query = {"_id": record.turn_id, "tenant_id": record.tenant_id}
        await self._turns.delete_one({**query, "replica_id": _NO_REPLICA})

    async def find(self, tenant_id: str, turn_id: str) -> TurnRecord | None:
        """Read a turn's record; None: it is unknown, was deleted, or has expired."""
        query = {"_id": turn_id, "tenant_id": tenant_id, "deleted": _NOT_DELETED, **self._kept()}
        found = await self._turns.find_one(query)
        return _read(found) if found else None

    async def of_request(self, tenant_id: str, request_id: str) -> TurnRecord | None:
        """Read the record of the turn that a request made, also of one that was deleted with its session."""
        found = await self._turns.find_one({"tenant_id": tenant_id, "request_id": request_id, **self._kept()})
        return _read(found) if found else None

    async def ask_to_cancel(self, record: TurnRecord) -> None:
        """Ask the server that runs a turn to end it."""
        await self._turns.update_one({"_id": record.turn_id, "tenant_id": record.tenant_id}, {"$set": {"cancel": True}})

    async def to_cancel(self, running: Some[str]) -> set[str]:
        """Tell which of these turns somebody asked to cancel."""
        found = await self._turns.find({"_id": {"$in": list(running)}, "cancel": True}, fields={"_id": 1})
        return {each["_id"] for each in found}

    async def follow(self, record: TurnRecord) -> None:
        """Mark a turn as read in another server than its own: for the next 3 seconds, by the database's clock."""
        query = {"_id": record.turn_id, "tenant_id": record.tenant_id}
        await self._turns.update_one(query, [{"$set": {"follow_time": "$$NOW"}}])

    async def followed(self, turn_ids: Some[str]) -> set[str]:
        """Tell which of these turns somebody reads in another server."""
        fresh = {"$gt": ["$follow_time", {"$subtract": ["$$NOW", _FOLLOWED_FOR]}]}
        found = await self._turns.find({"_id": {"$in": list(turn_ids)}, "$expr": fresh}, fields={"_id": 1})
        return {each["_id"] for each in found}

    async def followed_of(self, replica_id: str, *, but: Some[str]) -> list[TurnRecord]:
        """Read the turns of a server, but the given ones, that are read in another server."""
        fresh = {"$gt": ["$follow_time", {"$subtract": ["$$NOW", _FOLLOWED_FOR]}]}
        query = {"replica_id": replica_id, "follow_time": {"$exists": True}, "_id": {"$nin": list(but)}}
        return [_read(each) for each in await self._turns.find({**query, "$expr": fresh}, limit=_AT_ONCE)]

    async def of_session(self, tenant_id: str, session_id: str) -> list[str]:
        """Tell the ids of a session's turns."""
        query = {"tenant_id": tenant_id, "session_id": session_id, "deleted": _NOT_DELETED}
        return [each["_id"] for each in await self._turns.find(query, fields={"_id": 1})]

    def _kept(self) -> Document:
        return {"expire_time": {"$gt": self._clock()}}

    async def delete(self, tenant_id: str, turn_ids: Some[str]) -> None:
        """Delete turns. A record with a request id stays until it expires: a late duplicate makes no new turn."""
        query = {"tenant_id": tenant_id, "_id": {"$in": list(turn_ids)}}
        await self._turns.update_many({**query, "request_id": {"$exists": True}}, {"$set": {"deleted": True}})
        await self._turns.delete_many({**query, "request_id": {"$exists": False}})


def _read(document: Document) -> TurnRecord:
    return TurnRecord(
        turn_id=document["_id"],
        tenant_id=document["tenant_id"],
        session_id=document["session_id"],
        request_id=document.get("request_id"),
        fingerprint=document["fingerprint"],
        replica_id=document["replica_id"],
        deleted=document.get("deleted", False),
    )
