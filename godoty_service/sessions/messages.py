"""Messages in MongoDB: one document each, numbered by the turn that holds the session. Owns `messages`.

The content is kept as JSON text: it comes back as it was, whatever keys a tool's input has.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strands.types.content import Message, Messages

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey, SessionLost
from godoty_service.mongo import Collection, Document, Index
from godoty_service.sessions import repair

_INLINE = 16 * 1024  # bytes of content that are read together with those of other messages
_AT_ONCE = 64  # messages of one batch: 1 MiB at most

INDEXES = (Index(keys=[("tenant_id", 1), ("session_uid", 1), ("number", 1)], unique=True),)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMessage:
    """A message as it is kept. `content` is a list of Strands' content blocks."""

    number: int
    role: str
    content: list[dict[str, Any]]
    turn_id: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class SizedMessage:
    """A message that was found, and how large it is; only a small one has its content."""

    document: Document

    @property
    def number(self) -> int:
        """Its number in the session."""
        return int(self.document["number"])

    @property
    def size(self) -> int:
        """Bytes of its content, as it is stored."""
        return int(self.document["bytes"])

    @property
    def inline(self) -> bool:
        """Whether the content was read with it."""
        return "content" in self.document


class MessageStore:
    """Messages by tenant and session."""

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._messages = collection
        self._clock = clock

    async def append(
        self, tenant_id: str, session_uid: str, *, number: int, turn_id: str, messages: Sequence[Message]
    ) -> None:
        """Keep messages under a number and those after it.

        Raises:
            SessionLost: Somebody else wrote under one of them: the session was taken over.
        """
        now = self._clock()
        documents: list[Document] = [
            {
                "tenant_id": tenant_id,
                "session_uid": session_uid,
                "number": number + place,
                "turn_id": turn_id,
                "role": message["role"],
                "content": _text(message["content"]),
                "create_time": now,
            }
            for place, message in enumerate(messages)
        ]
        try:
            if len(documents) == 1:
                await self._messages.insert_one(documents[0])
            else:
                await self._messages.insert_many(documents)
        except DuplicateKey as error:
            raise SessionLost("The session was taken over by another turn.", retry_after=1.0) from error

    async def window(self, tenant_id: str, session_uid: str, *, size: int, after: int = 0) -> Messages:
        """Read the newest messages after a number, the oldest of them first, as Strands takes them."""
        found = await self._find(tenant_id, session_uid, after=after, limit=size, order=-1)
        return [_sent(each) for each in reversed(found)]

    async def page(
        self, tenant_id: str, session_uid: str, *, after: int, limit: int, most_bytes: int
    ) -> tuple[list[SizedMessage], bool]:
        """Find messages after a number, the oldest first, until their contents have so many bytes together.

        A message that is larger alone is found alone.

        Returns:
            The messages, and whether there are more.
        """
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$gt": after}}
        batch = min(limit + 1, _AT_ONCE)
        found: list[SizedMessage] = []
        total = 0
        documents = self._messages.iterate(query, sort=[("number", 1)], fields=_SIZED, batch=batch, limit=limit + 1)
        async with aclosing(documents):
            async for document in documents:
                total += document["bytes"]
                if len(found) == limit or (found and total > most_bytes):
                    return found, True
                found.append(SizedMessage(document))
        return found, False

    async def find(self, tenant_id: str, session_uid: str, number: int) -> SizedMessage | None:
        """Find a message; None: there is none of this number."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": number}
        document = await self._messages.find_one(query, fields=_SIZED)
        return SizedMessage(document) if document is not None else None

    async def load(self, tenant_id: str, session_uid: str, found: Sequence[SizedMessage]) -> list[KeptMessage]:
        """Read the contents of messages that were found; one that was deleted since is left out."""
        large = [each.number for each in found if not each.inline]
        contents: dict[int, str] = {}
        if large:
            query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$in": large}}
            documents = await self._messages.find(query, fields={"number": 1, "content": 1})
            contents = {each["number"]: each["content"] for each in documents}
        messages = []
        for each in found:
            if each.inline:
                messages.append(_read(each.document))
            elif each.number in contents:
                messages.append(_read(each.document | {"content": contents.pop(each.number)}))
                await asyncio.sleep(0)
        return messages

    async def turn_ids(self, tenant_id: str, session_uid: str, *, after: int, limit: int) -> set[str]:
        """Return the turns of the first messages after a number."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$gt": after}}
        found = await self._messages.find(query, sort=[("number", 1)], limit=limit, fields={"turn_id": 1})
        return {each["turn_id"] for each in found}

    async def newest(self, tenant_id: str, session_uid: str, *, after: int, limit: int) -> list[KeptMessage]:
        """Read the newest messages after a number, the oldest of them first."""
        found = await self._find(tenant_id, session_uid, after=after, limit=limit, order=-1)
        return [_read(each) for each in reversed(found)]

    async def _find(self, tenant_id: str, session_uid: str, *, after: int, limit: int, order: int) -> list[Document]:
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$gt": after}}
        return await self._messages.find(query, sort=[("number", order)], limit=limit)

    async def has_turn(self, tenant_id: str, session_uid: str, turn_id: str) -> bool:
        """Return whether a turn has messages in a session."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "turn_id": turn_id}
        return await self._messages.find_one(query, sort=[("number", -1)], fields={"_id": 1}) is not None

    async def highest(self, tenant_id: str, session_uid: str) -> int:
        """Tell the number of the last message; 0 where there is none."""
        last = await self._messages.find_one(
            {"tenant_id": tenant_id, "session_uid": session_uid}, sort=[("number", -1)], fields={"number": 1}
        )
        return last["number"] if last else 0

    async def withhold(self, tenant_id: str, session_uid: str, turn_id: str) -> None:
        """Keep a turn's words from every model; readers of the conversation still see them."""
        await self._messages.update_many(
            {"tenant_id": tenant_id, "session_uid": session_uid, "turn_id": turn_id}, {"$set": {"withheld": True}}
        )

    async def delete(self, tenant_id: str, session_uid: str) -> None:
        """Delete all messages of a session."""
        await self._messages.delete_many({"tenant_id": tenant_id, "session_uid": session_uid})


_BYTES = {"$strLenBytes": "$content"}
_SIZED = {
    "number": 1,
    "role": 1,
    "turn_id": 1,
    "create_time": 1,
    "bytes": _BYTES,
    "content": {"$cond": [{"$lte": [_BYTES, _INLINE]}, "$content", "$$REMOVE"]},
}


def _read(document: Document) -> KeptMessage:
    return KeptMessage(
        number=document["number"],
        role=document["role"],
        content=json.loads(document["content"]),
        turn_id=document["turn_id"],
        create_time=document["create_time"],
    )


def _sent(document: Document) -> Message:
    """Return a message as models see it."""
    content = json.loads(document["content"])
    message = Message(role=document["role"], content=content)
    return repair.withheld(message) if document.get("withheld") else message


def _text(content: Any) -> str:
    """Write content as JSON in UTF-8: escaped, a letter that is not Latin takes three times as much of a document."""
    text = json.dumps(content, ensure_ascii=False)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
