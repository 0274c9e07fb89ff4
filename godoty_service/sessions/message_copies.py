"""Copies the messages of a session to another one, within the database: their number does not change the operations."""

import json
from dataclasses import dataclass
from typing import Any, Final, cast

from strands.types.content import Message

from godoty_service.mongo.collection import Collection, Document
from godoty_service.sessions.history_repair import ends_answer, tool_uses

COPIED: Final = ""  # the turn of a copied message: no turn of its session has written it
_PIECE: Final = 10_000  # messages of one operation
_ATTACHMENT: Final = {"regex": "att_[0-9a-f]{28}", "mark": '"godoty"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A message at which a session may be forked.

    Attributes:
        number: Its number.
        message: The message.
        state_number: The number of the message that stores the agent's state after it; 0: it is empty; None: unknown.
    """

    number: int
    message: Message
    state_number: int | None

    @property
    def ends_answer(self) -> bool:
        """Whether it is an answer without tool calls."""
        return ends_answer(self.message)

    @property
    def tool_uses(self) -> list[str]:
        """The ids of its tool calls."""
        return tool_uses(self.message)

    @property
    def is_users(self) -> bool:
        """Whether it has the user's words, and not the results of tools."""
        content = self.message["content"]
        return self.message["role"] == "user" and not any("toolResult" in block for block in content)


class MessageCopies:
    """Copies messages between sessions of a tenant."""

    def __init__(self, collection: Collection) -> None:
        """Create it.

        Args:
            collection: `messages`, which `MessageStore` owns.
        """
        self._messages = collection

    async def point(self, tenant_id: str, session_uid: str, number: int) -> Point | None:
        """Return the message of a number; None: there is none."""
        found = await self._messages.find_one(
            _numbered(tenant_id, session_uid, number), fields={"role": 1, "content": 1, "state_number": 1}
        )
        if found is None:
            return None
        content: list[Any] = json.loads(found["content"])
        message = cast("Message", {"role": found["role"], "content": content})
        return Point(number=number, message=message, state_number=found.get("state_number"))

    async def state(self, tenant_id: str, session_uid: str, number: int) -> str | None:
        """Return the agent's state that a message stores, as JSON; None: it stores none."""
        found = await self._messages.find_one(_numbered(tenant_id, session_uid, number), fields={"state": 1})
        return found.get("state") if found is not None else None

    async def copy(self, tenant_id: str, session_uid: str, *, to: str, through: int) -> None:
        """Copy a session's messages up to a number to another session, which has none.

        Raises:
            StorageError: Some of them may be copied.
        """
        for start in range(0, through, _PIECE):
            last = min(start + _PIECE, through)
            await self._messages.aggregate(
                [
                    {"$match": _range(tenant_id, session_uid, after=start, through=last)},
                    {"$unset": "_id"},
                    {"$set": {"session_uid": to, "turn_id": COPIED}},
                    {"$merge": {"into": self._messages.name, "whenMatched": "fail", "whenNotMatched": "insert"}},
                ]
            )

    async def attachment_ids(self, tenant_id: str, session_uid: str, *, through: int) -> set[str]:
        """Return the ids of the attachments that messages up to a number name; texts may have others of that form."""
        named = {**_range(tenant_id, session_uid, after=0, through=through), "content": {"$regex": _ATTACHMENT["mark"]}}
        found = await self._messages.aggregate(
            [
                {"$match": named},
                {"$project": {"ids": {"$regexFindAll": {"input": "$content", "regex": _ATTACHMENT["regex"]}}}},
                {"$unwind": "$ids"},
                {"$group": {"_id": "$ids.match"}},
            ]
        )
        return {each["_id"] for each in found}


def _numbered(tenant_id: str, session_uid: str, number: int) -> Document:
    return {"tenant_id": tenant_id, "session_uid": session_uid, "number": number}


def _range(tenant_id: str, session_uid: str, *, after: int, through: int) -> Document:
    return {"tenant_id": tenant_id, "session_uid": session_uid, "number": {"$gt": after, "$lte": through}}
