"""Ends the turns of dead servers of which webhooks are to be notified: a client may never ask for them."""

from collections.abc import Sequence

import structlog

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import StorageUnavailable, TurnNotFound
from godoty_service.turns.event_log.outbox import EndedTurn
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.turn_store import TurnRecord, TurnStore

log = structlog.get_logger(__name__)


class DeadTurns:
    """Ends them; their ends are then in the outbox of their logs."""

    def __init__(self, turn_store: TurnStore, recovery: Recovery, replicas: ReplicaHeartbeats) -> None:
        """Create it.

        Args:
            turn_store: The records of turns, of which some are marked since they began.
            recovery: Ends turns that no server runs.
            replicas: Returns which servers are alive.
        """
        self._turn_store = turn_store
        self._recovery = recovery
        self._replicas = replicas

    async def end_some(self) -> bool:
        """End some turns; return whether there may be more."""
        owners = await self._turn_store.replicas_to_notify() - {self._replicas.replica_id}
        dead = owners - await self._replicas.alive(owners)
        records = await self._turn_store.to_notify(dead) if dead else []
        ended = [each.turn_id for each in records if await self._end(each)]
        if ended:
            await self._turn_store.set_notified(ended)
        return bool(ended)

    async def _end(self, record: TurnRecord) -> bool:
        """End a turn; return whether it has an end now.

        Raises:
            StorageUnavailable: The database cannot be reached.
        """
        try:
            await self._recovery.end(record)
        except TurnNotFound:  # it never began
            return False
        except StorageUnavailable:
            raise
        except Exception:
            log.exception("turn_not_ended", turn_id=record.turn_id)  # it must not hold up the others
            return False
        return True

    async def forget(self, ended: Sequence[EndedTurn]) -> None:
        """Remove the marks of turns whose ends are known."""
        await self._turn_store.set_notified([each.turn_id for each in ended])
