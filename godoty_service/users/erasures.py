"""Orders to erase end users, in the documents of `users`. `user_erasure.py` carries them out.

The field `erase` of a user's document has these fields:

name         The name of the user, for as long as the erasure runs: until then, data of earlier builds has it.
request_id   The caller's id of the request; absent: it had none.
time         When it was ordered, by the database's clock.
owner        The server that carries it out; absent once it is done.
sessions, messages, turns  What was erased so far.
end_time     When it was done; absent: it is not.
"""

from collections.abc import Collection as Some
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document

_MAX_UNFINISHED = 20  # orders of one read
_UNFINISHED = {"erase.owner": {"$exists": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedContents:
    """What an erasure has deleted.

    Attributes:
        sessions: The number of sessions, each with the agent's state.
        messages: The number of their messages.
        turns: The number of their turns whose records or event logs were still stored.
    """

    sessions: int = 0
    messages: int = 0
    turns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureOrder:
    """An order to erase an end user.

    Attributes:
        tenant_id: The tenant.
        reference: The reference, which remains in ledger entries.
        name: The name; None: the erasure is done.
        owner: The server that carries it out; None: the erasure is done.
        request_id: The caller's id of the request; None: it had none.
        contents: What was erased so far.
        end_time: When it was done; None: it is not.
    """

    tenant_id: str
    reference: str
    name: str | None
    owner: str | None
    request_id: str | None
    contents: ErasedContents
    end_time: datetime | None


class ErasureOrders:
    """The orders, by tenant and reference."""

    def __init__(self, collection: Collection) -> None:
        """Create it.

        Args:
            collection: `users`, which `UserReferences` owns.
        """
        self._users = collection

    async def place(
        self, tenant_id: str, reference: str, *, name: str, request_id: str | None, owner: str
    ) -> ErasureOrder | None:
        """Order the erasure of a user: from now on its name is free, and becomes a new user when it is named again.

        Returns:
            The order; None: the user does not have this name any more, or the request has ordered another erasure.
        """
        order: Document = {"name": "$name", "time": "$$NOW", "owner": {"$literal": owner}}
        order |= dict.fromkeys(("sessions", "messages", "turns"), 0)
        if request_id is not None:
            order["request_id"] = {"$literal": request_id}
        try:
            found = await self._users.find_one_and_update(
                {"_id": reference, "tenant_id": tenant_id, "name": name},
                [{"$set": {"erase": order}}, {"$unset": "name"}],
            )
        except DuplicateKey:
            return None
        return _order(found) if found is not None else None

    async def of_request(self, tenant_id: str, request_id: str) -> ErasureOrder | None:
        """Return the order of a request, if it has placed one."""
        found = await self._users.find_one({"tenant_id": tenant_id, "erase.request_id": request_id})
        return _order(found) if found is not None else None

    async def of_name(self, tenant_id: str, name: str) -> ErasureOrder | None:
        """Return the newest order for a name that is not done."""
        query = {"tenant_id": tenant_id, "erase.name": name}
        found = await self._users.find_one(query, sort=[("erase.time", -1)])
        return _order(found) if found is not None else None

    async def get(self, order: ErasureOrder) -> ErasureOrder | None:
        """Return an order as it is now; None: the tenant was deleted."""
        found = await self._users.find_one({"_id": order.reference, "tenant_id": order.tenant_id})
        return _order(found) if found is not None else None

    async def owners(self) -> set[str]:
        """Return the servers that have orders of any tenant which are not done."""
        found = await self._users.aggregate([{"$match": _UNFINISHED}, {"$group": {"_id": "$erase.owner"}}])
        return {each["_id"] for each in found}

    async def unfinished(self, *, owners: Some[str], excluding: Some[str] = ()) -> list[ErasureOrder]:
        """Return some orders of these servers that are not done, of all tenants, except those of some references."""
        query = {"erase.owner": {"$in": list(owners)}, "_id": {"$nin": list(excluding)}}
        found = await self._users.find(query, limit=_MAX_UNFINISHED)
        return [_order(each) for each in found]

    async def take_over(self, order: ErasureOrder, *, owner: str) -> ErasureOrder | None:
        """Make a server carry out an order that another one had; None: a third one has taken it over, or it is done."""
        if order.owner == owner:
            return order
        query = {"_id": order.reference, "tenant_id": order.tenant_id, "erase.owner": order.owner or ""}
        taken = await self._users.update_one(query, {"$set": {"erase.owner": owner}})
        return replace(order, owner=owner) if taken else None

    async def add(self, order: ErasureOrder, contents: ErasedContents) -> None:
        """Add to what was erased."""
        more = {
            "erase.sessions": contents.sessions,
            "erase.messages": contents.messages,
            "erase.turns": contents.turns,
        }
        await self._users.update_one({"_id": order.reference, "tenant_id": order.tenant_id}, {"$inc": more})

    async def finish(self, order: ErasureOrder) -> None:
        """Record that an erasure is done, and delete the name."""
        await self._users.update_one(
            {"_id": order.reference, "tenant_id": order.tenant_id, "erase.owner": {"$exists": True}},
            [{"$set": {"erase.end_time": "$$NOW"}}, {"$unset": ["erase.name", "erase.owner"]}],
        )


def _order(document: Document) -> ErasureOrder:
    erase: dict[str, Any] = document["erase"]
    return ErasureOrder(
        tenant_id=document["tenant_id"],
        reference=document["_id"],
        name=erase.get("name"),
        owner=erase.get("owner"),
        request_id=erase.get("request_id"),
        contents=ErasedContents(sessions=erase["sessions"], messages=erase["messages"], turns=erase["turns"]),
        end_time=erase.get("end_time"),
    )
