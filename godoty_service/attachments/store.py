"""Stores attachments, and which sessions name them. Owns the collection `attachments`.

A document has these fields:

_id          The id.
tenant_id    The tenant.
content_id   Where the bytes are (`chunks.py`). Several attachments of a tenant with the same bytes have the same one.
media_type, size, width, height, pages  What `Attachment` has.
create_time  When it was stored.
sessions     The generated ids of the sessions that name it.
expire_time  When it is deleted because no session has named it; absent: one does.
ready        Its bytes are stored; until then it cannot be used.
check_time   When to check that the sessions exist: a server may have died between naming it and creating the session.
dead         It is being deleted, and cannot be used any more.

There is no transaction. A session names an attachment, and an attachment dies, in one atomic update of its document
each. A content is deleted only after it was closed to new attachments (`live`) and no attachment refers to it; one that
begins to refer to it checks that afterwards. Each step can be repeated, and `Sweeper` repeats what a dead server left.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Collection as Some
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from godoty_service.attachments.attachment import Attachment, StoredAttachment
from godoty_service.attachments.chunks import AttachmentChunks
from godoty_service.attachments.errors import AttachmentLimit, AttachmentNotFound
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, StorageUnavailable
from godoty_service.ids import new_id
from godoty_service.mongo.collection import Collection, Document, Index

MAX_SESSIONS: Final = 1_000  # that name one attachment
_UNFINISHED: Final = timedelta(hours=1)  # after which an upload has ended, one way or the other
_CHECK_AFTER: Final = timedelta(hours=1)
_AT_ONCE: Final = 100  # documents of one read
_FIELDS: Final = ("media_type", "size", "width", "height", "pages")
_USABLE: Final[Document] = {"ready": True, "dead": {"$exists": False}}

ExistingSessions = Callable[[str, Some[str]], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """The limits of one tenant's attachments together.

    Attributes:
        number: Their number.
        size: Their bytes, each upload of the same bytes counted.
    """

    number: int = 10_000
    size: int = 10 * 1024**3


class AttachmentStore:
    """Attachments by tenant."""

    COLLECTION = "attachments"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("sessions", 1)]),
        Index(keys=[("tenant_id", 1), ("content_id", 1)]),
        Index(keys=[("tenant_id", 1), ("size", 1)]),
        Index(keys=[("expire_time", 1)], where={"expire_time": {"$exists": True}}),
        Index(keys=[("check_time", 1)], where={"check_time": {"$exists": True}}),
        Index(keys=[("dead", 1)], where={"dead": True}),
    )

    def __init__(
        self,
        collection: Collection,
        chunks: AttachmentChunks,
        *,
        limits: TenantLimits,
        retention: timedelta,
        clock: Clock = utc_now,
    ) -> None:
        """Create the store.

        Args:
            collection: `attachments`.
            chunks: The bytes.
            limits: The limits of one tenant.
            retention: The time for which an attachment is stored that no session names.
            clock: Returns the time.
        """
        self._attachments = collection
        self.chunks = chunks
        self._limits = limits
        self._retention = retention
        self._clock = clock

    async def add(self, tenant_id: str, attachment: Attachment, data: bytes) -> StoredAttachment:
        """Store an attachment; its bytes are stored once, however many attachments of the tenant have them.

        Raises:
            AttachmentLimit: The tenant has too many, or too large ones.
            StorageError: It could not be stored; what was written is deleted, now or by `Sweeper`.
        """
        await self._check_limits(tenant_id, attachment.size)
        now = self._clock()
        document: Document = {
            "_id": attachment.attachment_id,
            "tenant_id": tenant_id,
            "content_id": new_id("cnt"),
            **{name: getattr(attachment, name) for name in _FIELDS},
            "create_time": now,
            "sessions": [],
            "expire_time": now + _UNFINISHED,
        }
        await self._attachments.insert_one(document)
        try:
            content_id = await self._store_content(document, data)
            stored = StoredAttachment(
                attachment=attachment, content_id=content_id, expire_time=self._clock() + self._retention
            )
            fields = {"ready": True, "content_id": content_id, "expire_time": stored.expire_time}
            if not await self._set(document, fields):
                await self._delete_unused(tenant_id, content_id)
                raise StorageUnavailable("The attachment was deleted while it was stored.")
        except GodotyError:
            await self._delete(document)
            raise
        return stored

    async def get(self, tenant_id: str, attachment_id: str) -> StoredAttachment:
        """Return an attachment.

        Raises:
            AttachmentNotFound: The tenant has no such attachment.
        """
        found = await self._attachments.find_one({"_id": attachment_id, "tenant_id": tenant_id, **_USABLE})
        if found is None:
            raise AttachmentNotFound.of(attachment_id)
        return _stored(found)

    async def contents(self, tenant_id: str, attachment_ids: Sequence[str]) -> dict[str, str]:
        """Return where the bytes of some attachments are, by id; those that are deleted are omitted."""
        query = {"_id": {"$in": list(attachment_ids)}, "tenant_id": tenant_id, **_USABLE}
        found = await self._attachments.find(query, fields={"content_id": 1})
        return {each["_id"]: each["content_id"] for each in found}

    async def name(self, tenant_id: str, attachment_id: str, *, session_uid: str) -> bool:
        """Record that a session names an attachment, which is stored for as long as it does.

        Returns:
            Whether the session had not named it before.

        Raises:
            AttachmentNotFound: The tenant has no such attachment.
            AttachmentLimit: Too many sessions name it.
        """
        ids = {"_id": attachment_id, "tenant_id": tenant_id}
        usable = {**ids, **_USABLE, **_below_limit(session_uid)}
        before = await self._attachments.find_one_and_update(usable, self._naming(session_uid), before=True)
        if before is not None:
            return session_uid not in before["sessions"]
        await self.get(tenant_id, attachment_id)
        raise _too_many_sessions(attachment_id)

    async def named(self, tenant_id: str, session_uid: str) -> set[str]:
        """Return the ids of the attachments that a session names."""
        query = {"tenant_id": tenant_id, "sessions": session_uid, **_USABLE}
        return {each["_id"] for each in await self._attachments.find(query, fields={"_id": 1})}

    async def name_all(self, tenant_id: str, attachment_ids: Some[str], *, session_uid: str) -> None:
        """Record that a session names some attachments; those that are deleted are omitted.

        Raises:
            AttachmentLimit: Too many sessions name one of them.
        """
        usable = {"_id": {"$in": sorted(attachment_ids)}, "tenant_id": tenant_id, **_USABLE}
        await self._attachments.update_many({**usable, **_below_limit(session_uid)}, self._naming(session_uid))
        others = {**usable, "sessions": {"$ne": session_uid}}
        if (found := await self._attachments.find_one(others, fields={"_id": 1})) is not None:
            raise _too_many_sessions(found["_id"])

    def _naming(self, session_uid: str) -> Document:
        """Return the update of an attachment that a session names."""
        return {
            "$addToSet": {"sessions": session_uid},
            "$set": {"check_time": self._clock() + _CHECK_AFTER},
            "$unset": {"expire_time": ""},
        }

    async def unname(self, tenant_id: str, attachment_id: str, *, session_uid: str) -> None:
        """Undo `name` for a turn that was refused: the attachment can be named again, for as long as an upload."""
        unused = {"$cond": [_NO_SESSION, self._clock() + self._retention, "$$REMOVE"]}
        await self._attachments.update_one(
            {"_id": attachment_id, "tenant_id": tenant_id, "sessions": session_uid},
            [_without([session_uid]), {"$set": {"expire_time": unused}}],
        )

    async def discard(self, tenant_id: str, attachment_id: str) -> None:
        """Delete an attachment, if it exists and no session names it."""
        await self._delete({"_id": attachment_id, "tenant_id": tenant_id}, unless_used=True)

    async def release_session(self, tenant_id: str, session_uid: str) -> None:
        """Record that a session names nothing any more; delete the attachments that no other session names."""
        query = {"tenant_id": tenant_id, "sessions": session_uid}
        while found := await self._attachments.find(query, fields={"_id": 1}, limit=_AT_ONCE):
            for each in found:
                await self._release(tenant_id, each["_id"], [session_uid])

    async def erase(self, tenant_id: str) -> None:
        """Delete all attachments of a tenant, with their bytes."""
        await self._attachments.delete_all({"tenant_id": tenant_id})
        await self.chunks.erase(tenant_id)

    async def sweep(self, existing: ExistingSessions) -> None:
        """Delete what has expired, and what servers that died have left.

        Args:
            existing: Returns which of some sessions of a tenant exist.
        """
        now = self._clock()
        while found := await self._attachments.find({"dead": True}, limit=_AT_ONCE):
            for each in found:
                await self._delete(each)
        while found := await self._attachments.find({"expire_time": {"$lte": now}, "sessions": []}, limit=_AT_ONCE):
            for each in found:
                await self._delete(each, unless_used=True)
        while found := await self._attachments.find({"check_time": {"$lte": now}}, limit=_AT_ONCE):
            for each in found:
                lost = set(each["sessions"]) - await existing(each["tenant_id"], each["sessions"])
                if lost:
                    await self._release(each["tenant_id"], each["_id"], sorted(lost))
                unchanged = {"_id": each["_id"], "check_time": each["check_time"]}
                await self._attachments.update_one(unchanged, {"$unset": {"check_time": ""}})

    async def _check_limits(self, tenant_id: str, size: int) -> None:
        """Check the tenant's limits; uploads at the same time may exceed them by what they have.

        Raises:
            AttachmentLimit: One is reached.
        """
        sums = {"_id": None, "number": {"$sum": 1}, "size": {"$sum": "$size"}}
        found = await self._attachments.aggregate(
            [{"$match": {"tenant_id": tenant_id}}, {"$project": {"_id": 0, "size": 1}}, {"$group": sums}],
            hint=[("tenant_id", 1), ("size", 1)],
        )
        number, total = (found[0]["number"], found[0]["size"]) if found else (0, 0)
        if number >= self._limits.number:
            raise _limit_reached("attachments/tenant", f"{self._limits.number:,} attachments", self._limits.number)
        if total + size > self._limits.size:
            raise _limit_reached("attachment_bytes/tenant", f"{self._limits.size:,} bytes", self._limits.size)

    async def _store_content(self, document: Document, data: bytes) -> str:
        """Store the bytes of an attachment, or refer to those that are stored; return where they are."""
        tenant_id, own_id = document["tenant_id"], document["content_id"]
        content_hash = await asyncio.to_thread(_hash, data)
        while True:
            found = await self.chunks.find_live(tenant_id, content_hash)
            if found is not None:
                await self._set(document, {"content_id": found})
                if await self.chunks.is_live(tenant_id, found):  # else it is being deleted, and may be gone
                    return found
                continue
            await self._set(document, {"content_id": own_id})
            if await self.chunks.insert(tenant_id, own_id, data, content_hash=content_hash):
                return str(own_id)
            await self.chunks.delete(tenant_id, own_id)

    async def _set(self, document: Document, fields: Document) -> bool:
        """Set fields of an attachment; return False if it is deleted, or is just being deleted."""
        alive = {"_id": document["_id"], "tenant_id": document["tenant_id"], "dead": {"$exists": False}}
        return await self._attachments.update_one(alive, {"$set": fields})

    async def _release(self, tenant_id: str, attachment_id: str, session_uids: Sequence[str]) -> None:
        """Remove sessions from those that name an attachment, and delete it if there is no other."""
        dead = {"$set": {"dead": {"$cond": [_NO_SESSION, True, "$$REMOVE"]}}}
        found = await self._attachments.find_one_and_update(
            {"_id": attachment_id, "tenant_id": tenant_id}, [_without(session_uids), dead]
        )
        if found is not None and found.get("dead"):
            await self._delete(found)

    async def _delete(self, document: Document, *, unless_used: bool = False) -> None:
        """Delete an attachment, and its bytes if no other one has them."""
        ids = {"_id": document["_id"], "tenant_id": document["tenant_id"]}
        unused: Document = {"sessions": []} if unless_used else {}
        found = await self._attachments.find_one_and_update({**ids, **unused}, {"$set": {"dead": True}})
        if found is None:
            return
        await self._delete_unused(found["tenant_id"], found["content_id"])
        await self._attachments.delete_one(ids)

    async def _delete_unused(self, tenant_id: str, content_id: str) -> None:
        """Delete the bytes of a content, if no attachment has them."""
        if not await self._is_referred_to(tenant_id, content_id):
            await self.chunks.retire(tenant_id, content_id)
            if await self._is_referred_to(tenant_id, content_id):
                await self.chunks.revive(tenant_id, content_id)
            else:
                await self.chunks.delete(tenant_id, content_id)

    async def _is_referred_to(self, tenant_id: str, content_id: str) -> bool:
        query = {"tenant_id": tenant_id, "content_id": content_id, "dead": {"$exists": False}}
        return await self._attachments.find_one(query, fields={"_id": 1}) is not None


_NO_SESSION: Final = {"$eq": [{"$size": "$sessions"}, 0]}


def _without(session_uids: Sequence[str]) -> dict[str, Any]:
    """Return the stage of an update that removes sessions."""
    return {"$set": {"sessions": {"$setDifference": ["$sessions", list(session_uids)]}}}


def _below_limit(session_uid: str) -> Document:
    """Return the filter for attachments that a session names, or may name as well."""
    return {"$or": [{"sessions": session_uid}, {f"sessions.{MAX_SESSIONS - 1}": {"$exists": False}}]}


def _too_many_sessions(attachment_id: str) -> AttachmentLimit:
    return AttachmentLimit(
        f"{MAX_SESSIONS:,} sessions name the attachment {attachment_id}, which is the limit: upload it again.",
        quota="sessions/attachment",
        metadata={"limit": str(MAX_SESSIONS)},
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _limit_reached(quota: str, limit: str, number: int) -> AttachmentLimit:
    text = f"A tenant may have {limit}: delete sessions that name attachments."
    return AttachmentLimit(text, quota=quota, metadata={"limit": str(number)})


def _stored(document: Document) -> StoredAttachment:
    expire_time: datetime | None = document.get("expire_time")
    return StoredAttachment(
        attachment=Attachment(attachment_id=document["_id"], **{name: document[name] for name in _FIELDS}),
        content_id=document["content_id"],
        expire_time=expire_time,
    )
