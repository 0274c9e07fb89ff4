"""How old the oldest event is that no endpoint has taken, for the metrics page."""

from datetime import timedelta
from typing import Final

from godoty_service.clock import Clock
from godoty_service.turns.event_log.outbox import EPOCH
from godoty_service.webhooks.deliveries import Deliveries
from godoty_service.webhooks.store import Webhooks

_PIECE: Final = 500  # deliveries of one read
_READS: Final = 20  # of one measurement: more are pending only if webhooks with very many of them are off


class Backlog:
    """The deliveries that are pending."""

    def __init__(self, webhooks: Webhooks, deliveries: Deliveries, *, clock: Clock) -> None:
        """Create it.

        Args:
            webhooks: The webhooks: what is pending for one that is off is not sent.
            deliveries: The deliveries.
            clock: Returns the current time.
        """
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._clock = clock

    async def oldest(self) -> timedelta:
        """Return the age of the oldest pending delivery of a webhook that is enabled; zero: there is none."""
        since = EPOCH
        for _ in range(_READS):
            found = await self._deliveries.pending_since(since, limit=_PIECE)
            enabled = await self._webhooks.of_tenants([*{tenant_id for tenant_id, _, _ in found}]) if found else {}
            uids = {each.uid for webhooks in enabled.values() for each in webhooks}
            for _, uid, since in found:
                if uid in uids:
                    return max(self._clock() - since, timedelta())
            if len(found) < _PIECE:
                return timedelta()
        return self._clock() - since  # at most so old
