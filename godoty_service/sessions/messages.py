"""Stores messages: one document each, numbered by the turn that holds the session. Owns the collection `messages`.

The content is stored as JSON text, so that it is read back unchanged with any keys of a tool's input. Citations are
stored beside it: they are for readers, and no model sees them.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar

from strands.types.content import Message, Messages

from godoty_service.citations import Citation, citations_from_text, citations_to_text
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey, SessionLost
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.sessions import history_repair
from godoty_service.sessions.agent_states import StateAfter

_INLINE = 16 * 1024  # bytes; larger contents are read separately
_MAX_BATCH = 64  # messages: at most 1 MiB
_WINDOW = 8 * 1024 * 1024  # characters of all messages that a model sees: more than the longest context has
_DECODED = 256 * 1024  # characters that are decoded at once


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message as it is stored. `content` is a list of Strands' content blocks; `citations` are of the answer."""

    number: int
    role: str
    content: list[dict[str, Any]]
    turn_id: str
    create_time: datetime
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, slots=True)
class SizedMessage:
    """A message that was found, with its size; only a small one has its content."""

    document: Document

    @property
    def number(self) -> int:
        """The message's number in the session."""
        return int(self.document["number"])

    @property
    def size(self) -> int:
        """The bytes of its stored content and citations."""
        return int(self.document["bytes"])

    @property
    def inline(self) -> bool:
        """Whether the content was read with the message."""
        return "content" in self.document


class MessageStore:
    """Messages by tenant and session."""

    COLLECTION = "messages"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("session_uid", 1), ("number", 1)], unique=True),
    )

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._messages = collection
        self._clock = clock

    async def append(
        self,
        tenant_id: str,
        session_uid: str,
        *,
        number: int,
        turn_id: str,
        messages: Sequence[Message],
        citations: Mapping[int, Sequence[Citation]] = MappingProxyType({}),
        states: Mapping[int, StateAfter] = MappingProxyType({}),
    ) -> None:
        """Insert messages at a number and those after it.

        Args:
            tenant_id: The tenant.
            session_uid: The session.
            number: The number of the first message.
            turn_id: The turn that adds them.
            messages: The messages.
            citations: What they cite, by number.
            states: The agent's state after them, by number.

        Raises:
            SessionLost: Another turn has inserted one of these numbers: the session was taken over.
        """
        now = self._clock()
        documents: list[Document] = [
            {
                "tenant_id": tenant_id,
                "session_uid": session_uid,
                "number": number + index,
                "turn_id": turn_id,
                "role": message["role"],
                "content": _to_json(message["content"]),
                "create_time": now,
                **({"citations": citations_to_text(cited)} if (cited := citations.get(number + index)) else {}),
                **_state_fields(states.get(number + index)),
            }
            for index, message in enumerate(messages)
        ]
        try:
            if len(documents) == 1:
                await self._messages.insert_one(documents[0])
            else:
                await self._messages.insert_many(documents)
        except DuplicateKey as error:
            raise SessionLost("The session was taken over by another turn.", retry_after=1.0) from error

    async def window(self, tenant_id: str, session_uid: str, *, size: int, after: int = 0) -> Messages:
        """Return the newest messages after a number, up to a size, the oldest of them first, in Strands' format."""
        numbers: Document = {"$gt": after}
        found: Messages = []
        total = decoded = 0
        while len(found) < size:
            limit = min(size - len(found), _MAX_BATCH)
            query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": numbers}
            documents = await self._messages.find(query, sort=[("number", -1)], limit=limit, fields=_NO_STATE)
            for each in documents:
                total += len(each["content"])
                if found and total > _WINDOW:
                    return found[::-1]
                found.append(_for_model(each))
                if total - decoded > _DECODED:
                    decoded = total
                    await asyncio.sleep(0)
            if len(documents) < limit:
                break
            numbers = {"$gt": after, "$lt": documents[-1]["number"]}
        return found[::-1]

    async def page(
        self, tenant_id: str, session_uid: str, *, after: int, limit: int, most_bytes: int
    ) -> tuple[list[SizedMessage], bool]:
        """Find messages after a number, the oldest first, up to a total size of their contents.

        A message that exceeds `most_bytes` is found alone.

        Returns:
            The messages, and whether there are more.
        """
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$gt": after}}
        batch = min(limit + 1, _MAX_BATCH)
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
        """Find a message by its number; None: there is none."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": number}
        document = await self._messages.find_one(query, fields=_SIZED)
        return SizedMessage(document) if document is not None else None

    async def load(self, tenant_id: str, session_uid: str, found: Sequence[SizedMessage]) -> list[StoredMessage]:
        """Read the contents of messages that were found; messages that were deleted since are omitted."""
        large = [each.number for each in found if not each.inline]
        contents: dict[int, Document] = {}
        if large:
            query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$in": large}}
            documents = await self._messages.find(query, fields={"number": 1, "content": 1, "citations": 1})
            contents = {each["number"]: each for each in documents}
        messages = []
        for each in found:
            if each.inline:
                messages.append(_from_document(each.document))
            elif each.number in contents:
                messages.append(_from_document(each.document | contents.pop(each.number)))
                await asyncio.sleep(0)
        return messages

    async def turn_ids(self, tenant_id: str, session_uid: str, *, after: int, limit: int) -> set[str]:
        """Return the ids of the turns that wrote the first messages after a number."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$gt": after}}
        found = await self._messages.find(query, sort=[("number", 1)], limit=limit, fields={"turn_id": 1})
        return {each["turn_id"] for each in found}

    async def newest(self, tenant_id: str, session_uid: str, *, after: int, limit: int) -> list[StoredMessage]:
        """Return the newest messages after a number, the oldest of them first."""
        found = await self._find(tenant_id, session_uid, after=after, limit=limit, order=-1)
        return [_from_document(each) for each in reversed(found)]

    async def _find(self, tenant_id: str, session_uid: str, *, after: int, limit: int, order: int) -> list[Document]:
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$gt": after}}
        return await self._messages.find(query, sort=[("number", order)], limit=limit, fields=_NO_STATE)

    async def has_turn(self, tenant_id: str, session_uid: str, turn_id: str) -> bool:
        """Return whether a turn has messages in a session."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "turn_id": turn_id}
        return await self._messages.find_one(query, sort=[("number", -1)], fields={"_id": 1}) is not None

    async def highest(self, tenant_id: str, session_uid: str) -> int:
        """Return the number of the last message; 0 if there is none."""
        last = await self._messages.find_one(
            {"tenant_id": tenant_id, "session_uid": session_uid}, sort=[("number", -1)], fields={"number": 1}
        )
        return last["number"] if last else 0

    async def withhold(
        self, tenant_id: str, session_uid: str, turn_id: str, *, attachments_alone: bool = False
    ) -> None:
        """Withhold a turn's messages, or what they carry, from every model; readers of the conversation see them."""
        withheld = "attachments" if attachments_alone else True  # a build that does not know the first takes it as True
        await self._messages.update_many(
            {"tenant_id": tenant_id, "session_uid": session_uid, "turn_id": turn_id}, {"$set": {"withheld": withheld}}
        )

    async def delete(self, tenant_id: str, session_uid: str) -> int:
        """Delete all messages of a session; return their number."""
        return await self._messages.delete_many({"tenant_id": tenant_id, "session_uid": session_uid})

    async def erase(self, tenant_id: str) -> None:
        """Delete all messages of a tenant: those of its sessions, and those that a dead server left."""
        await self._messages.delete_all({"tenant_id": tenant_id})


def tool_result_text(content: Any) -> str:
    """Return the content of a tool's result as text, in the form that the model sees."""
    return "\n".join(
        block["text"] if "text" in block else json.dumps(block.get("json"), ensure_ascii=False) for block in content
    )


_NO_STATE = {"state": 0}
_BYTES = {"$add": [{"$strLenBytes": "$content"}, {"$strLenBytes": {"$ifNull": ["$citations", ""]}}]}
_IS_INLINE = {"$lte": [_BYTES, _INLINE]}
_SIZED = {
    "number": 1,
    "role": 1,
    "turn_id": 1,
    "create_time": 1,
    "bytes": _BYTES,
    "content": {"$cond": [_IS_INLINE, "$content", "$$REMOVE"]},
    "citations": {"$cond": [_IS_INLINE, "$citations", "$$REMOVE"]},
}


def _state_fields(state: StateAfter | None) -> Document:
    """Return the fields of a message for the agent's state after it, if that is known."""
    if state is None:
        return {}
    return {"state_number": state.number, **({"state": state.text} if state.text is not None else {})}


def _from_document(document: Document) -> StoredMessage:
    return StoredMessage(
        number=document["number"],
        role=document["role"],
        content=json.loads(document["content"]),
        turn_id=document["turn_id"],
        create_time=document["create_time"],
        citations=citations_from_text(document.get("citations") or "[]"),
    )


def _for_model(document: Document) -> Message:
    """Return a message in the form that models see."""
    content = json.loads(document["content"])
    message = Message(role=document["role"], content=content)
    match document.get("withheld"):
        case None:
            return message
        case "attachments":
            return history_repair.without_attachments(message)
    return history_repair.withheld(message)


def _to_json(content: Any) -> str:
    """Return content as JSON text without ASCII escapes, which take three times the space of a non-Latin letter."""
    text = json.dumps(content, ensure_ascii=False)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
