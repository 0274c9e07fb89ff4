"""The tenants that are notified of events, in memory, so that turns of all others cost nothing more.

Each server reads the changed webhooks every second. While it cannot, all tenants are taken for notified ones: a mark
too many in an outbox is removed, one that is missing would be an event that is lost.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock
from godoty_service.webhooks.event import EventType
from godoty_service.webhooks.store import Webhooks
from godoty_service.webhooks.webhook import Webhook

DELAY = timedelta(seconds=5)  # after which every server knows a new webhook, or takes all tenants for notified ones
_POLL = 1.0  # seconds
_FRESH = 4.0  # seconds
_OVERLAP = timedelta(seconds=30)  # of two reads: clocks differ, and a write is visible after its time
_WHOLE = 600.0  # seconds between two reads of all of them: deleted ones are found by nothing else


class Subscribers:
    """The tenants with webhooks that are enabled."""

    def __init__(
        self, webhooks: Webhooks, *, clock: Clock, everyone: bool = False, tick: Callable[[], float] = time.monotonic
    ) -> None:
        """Create it; nothing is read yet.

        Args:
            webhooks: The webhooks.
            clock: Returns the current time.
            everyone: All tenants are notified, since the events themselves are shown.
            tick: Returns the seconds of a monotonic clock.
        """
        self.everyone = everyone
        self._webhooks = webhooks
        self._clock = clock
        self._tick = tick
        self._enabled: dict[str, dict[str, Webhook]] = {}  # by tenant and name
        self._read_at = self._whole_at = float("-inf")
        self._since: datetime | None = None

    def wants(self, tenant_id: str) -> bool:
        """Return whether a tenant is notified of events; True if it is not known."""
        stale = self._tick() - self._read_at > _FRESH
        return self.everyone or stale or tenant_id in self._enabled

    def of_type(self, event_type: EventType) -> list[str]:
        """Return the tenants that are notified of events of a type."""
        found = self._enabled.items()
        return [tenant_id for tenant_id, hooks in found if any(each.takes(event_type) for each in hooks.values())]

    def note(self, webhook: Webhook) -> None:
        """Take note of a webhook that was changed here."""
        _put(self._enabled, webhook)

    async def run(self) -> None:
        """Read the changes every second until cancelled."""
        await run_every(_POLL, self.refresh, failure="webhooks_not_read")

    async def refresh(self) -> None:
        """Read what has changed since the last read, or all."""
        began, now = self._tick(), self._clock()
        whole = began - self._whole_at > _WHOLE
        known: dict[str, dict[str, Webhook]] = {} if whole else self._enabled
        async for each in self._webhooks.changed_since(None if whole else self._since):
            _put(known, each)
        self._enabled, self._read_at, self._since = known, began, now - _OVERLAP
        self._whole_at = began if whole else self._whole_at


def _put(known: dict[str, dict[str, Webhook]], webhook: Webhook) -> None:
    """Add a webhook that is enabled, and remove one that is not."""
    hooks = known.setdefault(webhook.tenant_id, {})
    if webhook.enabled:
        hooks[webhook.name] = webhook
    else:
        hooks.pop(webhook.name, None)
    if not hooks:
        del known[webhook.tenant_id]
