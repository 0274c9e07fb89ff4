"""Stores the deliveries of events: one for each webhook of the tenant that takes the event."""

from collections.abc import Callable, Sequence

from godoty_service.webhooks.deliveries import Deliveries
from godoty_service.webhooks.delivery import Delivery, DeliveryState
from godoty_service.webhooks.dispatch.endpoints import Endpoints
from godoty_service.webhooks.event import WebhookEvent
from godoty_service.webhooks.outbox.reports import disabled_event
from godoty_service.webhooks.store import Webhooks
from godoty_service.webhooks.webhook import Webhook

Observe = Callable[[WebhookEvent], None]


class Publisher:
    """Stores deliveries. To publish an event again changes nothing."""

    def __init__(
        self, webhooks: Webhooks, deliveries: Deliveries, endpoints: Endpoints, *, observe: Observe = lambda _: None
    ) -> None:
        """Create it.

        Args:
            webhooks: The webhooks.
            deliveries: The deliveries.
            endpoints: The endpoints, which get them.
            observe: Called with each event, whether or not a webhook takes it.
        """
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._endpoints = endpoints
        self._observe = observe

    async def publish(self, events: Sequence[WebhookEvent]) -> None:
        """Store the deliveries of events.

        Raises:
            StorageError: Some may not be stored: publish the events again.
        """
        found = await self._webhooks.of_tenants([*{each.tenant_id for each in events}]) if events else {}
        pairs = [(each, event) for event in events for each in found.get(event.tenant_id, ()) if each.wants(event)]
        deliveries: list[Delivery] = [self._deliveries.new(webhook, event) for webhook, event in pairs]
        await self._deliveries.insert(deliveries)
        if pairs:
            await self._endpoints.add_deliveries({webhook.uid: webhook for webhook, _ in pairs}.values())
        for event in events:
            self._observe(event)

    async def report_off(self, webhook: Webhook) -> None:
        """Store that a webhook was switched off: among its own deliveries, and for the tenant's other webhooks."""
        event = disabled_event(webhook)
        await self._deliveries.insert([self._deliveries.new(webhook, event, state=DeliveryState.NOT_SENT)])
        await self.publish([event])
