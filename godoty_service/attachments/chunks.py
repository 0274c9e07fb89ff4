"""Stores the bytes of attachments in pieces, once for each tenant and content. Owns the collection `attachment_chunks`.

A document has these fields:

_id         The content and the number of the piece, from 0: `cnt_…/0000`.
tenant_id   The tenant.
data        At most 768 KiB: far below MongoDB's limit, and a multiple of three bytes, so that the pieces of a file can
            be encoded as base64 one by one.
hash        Of the first piece alone: SHA-256 of the whole content.
live        Of the first piece alone: later uploads of the same bytes may refer to this content. Absent once it is to be
            deleted. At most one content of a tenant and hash is live.

GridFS would store the same pieces with a second collection and without the uniqueness of contents; its interface
differs between the two drivers that the package `mongo` hides.
"""

from collections.abc import AsyncIterator
from typing import ClassVar, Final

from bson.binary import Binary

from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document, Index

CHUNK: Final = 768 * 1024  # bytes of a piece
_ERASED_AT_ONCE: Final = 100  # pieces of one operation


class AttachmentChunks:
    """The contents of attachments, by tenant."""

    COLLECTION = "attachment_chunks"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1)]),
        Index(keys=[("tenant_id", 1), ("hash", 1)], unique=True, where={"live": True}),
    )

    def __init__(self, collection: Collection) -> None:
        self._chunks = collection

    async def insert(self, tenant_id: str, content_id: str, data: bytes, *, content_hash: str) -> bool:
        """Insert a content, which is live afterwards; return False if another one with the same bytes is live.

        Then the caller deletes what was inserted.
        """
        for number in range(1, count(len(data))):
            piece = data[number * CHUNK : (number + 1) * CHUNK]
            await self._chunks.insert_many([_document(tenant_id, content_id, number, piece)])
        head = _document(tenant_id, content_id, 0, data[:CHUNK]) | {"hash": content_hash, "live": True}
        try:
            await self._chunks.insert_many([head])
        except DuplicateKey:
            return False
        return True

    async def find_live(self, tenant_id: str, content_hash: str) -> str | None:
        """Return the live content with a hash, if there is one."""
        query = {"tenant_id": tenant_id, "hash": content_hash, "live": True}
        found = await self._chunks.find_one(query, fields={"_id": 1})
        return str(found["_id"]).partition("/")[0] if found is not None else None

    async def is_live(self, tenant_id: str, content_id: str) -> bool:
        """Return whether later uploads may refer to a content."""
        query = {"_id": _id(content_id, 0), "tenant_id": tenant_id, "live": True}
        return await self._chunks.find_one(query, fields={"_id": 1}) is not None

    async def retire(self, tenant_id: str, content_id: str) -> None:
        """Let no later upload refer to a content."""
        query = {"_id": _id(content_id, 0), "tenant_id": tenant_id}
        await self._chunks.update_one(query, {"$unset": {"live": ""}})

    async def revive(self, tenant_id: str, content_id: str) -> None:
        """Let later uploads refer to a content again, unless another one with the same bytes is live by now."""
        query = {"_id": _id(content_id, 0), "tenant_id": tenant_id}
        try:
            await self._chunks.update_one(query, {"$set": {"live": True}})
        except DuplicateKey:
            return

    async def read(self, tenant_id: str, content_id: str, number: int) -> bytes | None:
        """Return a piece of a content; None: there is none."""
        query = {"_id": _id(content_id, number), "tenant_id": tenant_id}
        found = await self._chunks.find_one(query, fields={"data": 1})
        return bytes(found["data"]) if found is not None else None

    async def iterate(self, tenant_id: str, content_id: str, *, size: int) -> AsyncIterator[bytes | None]:
        """Yield the pieces of a content, and None for one that is missing."""
        for number in range(count(size)):
            yield await self.read(tenant_id, content_id, number)

    async def delete(self, tenant_id: str, content_id: str) -> None:
        """Delete a content."""
        pieces = {"$gte": f"{content_id}/", "$lt": f"{content_id}0"}  # "0" follows "/"
        await self._chunks.delete_many({"_id": pieces, "tenant_id": tenant_id})

    async def erase(self, tenant_id: str) -> None:
        """Delete all contents of a tenant."""
        await self._chunks.delete_all({"tenant_id": tenant_id}, piece=_ERASED_AT_ONCE)


def count(size: int) -> int:
    """Return the number of pieces that a content of this size has."""
    return -(-size // CHUNK)


def _id(content_id: str, number: int) -> str:
    return f"{content_id}/{number:04}"


def _document(tenant_id: str, content_id: str, number: int, piece: bytes) -> Document:
    return {"_id": _id(content_id, number), "tenant_id": tenant_id, "data": Binary(piece)}
