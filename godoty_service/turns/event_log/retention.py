"""Retains the logs of interrupted turns, from which the next turn of their session completes its messages.

A log expires some time after the turn, but a session may be left alone for longer. Without the log the next turn would
know neither the answer that was shown nor what has become of the tools. The turn's record is retained beside it.
"""

from collections import defaultdict
from datetime import timedelta

from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.sessions.holders import SessionHolders
from godoty_service.turns.event_log.store import EventLogStore
from godoty_service.turns.turn_store import TurnStore


class LogRetention:
    """Postpones the expiry of logs. Every server runs it."""

    def __init__(
        self,
        *,
        holders: SessionHolders,
        turn_store: TurnStore,
        event_logs: EventLogStore,
        replicas: ReplicaHeartbeats,
        longest: timedelta,
        clock: Clock,
    ) -> None:
        """Create it.

        Args:
            holders: The turns that hold sessions.
            turn_store: The turns' records.
            event_logs: Their logs.
            replicas: Returns which servers are alive.
            longest: How long after its begin a turn's log is retained at most.
            clock: Returns the time.
        """
        self._holders = holders
        self._turn_store = turn_store
        self._event_logs = event_logs
        self._replicas = replicas
        self._longest = longest
        self._clock = clock

    async def run(self, interval: float) -> None:
        """Postpone expiries every `interval` seconds until cancelled."""
        await run_every(interval, self.extend, failure="logs_not_retained")

    async def extend(self) -> None:
        """Retain the logs of the turns that hold a session although no server runs them, as if written now."""
        held = await self._holders.since(self._clock() - self._longest)
        alive = await self._replicas.alive({each.replica_id for each in held})
        interrupted = defaultdict[str, list[str]](list)
        for each in held:
            if each.replica_id not in alive:
                interrupted[each.tenant_id] += each.turn_ids
        for tenant_id, turn_ids in interrupted.items():
            await self._event_logs.extend(tenant_id, turn_ids, expire_time=self._turn_store.log_expiry())
            await self._turn_store.extend(tenant_id, turn_ids)
