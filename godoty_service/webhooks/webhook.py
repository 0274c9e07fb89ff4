"""A tenant's webhook: an endpoint, the types of events that it gets, and the secrets that sign them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from godoty_service.webhooks.event import EventType, WebhookEvent

MAX_SECRETS = 3  # of a webhook at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecret:
    """A secret of a webhook.

    Attributes:
        sealed: The secret, encrypted.
        create_time: When it was created.
        expire_time: When it ends to sign; None: it is the newest one, and does not end.
    """

    sealed: bytes = field(repr=False)
    create_time: datetime
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook.

    Attributes:
        tenant_id: The tenant.
        name: Its name, unique within the tenant.
        uid: A generated id: a webhook that is deleted and created anew has another one.
        url: The URL of the endpoint.
        description: What it is for.
        event_types: The types of events that it gets; empty: all.
        enabled: Whether it gets events.
        active_since: When it was enabled last: earlier events are not for it.
        disabled_reason: Why the server switched it off; empty: it did not.
        disable_time: When the server switched it off.
        secrets: Its secrets, the newest last.
        last_success_time: When it answered with success last.
        revision: The number of changes since it was created, plus 1.
        create_time: When it was created.
        update_time: When it was changed last.
    """

    tenant_id: str
    name: str
    uid: str
    url: str
    description: str = ""
    event_types: tuple[str, ...] = ()
    enabled: bool = True
    active_since: datetime
    disabled_reason: str = ""
    disable_time: datetime | None = None
    secrets: tuple[WebhookSecret, ...]
    last_success_time: datetime | None = None
    revision: int = 1
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """Identifies this version; a webhook that is deleted and created anew has another one."""
        parts = [self.uid, self.revision]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def takes(self, event_type: str) -> bool:
        """Return whether it gets the events of a type."""
        return self.enabled and (not self.event_types or event_type in self.event_types)

    def wants(self, event: WebhookEvent) -> bool:
        """Return whether it gets an event; what happened before it was enabled is not for it."""
        own = event.event_type is EventType.WEBHOOK_DISABLED and event.webhook == self.name
        return not own and self.takes(event.event_type) and event.time >= self.active_since

    def secrets_at(self, time: datetime) -> Iterable[WebhookSecret]:
        """Yield the secrets that sign at a time, the newest first."""
        return (each for each in reversed(self.secrets) if each.expire_time is None or each.expire_time > time)
