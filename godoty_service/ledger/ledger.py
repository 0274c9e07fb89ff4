"""The ledger: one entry for each request to the provider, inserted before the request is sent. Owns `ledger`."""

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Collection as Some
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from godoty_service.aio.batching import Batcher
from godoty_service.aio.cooperative import yielding_batches
from godoty_service.errors import DuplicateKey, StorageError, StorageUnavailable
from godoty_service.ledger import repeated_generations as repeated
from godoty_service.ledger.adjustment_store import AdjustmentStore, sums_of_adjustments
from godoty_service.ledger.codec import (
    call_from_document,
    entry_from_document,
    entry_to_document,
    new_entry_document,
)
from godoty_service.ledger.entries import Adjustment, Entry, ModelCall
from godoty_service.ledger.entry_times import REPAIRED
from godoty_service.ledger.states import counts
from godoty_service.ledger.unresolved_outbox import PENDING
from godoty_service.ledger.unsettled_calls import BY_DUE, BY_UNRESOLVED, OPEN, UNRESOLVED, UnsettledCalls
from godoty_service.mongo.collection import Collection, Document, Index, Snapshot
from godoty_service.pricing import money

AnyEntry = TypeVar("AnyEntry", ModelCall, Adjustment)

BY_TIME = (("tenant_id", 1), ("start_time", 1), ("number", 1), ("_id", 1))
BY_MARK = (("rollup_state", 1), ("tenant_id", 1), ("start_time", 1))
_IDENTITY = (
    *("_id", "kind", "tenant_id", "session_uid", "session_id", "turn_id", "number"),
    *("owner", "start_time", "rule", "purpose", "api_key_id"),
    *("user", "user_reference"),  # written once: the name may be replaced by a reference after the call was read
)
_CLOSING = ("state", "cost_source", "cost", "settle_time")  # fields that identify one close
# Ages are measured by the database's time: servers' clocks may be minutes apart.
_DEFER_NOW = [{"$set": {"due": "$$NOW", "left_time": "$$NOW"}}]
_DEFERRED = {"due": "", "tries": "", "left_time": ""}  # the fields that only a deferred call has
_TIMES = ("start_time", "settle_time", "time")
_MAX_UPDATES = 200  # of one operation
_MAX_DEFERRED = 1000  # calls of one operation
_ZERO = money.to_decimal128(money.ZERO)
_TRIES = 20  # numbers that other writers may take first; each failed try means that one of them succeeded


def _no_check() -> None:
    """Allow every insert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCall:
    """A call that is due for reconciliation.

    Attributes:
        call: The call.
        tries: How often it was claimed, including this time.
        deferred_time: When its turn deferred it, or when its server was found dead.
    """

    call: ModelCall
    tries: int
    deferred_time: datetime


class Ledger:
    """Inserts, closes and finds entries by tenant and session.

    Attributes:
        open_calls: Ids of calls that this process is working on; no other server settles them while it lives.
        adjustments: The adjustments of final calls.
        unsettled: The open and the unresolved calls.
    """

    COLLECTION = "ledger"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("session_uid", 1), ("number", 1)], unique=True),
        Index(keys=[("owner", 1), ("start_time", 1)], where=OPEN),
        Index(keys=BY_DUE, where=OPEN),
        Index(keys=BY_UNRESOLVED, where=UNRESOLVED),
        Index(keys=[("resolves", 1)], where={"resolves": True}),
        Index(keys=[("corrects", 1)], where={"corrects": {"$exists": True}}),
        Index(keys=[("unapplied", 1)], where={"unapplied": True}),
        Index(keys=[("outbox", 1)], where=PENDING),
        Index(keys=[("provider_key_id", 1), ("start_time", 1)]),
        Index(keys=BY_TIME),
        Index(keys=[("tenant_id", 1), ("session_id", 1), ("start_time", 1), ("number", 1), ("_id", 1)]),
        Index(keys=BY_MARK, where={"rollup_state": {"$exists": True}}),
        Index(keys=[("turn_id", 1)]),
        repeated.INDEX,
        Index(keys=[("tenant_id", 1), ("time", 1)], where={"kind": "adjustment"}),
        Index(keys=[("user", 1), ("tenant_id", 1)], where={"user": {"$gt": ""}}),  # names of schema 1
    )

    def __init__(self, collection: Collection) -> None:
        self._entries = collection
        self.open_calls: set[str] = set()
        self.adjustments = AdjustmentStore(collection)
        self.unsettled = UnsettledCalls(collection)
        self._unwritten: dict[str, ModelCall] = {}
        self._generation_ids = Batcher(self._store_together, max_size=_MAX_UPDATES)

    def at(self, snapshot: Snapshot) -> "Ledger":
        """Return a view of the ledger that reads from a snapshot."""
        return Ledger(self._entries.read_at(snapshot))

    async def insert(self, entry: AnyEntry, *, check: Callable[[], None] = _no_check) -> AnyEntry:
        """Insert an entry under its number, or under the next free one if that is taken; return it as inserted.

        Args:
            entry: The entry.
            check: Raises if the entry may no longer be inserted. Called if its number is taken: the writer that took it
                may have taken over the session.

        Raises:
            StorageUnavailable: The outcome of the insert is unknown.
            DuplicateKey: An entry of this id exists.
        """
        for _ in range(_TRIES):
            try:
                await self._entries.insert_one(new_entry_document(entry))
            except DuplicateKey:
                if await self._entries.find_one({"_id": entry_to_document(entry)["_id"]}, fields={"_id": 1}):
                    raise  # the id is taken, not only the number
                check()
                highest = await self.highest(entry.tenant_id, entry.session_uid)
                entry = replace(entry, number=highest + 1)
            else:
                return entry
        raise StorageError(f"No free number was found for a ledger entry in {_TRIES} tries.")

    async def store_generation_id(self, tenant_id: str, call_id: str, generation_id: str) -> None:
        """Store the provider's id of a call, batched with those that other calls store at the same time."""
        await self._generation_ids.submit((_pending(tenant_id, call_id), {"$set": {"generation_id": generation_id}}))

    async def _store_together(self, updates: Sequence[tuple[Document, Document]]) -> Sequence[StorageError | None]:
        try:
            await self._entries.update_each(updates)
        except StorageUnavailable:
            raise
        except StorageError:  # one update failed: the others must not fail with it
            return [await self._store_one(*each) for each in updates]
        return [None] * len(updates)

    async def _store_one(self, query: Document, update: Document) -> StorageError | None:
        try:
            await self._entries.update_one(query, update)
        except StorageError as error:
            return error
        return None

    async def close(self, call: ModelCall) -> bool:
        """Write a call's final state; return whether this write closed it. An entry closes once."""
        changes = _changes(call)
        closed = {name: changes.get(name) for name in _CLOSING}
        return await self._entries.update_once(
            _pending(call.tenant_id, call.call_id),
            {"$set": changes, "$unset": _DEFERRED},
            applied_filter={"_id": call.call_id, "tenant_id": call.tenant_id, **closed},
        )

    async def close_or_retain(self, call: ModelCall) -> bool:
        """Close a call; if the database is out of reach, retain the call in memory and raise.

        Raises:
            StorageUnavailable: The entry is still pending; the call is in `unwritten`.
        """
        try:
            return await self.close(call)
        except StorageError:
            self.retain(call)
            raise

    async def defer(self, call: ModelCall) -> bool:
        """Defer a call to reconciliation, from the database's time on; return False if it is no longer pending."""
        known = {name: {"$literal": value} for name, value in (_changes(call) | _served(call)).items()}
        deferred = {"due": "$$NOW", "left_time": {"$min": ["$left_time", "$$NOW"]}}
        return await self._entries.update_one(_pending(call.tenant_id, call.call_id), [{"$set": {**known, **deferred}}])

    async def defer_or_retain(self, call: ModelCall) -> None:
        """Defer a call to reconciliation; retain it in memory if it is no longer pending, or cannot be written.

        Raises:
            StorageUnavailable: The call is in `unwritten` only.
        """
        try:
            deferred = await self.defer(call)
        except StorageError:
            self.retain(call)
            raise
        if not deferred:
            self.retain(call)

    def retain(self, call: ModelCall) -> None:
        """Retain a call in memory that is still to be written."""
        self._unwritten[call.call_id] = call

    @property
    def unwritten(self) -> list[ModelCall]:
        """The calls that could not be written: money that is known is never thrown away."""
        return list(self._unwritten.values())

    async def missing(self, calls: Some[ModelCall]) -> set[str]:
        """Return the ids of the calls that have no entry."""
        ids = {call.call_id for call in calls}
        found = await self._entries.find({"_id": {"$in": sorted(ids)}}, fields={"_id": 1}) if ids else []
        return ids - {each["_id"] for each in found}

    def discard(self, call: ModelCall) -> None:
        """Remove a call from `unwritten` after it was written."""
        self._unwritten.pop(call.call_id, None)

    async def highest(self, tenant_id: str, session_uid: str) -> int:
        """Return the highest entry number of a session, 0 if it has no entry."""
        last = await self._entries.find_one(
            {"tenant_id": tenant_id, "session_uid": session_uid}, sort=[("number", -1)], fields={"number": 1}
        )
        return last["number"] if last else 0

    async def defer_own(self, owner: str) -> int:
        """Defer some of this process's own calls that it no longer works on; return how many.

        A call is added to `open_calls` before it is inserted, so one that is found is in it, unless it has ended. Those
        in `unwritten` are not deferred either: their known data is written first.
        """
        working = [*self.open_calls, *self._unwritten]
        found = await self._entries.find(
            {**OPEN, "owner": owner, "due": None, "_id": {"$nin": working}}, fields={"_id": 1}, limit=_MAX_DEFERRED
        )
        left = [
            each["_id"] for each in found if each["_id"] not in self.open_calls and each["_id"] not in self._unwritten
        ]
        if not left:
            return 0
        return await self._entries.update_many({**OPEN, "due": None, "_id": {"$in": left}}, _DEFER_NOW)

    async def owners(self) -> set[str]:
        """Return the servers that have pending calls which are not deferred."""
        found = await self._entries.aggregate(
            [
                {"$match": {**OPEN, "due": None}},
                {"$group": {"_id": "$owner"}},
            ]
        )
        return {each["_id"] for each in found}

    async def defer_orphans(self, owners: Some[str]) -> int:
        """Defer the pending calls of dead servers; return how many."""
        return await self._entries.update_many({**OPEN, "owner": {"$in": list(owners)}, "due": None}, _DEFER_NOW)

    async def claim_due(
        self, *, due_by: datetime, claimed_until: datetime, provider_key_ids: Some[str], any_before: datetime
    ) -> DueCall | None:
        """Claim a call that is due, so that no other server claims it until then. All times are the database's.

        Args:
            due_by: Claim calls that were due at this time or before.
            claimed_until: When the call is due again.
            provider_key_ids: The keys whose records this server can read.
            any_before: Calls that were deferred before this time are claimed with any key.
        """
        found = await self._entries.find_one_and_update(
            {
                **OPEN,
                "due": {"$lte": due_by},
                "$or": [{"provider_key_id": {"$in": list(provider_key_ids)}}, {"left_time": {"$lt": any_before}}],
            },
            {"$set": {"due": claimed_until}, "$inc": {"tries": 1}},
            sort=[("due", 1)],
        )
        if found is None:
            return None
        return DueCall(call=call_from_document(found), tries=found["tries"], deferred_time=found["left_time"])

    async def dated_after(self, limit: datetime, *, tenant_id: str | None) -> AsyncIterator[Document]:
        """Yield the entries of a tenant, or of all by tenant, with a time after a limit or an unfinished repair.

        It reads all entries: no index selects the wrong ones.
        """
        which: Document = {"$or": [*({name: {"$gt": limit}} for name in _TIMES), {f"{REPAIRED}.unfinished": True}]}
        order = [("tenant_id", 1), ("session_uid", 1), ("number", 1)]
        async for document in self._entries.iterate(
            which | ({"tenant_id": tenant_id} if tenant_id else {}), sort=order
        ):
            yield document

    async def documents(self, tenant_id: str, entry_ids: Some[str]) -> list[Document]:
        """Return the documents of entries."""
        return await self._entries.find({"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}})

    async def finish_repair(self, tenant_id: str, entry_ids: Some[str]) -> None:
        """Record that all sums over entries with repaired times are correct again."""
        await self._entries.update_many(
            {"tenant_id": tenant_id, "_id": {"$in": list(entry_ids)}}, {"$unset": {f"{REPAIRED}.unfinished": ""}}
        )

    async def requeue(self, *, limit: datetime, now: datetime, tenant_id: str | None) -> int:
        """Make due the calls that a wrong clock deferred to a time after a limit; return how many."""
        late = {"$or": [{"due": {"$gt": limit}}, {"left_time": {"$gt": limit}}]}
        which = {**OPEN, **late, **({"tenant_id": tenant_id} if tenant_id else {})}
        return await self._entries.update_many(which, {"$set": {"due": now, "left_time": now}})

    async def postpone(self, call: ModelCall, *, due: datetime) -> None:
        """Set the time at which a deferred call is due again."""
        await self._entries.update_one(_pending(call.tenant_id, call.call_id), {"$set": {"due": due}})

    async def next_due(self) -> datetime | None:
        """Return when the next deferred call is due; None: there is none."""
        found = await self._entries.find_one({**OPEN, "due": {"$ne": None}}, sort=[("due", 1)], fields={"due": 1})
        return found["due"] if found else None

    async def count(self) -> tuple[int, int]:
        """Return how many calls are pending, and how many are unresolved and not resolved since."""
        pending = await self._entries.count(OPEN, hint=BY_DUE)
        unresolved = await self._entries.count(UNRESOLVED, hint=BY_UNRESOLVED)
        resolved = await self._entries.count({"resolves": True})
        return pending, unresolved - resolved

    async def find(self, call_id: str) -> ModelCall | None:
        """Return a call of any tenant, for an operator."""
        found = await self._entries.find_one({"_id": call_id, "kind": "call"})
        return call_from_document(found) if found else None

    async def by_session(self, tenant_id: str | None, session_uid: str | None = None) -> AsyncIterator[Entry]:
        """Yield the entries of all tenants, a tenant or a session, by session and number."""
        named = {"tenant_id": tenant_id, "session_uid": session_uid}
        query = {name: value for name, value in named.items() if value}
        order = [("tenant_id", 1), ("session_uid", 1), ("number", 1)]
        async for document in self._entries.iterate(query, sort=order):
            yield entry_from_document(document)

    def repeated_generations(self, tenant_id: str | None) -> AsyncIterator[ModelCall]:
        """Yield the calls of all tenants, or of one, whose generation id another entry has as well."""
        return repeated.repeated_generations(self._entries, tenant_id)

    async def sum_of(self, *, provider_key_id: str, start: datetime, end: datetime) -> tuple[Decimal, int, int]:
        """Return the sums over a provider key's calls that started from `start` to before `end`, as known now.

        Returns:
            The cost of the settled and the resolved calls with all adjustments, how many are pending, and how many are
            unresolved.
        """
        which = {"provider_key_id": provider_key_id, "start_time": {"$gte": start, "$lt": end}}
        sums = {
            "cost": {"$sum": {"$cond": [counts("cost"), {"$ifNull": ["$cost", _ZERO]}, _ZERO]}},
            "pending": {"$sum": {"$cond": [counts("open"), 1, 0]}},
            "unresolved": {"$sum": {"$cond": [counts("unresolved"), 1, 0]}},
        }
        cost, pending, unresolved = money.ZERO, 0, 0
        for each in await self._entries.aggregate([{"$match": which}, {"$group": {"_id": None, **sums}}]):
            cost = money.from_decimal128(each["cost"])
            pending, unresolved = each["pending"], each["unresolved"]
        for each in await self._entries.aggregate(sums_of_adjustments(self._entries.name, which)):
            cost = money.add(cost, money.from_decimal128(each["cost"]))
            unresolved -= each["resolved"]
        return cost, pending, unresolved

    async def get(self, tenant_id: str, call_id: str) -> ModelCall | None:
        """Return a call, or None."""
        found = await self._entries.find_one({"_id": call_id, "tenant_id": tenant_id, "kind": "call"})
        return call_from_document(found) if found else None

    async def of_turn(self, tenant_id: str, turn_id: str) -> list[Entry]:
        """Return a turn's entries by number."""
        return await self.of_turns(tenant_id, [turn_id])

    async def of_turns(self, tenant_id: str, turn_ids: Sequence[str]) -> list[Entry]:
        """Return the entries of some turns by number."""
        query = {"tenant_id": tenant_id, "turn_id": {"$in": list(turn_ids)}}
        found = await self._entries.find(query, sort=[("number", 1)])
        return [entry_from_document(each) async for some in yielding_batches(found) for each in some]

    async def entries_after(self, tenant_id: str, session_uid: str, *, after: int, also: Some[int] = ()) -> list[Entry]:
        """Return a session's entries after a number, and those with the given numbers."""
        numbers: dict[str, Any] = {"number": {"$gt": after}}
        which = {"$or": [numbers, {"number": {"$in": list(also)}}]} if also else numbers
        found = await self._entries.find(
            {"tenant_id": tenant_id, "session_uid": session_uid, **which}, sort=[("number", 1)]
        )
        return [entry_from_document(each) for each in found]


def _pending(tenant_id: str, call_id: str) -> dict[str, Any]:
    return {"_id": call_id, "tenant_id": tenant_id, **OPEN}


def _served(call: ModelCall) -> dict[str, Any]:
    """Make the usage roll-ups list a pending call under the model that served it, if that is known."""
    return {"rollup_state": "deferred"} if call.served_model is not None else {}


def _changes(call: ModelCall) -> dict[str, Any]:
    """Return the fields that a close or a deferral sets: all but the identity of the entry."""
    changes = {name: value for name, value in entry_to_document(call).items() if name not in _IDENTITY}
    if call.counts.unresolved:
        changes |= PENDING
    return changes if call.counts.open else changes | {"rollup_state": "ready"}
