"""Which endpoints deliveries are due to, and which server delivers to them: one at a time, by a lease.

A lease ends by the database's clock, so that a server that dies leaves none. `Webhooks` owns the collection.
"""

from collections.abc import Collection as Some
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from godoty_service.clock import Clock
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document
from godoty_service.turns.event_log.outbox import EPOCH
from godoty_service.webhooks.store import from_document, id_of
from godoty_service.webhooks.webhook import Webhook

_SWEEP = "sweep"  # the document of the lease of the outbox; others have a slash in their ids
_MILLISECOND = timedelta(milliseconds=1)
_EXPIRED: Document = {"$expr": {"$lte": [{"$ifNull": ["$lease_until", EPOCH]}, "$$NOW"]}}
_FREE: Document = {"lease_owner": "", "lease_until": ""}
_PAUSE = ("lease_owner", "lease_until", "pause_until")
_STATE = (*_PAUSE, "due_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint that this server delivers to.

    Attributes:
        webhook: The webhook, as it was read with the lease.
        wake: How often deliveries had been added then.
        failures: How many attempts had failed then since the last one with success.
    """

    webhook: Webhook
    wake: int
    failures: int

    @property
    def document_id(self) -> str:
        """The id of its document."""
        return id_of(self.webhook.tenant_id, self.webhook.name)


class Endpoints:
    """The endpoints of all tenants."""

    def __init__(self, collection: Collection, *, owner: str, clock: Clock) -> None:
        """Create it.

        Args:
            collection: `webhooks`.
            owner: The id of this server.
            clock: Returns the current time.
        """
        self._documents = collection
        self._owner = owner
        self._clock = clock

    async def add_deliveries(self, webhooks: Some[Webhook], *, at_once: bool = False) -> None:
        """Note that deliveries were added to endpoints: they are due now.

        Args:
            webhooks: Their webhooks.
            at_once: Also if the last attempts have failed.
        """
        ids = [id_of(each.tenant_id, each.name) for each in webhooks]
        now = self._clock()
        earlier = {"$min": [{"$ifNull": ["$due_time", now]}, now]}
        due = earlier if at_once else {"$max": [earlier, "$pause_until"]}
        noted = {"$set": {"due_time": due, "wake": {"$add": [{"$ifNull": ["$wake", 0]}, 1]}}}
        await self._documents.update_many(
            {"_id": {"$in": ids}}, [noted, {"$unset": "pause_until"}] if at_once else [noted]
        )

    async def claim(self, lease: timedelta, *, excluding: Some[str], excluding_tenants: Some[str]) -> Endpoint | None:
        """Acquire the lease of the endpoint that is due longest; None: none is due that no server delivers to.

        Args:
            lease: How long it is valid.
            excluding: Ids of documents that are not claimed.
            excluding_tenants: Tenants whose endpoints are not claimed.
        """
        now = self._clock()
        paused = {"$not": {"$gt": now}}
        query: Document = {"enabled": True, "due_time": {"$lte": now}, "pause_until": paused, **_EXPIRED}
        if excluding:
            query["_id"] = {"$nin": list(excluding)}
        if excluding_tenants:
            query["tenant_id"] = {"$nin": list(excluding_tenants)}
        found = await self._documents.find_one_and_update(query, [{"$set": self._lease(lease)}], sort=[("due_time", 1)])
        return None if found is None else _endpoint(found)

    async def renew(self, endpoint: Endpoint, lease: timedelta) -> Endpoint | None:
        """Renew a lease; return the endpoint as it is now, or None if the lease has ended, or the webhook is off."""
        query = {
            **self._own(endpoint),
            "enabled": True,
            "$expr": {"$gt": [{"$ifNull": ["$lease_until", EPOCH]}, "$$NOW"]},
        }
        found = await self._documents.find_one_and_update(query, [{"$set": self._lease(lease)}])
        return None if found is None else _endpoint(found)

    async def record_attempts(self, endpoint: Endpoint, *, failures: int, success_time: datetime | None) -> None:
        """Record the outcome of attempts.

        Args:
            endpoint: The endpoint.
            failures: How many have failed since the last one with success.
            success_time: The time of the last one with success; None: there was none.
        """
        success = {"last_success_time": success_time} if success_time is not None else {}
        await self._documents.update_one(self._own(endpoint), {"$set": {"failures": failures, **success}})

    async def release(
        self, endpoint: Endpoint, *, due_time: datetime | None, pause_until: datetime | None = None
    ) -> None:
        """Release a lease.

        Args:
            endpoint: The endpoint, as it was before the pending deliveries were read.
            due_time: When the next of them is due; None: none is pending. If others were added, they are due now.
            pause_until: Until when nothing is sent; None: its last attempt had success.
        """
        own, values = self._own(endpoint), {} if pause_until is None else {"pause_until": pause_until}
        due = {} if due_time is None else {"due_time": max(due_time, pause_until or due_time)}
        if await self._documents.update_one({**own, "wake": endpoint.wake}, _changes({**values, **due}, _STATE)):
            return
        later = {} if pause_until is None else {"due_time": {"$max": ["$due_time", pause_until]}}
        await self._documents.update_one(own, _changes({**values, **later}, _PAUSE))

    async def lead(self, lease: timedelta) -> bool:
        """Acquire or renew the lease of the outbox; return whether this server has it."""
        free = {"$or": [{"$eq": ["$lease_owner", self._owner]}, _EXPIRED["$expr"]]}
        taken = {name: {"$cond": [free, value, f"${name}"]} for name, value in self._lease(lease).items()}
        try:
            found = await self._documents.find_one_and_update({"_id": _SWEEP}, [{"$set": taken}], upsert=True)
        except DuplicateKey:  # another server inserted it
            return False
        return found is not None and found["lease_owner"] == self._owner

    async def stop_leading(self) -> None:
        """Release the lease of the outbox."""
        await self._documents.update_one({"_id": _SWEEP, "lease_owner": self._owner}, {"$unset": _FREE})

    def _own(self, endpoint: Endpoint) -> Document:
        return {"_id": endpoint.document_id, "uid": endpoint.webhook.uid, "lease_owner": self._owner}

    def _lease(self, lease: timedelta) -> Document:
        return {
            "lease_owner": {"$literal": self._owner},
            "lease_until": {"$add": ["$$NOW", lease // _MILLISECOND]},
        }


def _changes(values: Document, names: Sequence[str]) -> list[Document]:
    """Return the update that sets fields to values, and removes those of the names that have none."""
    removed = [{"$unset": [each for each in names if each not in values]}]
    return [{"$set": values}, *removed] if values else removed


def _endpoint(document: Document) -> Endpoint:
    return Endpoint(webhook=from_document(document), wake=document.get("wake", 0), failures=document.get("failures", 0))
