"""Converts between webhook.proto and domain values, and checks the requests."""

import re
from datetime import datetime, timedelta
from typing import Final

from godoty.v1 import webhook_pb2 as pb

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.errors import InvalidRequest
from godoty_service.rpc.agents.mcp_codec import NAME, check_url
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import COUNTS, LENGTHS, Violations
from godoty_service.webhooks.changes import WebhookTerms
from godoty_service.webhooks.delivery import Delivery, DeliveryState
from godoty_service.webhooks.event import EventType
from godoty_service.webhooks.webhook import Webhook

_NETWORKS = "GODOTY_WEBHOOK_NETWORKS"
_EVENT_ID = re.compile(r"evt_[0-9a-f]{32}")
_OVERLAP: Final = timedelta(days=1)
_LONGEST_OVERLAP: Final = timedelta(days=7)
_STATES: Final = {
    pb.DELIVERY_STATE_PENDING: DeliveryState.PENDING,
    pb.DELIVERY_STATE_DELIVERED: DeliveryState.DELIVERED,
    pb.DELIVERY_STATE_FAILED: DeliveryState.FAILED,
    pb.DELIVERY_STATE_NOT_SENT: DeliveryState.NOT_SENT,
}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}


def parse_webhook(request: pb.ApplyWebhookRequest, rules: AddressRules) -> WebhookTerms:
    """Return the webhook that a request describes.

    Args:
        request: The request.
        rules: Decides which addresses are permitted.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    webhook, violations = request.webhook, Violations()
    if not request.HasField("webhook"):
        raise InvalidRequest.of("webhook", "must be set")
    if not NAME.fullmatch(webhook.name):
        violations.add("webhook.name", f"must match {NAME.pattern}")
    check_url("webhook.url", webhook.url, rules, violations, _NETWORKS)
    most, known = COUNTS["event_types"], {each.value for each in EventType}
    if len(webhook.event_types) > most or not known.issuperset(webhook.event_types):
        violations.add("webhook.event_types", f"must be at most {most}, each of them one of {', '.join(sorted(known))}")
    longest = LENGTHS["description"]
    if len(webhook.description) > longest or not webhook.description.isprintable():
        violations.add("webhook.description", f"must have at most {longest} printable characters")
    _rotation(request, violations)
    violations.raise_if_any()
    return WebhookTerms(
        name=webhook.name,
        url=webhook.url,
        description=webhook.description,
        event_types=tuple(sorted(set(webhook.event_types))),
        enabled=webhook.enabled if webhook.HasField("enabled") else True,
    )


def rotation(request: pb.ApplyWebhookRequest) -> timedelta | None:
    """Return the overlap of a rotation of the secret; None: there is none. The request was checked."""
    return _rotation(request, Violations()) if request.rotate_secret else None


def parse_name(name: str) -> str:
    """Check the name of a webhook.

    Raises:
        InvalidRequest: It cannot be one.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequest.of("webhook_name", f"must match {NAME.pattern}")
    return name


def parse_event(request: pb.RedeliverEventRequest) -> tuple[str, str]:
    """Return the webhook's name and the event's id.

    Raises:
        InvalidRequest: One of them cannot be one.
    """
    violations = Violations()
    if not NAME.fullmatch(request.webhook_name):
        violations.add("webhook_name", f"must match {NAME.pattern}")
    if not _EVENT_ID.fullmatch(request.event_id):
        violations.add("event_id", f"must match {_EVENT_ID.pattern}")
    violations.raise_if_any()
    return request.webhook_name, request.event_id


def parse_state(request: pb.ListDeliveriesRequest) -> DeliveryState | None:
    """Return the state that a query wants; None: any.

    Raises:
        InvalidRequest: It is none of the known ones.
    """
    if request.state and request.state not in _STATES:
        raise InvalidRequest.of("state", "must be one of its values")
    return _STATES.get(request.state)


def webhook_message(webhook: Webhook, *, now: datetime) -> pb.Webhook:
    """Convert a webhook, without its secrets.

    Args:
        webhook: The webhook.
        now: The current time, at which some secrets are in force.
    """
    off, success = webhook.disable_time, webhook.last_success_time
    ends = sorted(each.expire_time for each in webhook.secrets_at(now) if each.expire_time is not None)
    return pb.Webhook(
        name=webhook.name,
        url=webhook.url,
        event_types=webhook.event_types,
        enabled=webhook.enabled,
        description=webhook.description,
        etag=webhook.etag,
        create_time=timestamp(webhook.create_time),
        update_time=timestamp(webhook.update_time),
        disabled_reason=webhook.disabled_reason,
        disable_time=timestamp(off) if off is not None else None,
        last_success_time=timestamp(success) if success is not None else None,
        secret_create_time=timestamp(webhook.secrets[-1].create_time),
        rotation_end_time=timestamp(ends[-1]) if ends else None,
    )


def delivery_message(delivery: Delivery) -> pb.WebhookDelivery:
    """Convert a delivery."""
    pending = delivery.state is DeliveryState.PENDING
    return pb.WebhookDelivery(
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        webhook=delivery.webhook,
        state=_STATE_NUMBERS[delivery.state],
        body_json=delivery.body,
        turn_id=delivery.turn_id or "",
        session_id=delivery.session_id or "",
        attempts=delivery.attempts,
        create_time=timestamp(delivery.create_time),
        next_attempt_time=timestamp(delivery.next_time) if pending else None,
        last_attempt_time=timestamp(delivery.last_time) if delivery.last_time is not None else None,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
    )


def _rotation(request: pb.ApplyWebhookRequest, violations: Violations) -> timedelta:
    if not request.HasField("rotation_overlap"):
        return _OVERLAP
    return violations.read_duration("rotation_overlap", request.rotation_overlap, most=_LONGEST_OVERLAP)
