"""The deliveries of all tenants. Owns `webhook_deliveries`.

A webhook has one delivery of an event: a unique index refuses a second one, whichever server derives the event again.
"""

from collections.abc import Collection as Some
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

from godoty_service.clock import Clock
from godoty_service.errors import DuplicateKey
from godoty_service.ids import new_id
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.webhooks.delivery import Attempt, Delivery, DeliveryState
from godoty_service.webhooks.dispatch.retries import RetrySchedule
from godoty_service.webhooks.event import WebhookEvent
from godoty_service.webhooks.webhook import Webhook

_PENDING: Document = {"state": DeliveryState.PENDING.value}
_KNOWN_STATES = frozenset(DeliveryState)


class Deliveries:
    """Deliveries by webhook."""

    COLLECTION = "webhook_deliveries"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("webhook_uid", 1), ("event_id", 1)], unique=True),
        Index(keys=[("tenant_id", 1), ("webhook_uid", 1), ("_id", -1)]),
        Index(keys=[("webhook_uid", 1), ("next_time", 1)], where=_PENDING),
        Index(keys=[("webhook_uid", 1), ("group", 1), ("order", 1)], where=_PENDING),
        Index(keys=[("user_reference", 1)], where={"user_reference": {"$gt": ""}}),
        Index(keys=[("create_time", 1)], where=_PENDING),
        Index(keys=[("expire_time", 1)], expire_after=0),
    )

    def __init__(self, collection: Collection, *, schedule: RetrySchedule, retention: timedelta, clock: Clock) -> None:
        """Create the store.

        Args:
            collection: `webhook_deliveries`.
            schedule: When failed deliveries are attempted again.
            retention: How long deliveries are stored.
            clock: Returns the current time.
        """
        self.schedule = schedule
        self._deliveries = collection
        self._retention = retention
        self._clock = clock

    def new(self, webhook: Webhook, event: WebhookEvent, *, state: DeliveryState = DeliveryState.PENDING) -> Delivery:
        """Return a delivery of an event, which is not inserted yet."""
        now = self._clock()
        return Delivery(
            delivery_id=new_id("delivery", made=now),
            tenant_id=webhook.tenant_id,
            webhook=webhook.name,
            webhook_uid=webhook.uid,
            event_id=event.event_id,
            event_type=event.event_type.value,
            order=event.order,
            turn_id=event.turn_id,
            session_id=event.session_id,
            user_reference=event.user_reference,
            body=event.body,
            state=state,
            next_time=now,
            deadline=now + self.schedule.window,
            create_time=now,
        )

    async def insert(self, deliveries: Sequence[Delivery]) -> None:
        """Insert deliveries; those that are known already remain as they are.

        Raises:
            StorageError: Some may not be inserted.
        """
        if not deliveries:
            return
        faults = await self._deliveries.insert_each(
            [delivery_to_document(each, expire_time=self._expiry(each.create_time)) for each in deliveries]
        )
        for fault in faults:
            if fault is not None and not isinstance(fault, DuplicateKey):
                raise fault

    async def due(self, webhook_uid: str, *, limit: int) -> list[Delivery]:
        """Return some deliveries of a webhook that are due, in the order of their events."""
        query = {**_PENDING, "webhook_uid": webhook_uid, "next_time": {"$lte": self._clock()}}
        found = await self._deliveries.find(query, sort=[("next_time", 1)], limit=limit)
        return sorted(map(_from_document, found), key=lambda each: (each.order, each.delivery_id))

    async def first_of_groups(self, webhook_uid: str, groups: Some[str]) -> dict[str, tuple[str, datetime]]:
        """Return the first pending delivery of each group: its id, and when it is due."""
        query = {**_PENDING, "webhook_uid": webhook_uid, "group": {"$in": list(groups)}}
        order = [("group", 1), ("order", 1), ("_id", 1)]
        first: dict[str, tuple[str, datetime]] = {}
        for each in await self._deliveries.find(query, sort=order, fields={"group": 1, "next_time": 1}):
            first.setdefault(each["group"], (each["_id"], each["next_time"]))
        return first

    async def postpone(self, delivery: Delivery, *, until: datetime) -> None:
        """Postpone a delivery that must wait for an earlier one."""
        await self._deliveries.update_one({**_PENDING, "_id": delivery.delivery_id}, {"$set": {"next_time": until}})

    async def next_due(self, webhook_uid: str) -> datetime | None:
        """Return when the next pending delivery of a webhook is due; None: none is pending."""
        query = {**_PENDING, "webhook_uid": webhook_uid}
        found = await self._deliveries.find(query, sort=[("next_time", 1)], limit=1, fields={"next_time": 1})
        return found[0]["next_time"] if found else None

    async def pending_since(self, time: datetime, *, limit: int) -> list[tuple[str, str, datetime]]:
        """Return tenant, webhook and creation of deliveries that are pending since a time, the oldest first."""
        query = {**_PENDING, "create_time": {"$gte": time}}
        fields = {"tenant_id": 1, "webhook_uid": 1, "create_time": 1}
        found = await self._deliveries.find(query, sort=[("create_time", 1)], limit=limit, fields=fields)
        return [(each["tenant_id"], each["webhook_uid"], each["create_time"]) for each in found]

    async def record(self, delivery: Delivery, attempt: Attempt) -> Delivery:
        """Record an attempt; return the delivery as it is after it."""
        now, attempts = self._clock(), delivery.attempts + 1
        next_time = self.schedule.next_time(attempts=attempts, now=now, deadline=delivery.deadline)
        state = DeliveryState.DELIVERED if attempt.succeeded else DeliveryState.PENDING
        if not attempt.succeeded and next_time is None:
            state = DeliveryState.FAILED
        after = replace(
            delivery,
            state=state,
            attempts=attempts,
            next_time=next_time or delivery.next_time,
            last_time=now,
            last_status=attempt.status,
            last_error=attempt.error,
        )
        changes = {
            name: value for name, value in delivery_to_document(after, expire_time=now).items() if name in _OF_ATTEMPTS
        }
        await self._deliveries.update_one({**_PENDING, "_id": delivery.delivery_id}, {"$set": changes})
        return after

    async def retry_now(self, webhook_uid: str) -> None:
        """Make all pending deliveries of a webhook due: its endpoint answers again."""
        now = self._clock()
        query = {**_PENDING, "webhook_uid": webhook_uid, "next_time": {"$gt": now}}
        await self._deliveries.update_many(query, {"$set": {"next_time": now}})

    async def redeliver(self, webhook: Webhook, event_id: str) -> Delivery | None:
        """Make a delivery pending again, with all its attempts before it; None: there is no delivery of the event."""
        now = self._clock()
        changes = {
            **_PENDING,
            "attempts": 0,
            "next_time": now,
            "deadline": now + self.schedule.window,
            "expire_time": self._expiry(now),
        }
        query = {"tenant_id": webhook.tenant_id, "webhook_uid": webhook.uid, "event_id": event_id}
        found = await self._deliveries.find_one_and_update(query, {"$set": changes})
        return None if found is None else _from_document(found)

    async def page(
        self, webhook: Webhook, *, state: DeliveryState | None, before: str | None, limit: int
    ) -> list[Delivery]:
        """Return deliveries of a webhook, the newest first.

        Args:
            webhook: The webhook.
            state: Those in this state; None: all.
            before: The id of the last one of the page before; None: the first page.
            limit: How many.
        """
        query: dict[str, Any] = {"tenant_id": webhook.tenant_id, "webhook_uid": webhook.uid}
        if state is not None:
            query["state"] = state.value
        if before is not None:
            query["_id"] = {"$lt": before}
        return [_from_document(each) for each in await self._deliveries.find(query, sort=[("_id", -1)], limit=limit)]

    async def delete_of(self, webhook: Webhook) -> None:
        """Delete the deliveries of a webhook."""
        await self._deliveries.delete_all({"tenant_id": webhook.tenant_id, "webhook_uid": webhook.uid})

    async def forget_user(self, tenant_id: str, user_reference: str) -> None:
        """Delete the deliveries that concern an end user's sessions."""
        await self._deliveries.delete_all({"tenant_id": tenant_id, "user_reference": user_reference})

    async def erase(self, tenant_id: str) -> bool:
        """Delete all deliveries of a tenant; return whether there were any."""
        existed = await self._deliveries.find_one({"tenant_id": tenant_id}, fields={"_id": 1}) is not None
        await self._deliveries.delete_all({"tenant_id": tenant_id})
        return existed

    def _expiry(self, now: datetime) -> datetime:
        return now + max(self._retention, 2 * self.schedule.window)


_OF_ATTEMPTS = frozenset({"state", "attempts", "next_time", "last_time", "last_status", "last_error"})


def delivery_to_document(delivery: Delivery, *, expire_time: datetime) -> Document:
    """Encode a delivery.

    Args:
        delivery: The delivery.
        expire_time: Until when it is stored.
    """
    return {
        "_id": delivery.delivery_id,
        "tenant_id": delivery.tenant_id,
        "webhook": delivery.webhook,
        "webhook_uid": delivery.webhook_uid,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "group": delivery.group,
        "order": delivery.order,
        "turn_id": delivery.turn_id,
        "session_id": delivery.session_id,
        "user_reference": delivery.user_reference,
        "body": delivery.body,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "next_time": delivery.next_time,
        "deadline": delivery.deadline,
        "create_time": delivery.create_time,
        "last_time": delivery.last_time,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "expire_time": expire_time,
    }


def _from_document(document: Document) -> Delivery:
    state = document["state"]
    return Delivery(
        delivery_id=document["_id"],
        tenant_id=document["tenant_id"],
        webhook=document["webhook"],
        webhook_uid=document["webhook_uid"],
        event_id=document["event_id"],
        event_type=document["event_type"],
        order=document["order"],
        turn_id=document["turn_id"],
        session_id=document["session_id"],
        user_reference=document["user_reference"],
        body=document["body"],
        state=DeliveryState(state) if state in _KNOWN_STATES else DeliveryState.NOT_SENT,
        attempts=document["attempts"],
        next_time=document["next_time"],
        deadline=document["deadline"],
        create_time=document["create_time"],
        last_time=document["last_time"],
        last_status=document["last_status"],
        last_error=document["last_error"],
    )
