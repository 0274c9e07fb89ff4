"""The ledger: one entry for each request to the provider, written before the request leaves. Owns `ledger`."""

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Collection as Some
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import DuplicateKey, StorageError, StorageUnavailable
from godoty_service.flights import Flights
from godoty_service.metering import money
from godoty_service.metering import repeated_generations as repeated
from godoty_service.metering.adjustment_store import AdjustmentStore, sums_of_adjustments
from godoty_service.metering.call import Adjustment, CallState, Entry, ModelCall
from godoty_service.metering.documents import (
    call_from_document,
    entry_from_document,
    entry_to_document,
    new_entry_document,
)
from godoty_service.metering.entry_times import REPAIRED
from godoty_service.mongo import Collection, Document, Index, Snapshot

AnyEntry = TypeVar("AnyEntry", ModelCall, Adjustment)

BY_TIME = (("tenant_id", 1), ("start_time", 1), ("number", 1), ("_id", 1))
BY_MARK = (("unbooked", 1), ("tenant_id", 1), ("start_time", 1))
INDEXES = (
    Index(keys=[("tenant_id", 1), ("session_uid", 1), ("number", 1)], unique=True),
    Index(keys=[("owner", 1), ("start_time", 1)], where={"state": CallState.PENDING.value}),
    Index(keys=[("due", 1)], where={"state": CallState.PENDING.value}),
    Index(keys=[("_id", 1), ("state", 1)], where={"state": CallState.UNRESOLVED.value}),
    Index(keys=[("resolves", 1)], where={"resolves": True}),
    Index(keys=[("corrects", 1)], where={"corrects": {"$exists": True}}),
    Index(keys=[("unapplied", 1)], where={"unapplied": True}),
    Index(keys=[("provider_key_id", 1), ("start_time", 1)]),
    Index(keys=BY_TIME),
    Index(keys=[("tenant_id", 1), ("session_id", 1), ("start_time", 1), ("number", 1), ("_id", 1)]),
    Index(keys=BY_MARK, where={"unbooked": {"$exists": True}}),
    Index(keys=[("turn_id", 1)]),
    repeated.INDEX,
    Index(keys=[("tenant_id", 1), ("time", 1)], where={"kind": "adjustment"}),
)
_IDENTITY = (
    *("_id", "kind", "tenant_id", "session_uid", "session_id", "turn_id", "number"),
    *("owner", "start_time", "rule"),
)
_CLOSING = ("state", "cost_source", "cost", "settle_time")  # what tells one close from another
# Ages are measured by the database's time: servers' clocks may be minutes apart.
_ADOPTED = [{"$set": {"due": "$$NOW", "left_time": "$$NOW"}}]
_LEFT = {"due": "", "tries": "", "left_time": ""}  # what only a call that is left to reconciliation has
_TIMES = ("start_time", "settle_time", "time")
_MOST_NOTES = 200  # updates of one operation
_TRIES = 20  # numbers that others may take before us; each failed try means that somebody succeeded


def _always() -> None:
    """Permit it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCall:
    """A call that is due for reconciliation.

    Attributes:
        call: The call.
        tries: How often it was taken, this time included.
        left_time: When its turn left it, or somebody found that its server had died.
    """

    call: ModelCall
    tries: int
    left_time: datetime


class Ledger:
    """Entries by tenant and session.

    Attributes:
        open_calls: Calls that this process is busy with; nobody else settles them while it lives.
        adjustments: What corrects calls that are final.
    """

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._entries = collection
        self._clock = clock
        self.open_calls: set[str] = set()
        self.adjustments = AdjustmentStore(collection)
        self._kept: dict[str, ModelCall] = {}
        self._notes = Flights(self._note_together, most=_MOST_NOTES)

    def at(self, snapshot: Snapshot) -> "Ledger":
        """The same at a moment, to read."""
        return Ledger(self._entries.at(snapshot), clock=self._clock)

    async def insert(self, entry: AnyEntry, *, permit: Callable[[], None] = _always) -> AnyEntry:
        """Write an entry under its number, or under the next free one if that is taken; returns it as written.

        Args:
            entry: The entry.
            permit: Raises where it may not be written any more. Asked when its number is taken: whoever took it may
                have taken the session over.

        Raises:
            StorageUnavailable: It is not known to be written.
            DuplicateKey: There is an entry of this id already.
        """
        for _ in range(_TRIES):
            try:
                await self._entries.insert_one(new_entry_document(entry))
            except DuplicateKey:
                if await self._entries.find_one({"_id": entry_to_document(entry)["_id"]}, fields={"_id": 1}):
                    raise  # the entry itself is there already, not only its number
                permit()
                highest = await self.highest(entry.tenant_id, entry.session_uid)
                entry = replace(entry, number=highest + 1)
            else:
                return entry
        raise StorageError("No free number was found for a ledger entry.")

    async def note_generation(self, tenant_id: str, call_id: str, generation_id: str) -> None:
        """Keep the provider's id of a call, in one operation with those that others bring meanwhile."""
        await self._notes.join((_pending(tenant_id, call_id), {"$set": {"generation_id": generation_id}}))

    async def _note_together(self, updates: Sequence[tuple[Document, Document]]) -> Sequence[StorageError | None]:
        try:
            await self._entries.update_each(updates)
        except StorageUnavailable:
            raise
        except StorageError:  # of one of them: the others are written all the same
            return [await self._note_alone(*each) for each in updates]
        return [None] * len(updates)

    async def _note_alone(self, query: Document, update: Document) -> StorageError | None:
        try:
            await self._entries.update_one(query, update)
        except StorageError as error:
            return error
        return None

    async def close(self, call: ModelCall) -> bool:
        """Write a call's final state; tells whether this was the write that closed it. An entry closes once."""
        changes = _changes(call)
        closed = {name: changes.get(name) for name in _CLOSING}
        return await self._entries.update_once(
            _pending(call.tenant_id, call.call_id),
            {"$set": changes, "$unset": _LEFT},
            done={"_id": call.call_id, "tenant_id": call.tenant_id, **closed},
        )

    async def close_or_keep(self, call: ModelCall) -> bool:
        """Close a call; where the database is out of reach, keep what is known in memory and raise.

        Raises:
            StorageUnavailable: The entry is still pending; it is in `kept`.
        """
        try:
            return await self.close(call)
        except StorageError:
            self.keep(call)
            raise

    async def leave(self, call: ModelCall) -> bool:
        """Leave a call to reconciliation, from the database's time on; return False if it is not pending any more."""
        known = {name: {"$literal": value} for name, value in (_changes(call) | _served(call)).items()}
        left = {"due": "$$NOW", "left_time": {"$min": ["$left_time", "$$NOW"]}}
        return await self._entries.update_one(_pending(call.tenant_id, call.call_id), [{"$set": {**known, **left}}])

    async def leave_or_keep(self, call: ModelCall) -> None:
        """Leave a call to reconciliation; keep what is known where it is not pending any more, or cannot be written.

        Raises:
            StorageUnavailable: What is known of it is in `kept` alone.
        """
        try:
            left = await self.leave(call)
        except StorageError:
            self.keep(call)
            raise
        if not left:
            self.keep(call)

    def keep(self, call: ModelCall) -> None:
        """Keep in memory what is to be written of a call."""
        self._kept[call.call_id] = call

    @property
    def kept(self) -> list[ModelCall]:
        """What was to be written of calls and could not be: money that is known is never thrown away."""
        return list(self._kept.values())

    async def missing(self, calls: Some[ModelCall]) -> set[str]:
        """Return the ids of those calls that have no entry."""
        ids = {call.call_id for call in calls}
        found = await self._entries.find({"_id": {"$in": sorted(ids)}}, fields={"_id": 1}) if ids else []
        return ids - {each["_id"] for each in found}

    def forget(self, call: ModelCall) -> None:
        """Drop a call from `kept`: it is written."""
        self._kept.pop(call.call_id, None)

    async def highest(self, tenant_id: str, session_uid: str) -> int:
        """Tell the highest number of a session; 0 where there is none."""
        last = await self._entries.find_one(
            {"tenant_id": tenant_id, "session_uid": session_uid}, sort=[("number", -1)], fields={"number": 1}
        )
        return last["number"] if last else 0

    async def adopt_own(self, owner: str) -> int:
        """Make due what this process made and is no longer busy with; returns how many calls.

        A call is listed in `open_calls` before it is written, so one that is newer than the list is left alone. So are
        those that are kept: what is known of them is written first.
        """
        busy = [*self.open_calls, *self._kept]
        return await self._entries.update_many(
            {
                "state": CallState.PENDING.value,
                "owner": owner,
                "due": None,
                "start_time": {"$lt": self._clock()},  # of the same clock
                "_id": {"$nin": busy},
            },
            _ADOPTED,
        )

    async def owners(self) -> set[str]:
        """Tell the servers that have calls which are not left to reconciliation."""
        found = await self._entries.aggregate(
            [
                {"$match": {"state": CallState.PENDING.value, "due": None}},
                {"$group": {"_id": "$owner"}},
            ]
        )
        return {each["_id"] for each in found}

    async def adopt(self, owners: Some[str]) -> int:
        """Make due what dead servers left behind; returns how many calls."""
        return await self._entries.update_many(
            {"state": CallState.PENDING.value, "owner": {"$in": list(owners)}, "due": None}, _ADOPTED
        )

    async def take_due(
        self, *, due_by: datetime, held_until: datetime, provider_key_ids: Some[str], any_before: datetime
    ) -> DueCall | None:
        """Take a call that is due, so that no other server takes it for a while. All times are the database's.

        Args:
            due_by: The latest time at which it was due.
            held_until: When it is due again.
            provider_key_ids: The keys whose records can be read here.
            any_before: Calls that were left before are taken whatever made them.
        """
        found = await self._entries.find_one_and_update(
            {
                "state": CallState.PENDING.value,
                "due": {"$lte": due_by},
                "$or": [{"provider_key_id": {"$in": list(provider_key_ids)}}, {"left_time": {"$lt": any_before}}],
            },
            {"$set": {"due": held_until}, "$inc": {"tries": 1}},
            sort=[("due", 1)],
        )
        if found is None:
            return None
        return DueCall(call=call_from_document(found), tries=found["tries"], left_time=found["left_time"])

    async def dated_after(self, limit: datetime, *, tenant_id: str | None) -> AsyncIterator[Document]:
        """Read the entries of a tenant, or of all, tenant by tenant, that have a time after a limit or a repair open.

        It reads all entries: no index leads to the wrong ones.
        """
        which: Document = {"$or": [*({name: {"$gt": limit}} for name in _TIMES), {f"{REPAIRED}.unfinished": True}]}
        order = [("tenant_id", 1), ("session_uid", 1), ("number", 1)]
        async for document in self._entries.iterate(
            which | ({"tenant_id": tenant_id} if tenant_id else {}), sort=order
        ):
            yield document

    async def documents(self, tenant_id: str, entry_ids: Some[str]) -> list[Document]:
        """Read entries as they are kept."""
        return await self._entries.find({"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}})

    async def finish_repair(self, tenant_id: str, entry_ids: Some[str]) -> None:
        """Note that all sums are right again that entries with new times are in."""
        await self._entries.update_many(
            {"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}}, {"$unset": {f"{REPAIRED}.unfinished": ""}}
        )

    async def requeue(self, *, limit: datetime, now: datetime, tenant_id: str | None) -> int:
        """Make due what a wrong clock left to reconciliation for after a limit; returns how many calls."""
        late = {"$or": [{"due": {"$gt": limit}}, {"left_time": {"$gt": limit}}]}
        which = {"state": CallState.PENDING.value, **late, **({"tenant_id": tenant_id} if tenant_id else {})}
        return await self._entries.update_many(which, {"$set": {"due": now, "left_time": now}})

    async def postpone(self, call: ModelCall, *, due: datetime) -> None:
        """Leave a call for later."""
        await self._entries.update_one(_pending(call.tenant_id, call.call_id), {"$set": {"due": due}})

    async def next_due(self) -> datetime | None:
        """Tell when the next call is due; None: none is left to reconciliation."""
        found = await self._entries.find_one(
            {"state": CallState.PENDING.value, "due": {"$ne": None}}, sort=[("due", 1)], fields={"due": 1}
        )
        return found["due"] if found else None

    async def count(self) -> tuple[int, int]:
        """Count the calls that are pending, and those that are unresolved and that nobody has resolved."""
        pending = await self._entries.count({"state": CallState.PENDING.value})
        unresolved = await self._entries.count({"state": CallState.UNRESOLVED.value})
        resolved = await self._entries.count({"resolves": True})
        return pending, unresolved - resolved

    async def find(self, call_id: str) -> ModelCall | None:
        """Read a call of any tenant, for an operator."""
        found = await self._entries.find_one({"_id": call_id, "kind": "call"})
        return call_from_document(found) if found else None

    async def by_session(self, tenant_id: str | None, session_uid: str | None = None) -> AsyncIterator[Entry]:
        """Read all entries, of all, a tenant or a session, session by session and in the order of their numbers."""
        named = {"tenant_id": tenant_id, "session_uid": session_uid}
        query = {name: value for name, value in named.items() if value}
        order = [("tenant_id", 1), ("session_uid", 1), ("number", 1)]
        async for document in self._entries.iterate(query, sort=order):
            yield entry_from_document(document)

    def repeated_generations(self, tenant_id: str | None) -> AsyncIterator[ModelCall]:
        """Read the calls of all, or of a tenant, whose generation stands on more than one entry."""
        return repeated.repeated_generations(self._entries, tenant_id)

    async def sum_of(self, *, provider_key_id: str, start: datetime, end: datetime) -> tuple[Decimal, int, int]:
        """Sum what a provider key's calls of a time cost, as far as it is known by now.

        Returns:
            The cost of the settled and the resolved calls with all adjustments, how many are pending, and how many are
            unresolved.
        """
        which = {"provider_key_id": provider_key_id, "start_time": {"$gte": start, "$lt": end}}
        sums = {"cost": {"$sum": "$cost"}, "calls": {"$sum": 1}}
        found = await self._entries.aggregate([{"$match": which}, {"$group": {"_id": "$state", **sums}}])
        by_state = {each["_id"]: each for each in found}
        settled = by_state.get(CallState.SETTLED.value)
        pending, unresolved = (
            by_state.get(state.value, {"calls": 0})["calls"] for state in (CallState.PENDING, CallState.UNRESOLVED)
        )
        cost = settled["cost"].to_decimal() if settled else Decimal(0)
        for each in await self._entries.aggregate(sums_of_adjustments(self._entries.name, which)):
            cost, unresolved = money.add(cost, each["cost"].to_decimal()), unresolved - each["resolved"]
        return cost, pending, unresolved

    async def get(self, tenant_id: str, call_id: str) -> ModelCall | None:
        """Read a call."""
        found = await self._entries.find_one({"_id": call_id, "tenant_id": tenant_id, "kind": "call"})
        return call_from_document(found) if found else None

    async def of_turn(self, tenant_id: str, turn_id: str) -> list[Entry]:
        """Read a turn's entries, in the order of their numbers."""
        found = await self._entries.find({"tenant_id": tenant_id, "turn_id": turn_id}, sort=[("number", 1)])
        return [entry_from_document(each) for each in found]

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


def _served(call: ModelCall) -> dict[str, Any]:
    """Have the usage books list a pending call under the model that served it, where that is known."""
    return {"unbooked": "left"} if call.served_model is not None else {}


def _changes(call: ModelCall) -> dict[str, Any]:
    """All but what makes an entry this entry."""
    changes = {name: value for name, value in entry_to_document(call).items() if name not in _IDENTITY}
    return changes if call.state is CallState.PENDING else changes | {"unbooked": "final"}
