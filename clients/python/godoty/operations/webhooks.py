"""Webhooks: endpoints that are notified of events, and their deliveries (scope agents)."""

from __future__ import annotations

from datetime import timedelta

from godoty.calls import Call, Pages
from godoty.codec import all_from, enum_number, from_message, to_duration, to_message
from godoty.types import AppliedWebhook, DeliveryState, Webhook, WebhookDelivery
from godoty.v1 import webhook_pb2 as pb


def apply(
    webhook: Webhook, *, etag: str = "", rotate_secret: bool = False, rotation_overlap: timedelta | None = None
) -> Call[AppliedWebhook]:
    """Create a webhook, or change the one of its name; a new secret is in this result only.

    Args:
        webhook: The webhook. The same one as before changes nothing.
        etag: That of the webhook that the change is based on; `EtagMismatch` if it has changed since. Empty: any.
        rotate_secret: Create a new secret.
        rotation_overlap: How long the earlier secrets go on to sign, at most 7 days. None: a day.
    """
    request = pb.ApplyWebhookRequest(webhook=to_message(pb.Webhook, webhook), etag=etag, rotate_secret=rotate_secret)
    if rotation_overlap is not None:
        request.rotation_overlap.CopyFrom(to_duration(rotation_overlap))
    return Call("AgentDefinitionService.ApplyWebhook", request, lambda response: from_message(AppliedWebhook, response))


def list_webhooks(*, page_size: int = 0) -> Pages[Webhook]:
    """Yield the webhooks, by name, without their secrets."""
    request = pb.ListWebhooksRequest(page_size=page_size)
    return Pages("AgentDefinitionService.ListWebhooks", request, lambda page: all_from(Webhook, page.webhooks))


def delete(name: str, *, etag: str = "") -> Call[None]:
    """Delete a webhook, with its secrets and deliveries."""
    request = pb.DeleteWebhookRequest(webhook_name=name, etag=etag)
    return Call("AgentDefinitionService.DeleteWebhook", request, lambda _: None)


def deliveries(
    name: str, *, state: DeliveryState | str = DeliveryState.UNSPECIFIED, page_size: int = 0
) -> Pages[WebhookDelivery]:
    """Yield the deliveries of a webhook, newest first.

    Args:
        name: The webhook.
        state: Only those in this state, such as "failed"; unspecified for all.
        page_size: Number of deliveries per page; 0 for the server's default.
    """
    request = pb.ListDeliveriesRequest(webhook_name=name, page_size=page_size)
    request.state = enum_number(pb.DeliveryState.DESCRIPTOR, state)  # type: ignore[assignment] # a number
    return Pages(
        "AgentDefinitionService.ListDeliveries", request, lambda page: all_from(WebhookDelivery, page.deliveries)
    )


def redeliver(name: str, event_id: str) -> Call[WebhookDelivery]:
    """Deliver an event again, or now if it is pending, under the same id."""
    request = pb.RedeliverEventRequest(webhook_name=name, event_id=event_id)
    return Call(
        "AgentDefinitionService.RedeliverEvent",
        request,
        lambda response: from_message(WebhookDelivery, response.delivery),
    )
