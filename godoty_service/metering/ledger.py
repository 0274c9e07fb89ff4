"""The ledger: one entry for each request to the provider, written before the request leaves. Owns `ledger`."""

from collections.abc import Collection as Some
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from godoty_service.errors import DuplicateKey, StorageError
from godoty_service.metering.call import Adjustment, CallState, Entry, ModelCall
from godoty_service.metering.documents import (
    call_from_document,
    entry_from_document,
    entry_to_document,
)
from godoty_service.mongo import Collection, Index

AnyEntry = TypeVar("AnyEntry", ModelCall, Adjustment)

INDEXES = (
    Index(keys=[("tenant_id", 1), ("session_uid", 1), ("number", 1)], unique=True),
    Index(keys=[("owner", 1), ("start_time", 1)], where={"state": CallState.PENDING.value}),
    Index(keys=[("due", 1)], where={"state": CallState.PENDING.value}),
    Index(keys=[("tenant_id", 1), ("start_time", 1)]),
)
_IDENTITY = ("_id", "kind", "tenant_id", "session_uid", "session_id", "turn_id", "number", "owner", "start_time")
_TRIES = 20  # numbers that others may take before us; each failed try means that somebody succeeded


class Ledger:
    """Entries by tenant and session.

    Attributes:
        open_calls: Calls that this process is busy with; nobody else settles them while it lives.
    """

    def __init__(self, collection: Collection) -> None:
        self._entries = collection
        self.open_calls: set[str] = set()
        self._kept: dict[str, ModelCall] = {}

    async def insert(self, entry: AnyEntry) -> AnyEntry:
        """Write an entry under its number, or under the next free one if that is taken; returns it as written.

        Raises:
            StorageUnavailable: It is not known to be written.
        """
        for _ in range(_TRIES):
            try:
                await self._entries.insert_one(entry_to_document(entry))
            except DuplicateKey:
                highest = await self.highest(entry.tenant_id, entry.session_uid)
                entry = replace(entry, number=highest + 1)
            else:
                return entry
        raise StorageError("No free number was found for a ledger entry.")

    async def note_generation(self, tenant_id: str, call_id: str, generation_id: str) -> None:
        """Keep the provider's id of a call."""
        await self._entries.update_one(_pending(tenant_id, call_id), {"$set": {"generation_id": generation_id}})

    async def close(self, call: ModelCall) -> bool:
        """Write a call's final state; tells whether this was the write that closed it. An entry closes once."""
        return await self._entries.update_one(
            _pending(call.tenant_id, call.call_id), {"$set": _changes(call), "$unset": {"due": "", "tries": ""}}
        )

    async def close_or_keep(self, call: ModelCall) -> bool:
        """Close a call; where the database is out of reach, keep what is known in memory and raise.

        Raises:
            StorageUnavailable: The entry is still pending; `close_kept` tries again.
        """
        self._kept[call.call_id] = call
        closed = await self.close(call)
        del self._kept[call.call_id]
        return closed

    async def close_kept(self) -> None:
        """Try again what could not be written: money that is known is never thrown away."""
        for call in list(self._kept.values()):
            await self.close(call)
            self._kept.pop(call.call_id, None)

    async def leave(self, call: ModelCall, *, due: datetime) -> None:
        """Leave a call to reconciliation, from `due` on, with what is known of it."""
        await self._entries.update_one(_pending(call.tenant_id, call.call_id), {"$set": {**_changes(call), "due": due}})

    async def highest(self, tenant_id: str, session_uid: str) -> int:
        """Tell the highest number of a session; 0 where there is none."""
        last = await self._entries.find_one(
            {"tenant_id": tenant_id, "session_uid": session_uid}, sort=[("number", -1)], fields={"number": 1}
        )
        return last["number"] if last else 0

    async def get(self, tenant_id: str, call_id: str) -> ModelCall | None:
        """Read a call."""
        found = await self._entries.find_one({"_id": call_id, "tenant_id": tenant_id, "kind": "call"})
        return call_from_document(found) if found else None

    async def unfolded(self, tenant_id: str, session_uid: str, *, after: int, also: Some[int] = ()) -> list[Entry]:
        """Read a session's entries after a number, and those with the given numbers."""
        numbers: dict[str, Any] = {"number": {"$gt": after}}
        which = {"$or": [numbers, {"number": {"$in": list(also)}}]} if also else numbers
        found = await self._entries.find(
            {"tenant_id": tenant_id, "session_uid": session_uid, **which}, sort=[("number", 1)]
        )
        return [entry_from_document(each) for each in found]


def _pending(tenant_id: str, call_id: str) -> dict[str, Any]:
    return {"_id": call_id, "tenant_id": tenant_id, "state": CallState.PENDING.value}


def _changes(call: ModelCall) -> dict[str, Any]:
    """All but what makes an entry this entry."""
    return {name: value for name, value in entry_to_document(call).items() if name not in _IDENTITY}
