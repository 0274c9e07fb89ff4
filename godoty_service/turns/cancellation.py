"""Cancels running turns that must not continue.

A turn must not continue if its lease is lost, a caller of another server cancels it, no reader is left, its API key is
no longer valid, or its tenant is suspended or deleted.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import GodotyError, SessionLost
from godoty_service.tenancy.api_keys import ApiKeys, KeyState
from godoty_service.tenancy.errors import TenantDeleted
from godoty_service.turns.turn import Turn
from godoty_service.turns.turn_store import TurnStore

log = structlog.get_logger(__name__)

# Seconds for the read of remote readers, which usually takes milliseconds. A slow database must not end a turn that is
# read elsewhere; one that does not answer for longer than a mark is valid must not keep an unread turn running.
_READER_TIMEOUT = 3.0


class TurnMonitor:
    """Checks this server's turns."""

    def __init__(self, *, turn_store: TurnStore, replicas: ReplicaHeartbeats) -> None:
        self._turn_store = turn_store
        self._replicas = replicas
        self._checks: set[asyncio.Task[None]] = set()

    async def check(self, turns: Sequence[Turn]) -> None:
        """Cancel those of these turns that must not continue."""
        for turn in turns:
            if not self._replicas.lease_valid(turn.epoch):
                turn.cancel(SessionLost("The server lost touch with the database.", retry_after=1.0))
        if turns:
            await self._cancel_requested(turns)
        await self._cancel_unread([turn for turn in turns if turn.unread])

    def on_reader_left(self, turn: Turn) -> None:
        """Cancel a turn that ends with its last reader, unless another server has a reader of it.

        If it ends some time after that, `check` cancels it.
        """
        if turn.unread:
            check = asyncio.create_task(self._cancel_unread([turn]))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _cancel_requested(self, turns: Sequence[Turn]) -> None:
        try:
            requested = await self._turn_store.to_cancel([turn.turn_id for turn in turns])
        except GodotyError as error:
            log.warning("cancel_requests_not_read", error=str(error))
            return
        for turn in turns:
            if turn.turn_id in requested:
                turn.cancel()

    async def _cancel_unread(self, turns: Sequence[Turn]) -> None:
        """Cancel those of these turns that have no reader in another server.

        A failed read counts as none, but not for a turn with a grace, whose reader may have come back: the next check
        reads again.
        """
        if not turns:
            return
        try:
            async with asyncio.timeout(_READER_TIMEOUT):
                read_remotely = await self._turn_store.with_remote_reader({each.turn_id: each.grace for each in turns})
        except (GodotyError, TimeoutError) as error:
            log.warning("remote_readers_not_read", error=str(error))
            read_remotely = {each.turn_id for each in turns if each.grace}
        for turn in turns:
            if turn.unread and turn.turn_id not in read_remotely:
                turn.cancel()


class KeyMonitor:
    """Marks turns whose API key or tenant lets them make no further model call: one database operation for all of them.

    The turns of deleted tenants are cancelled: a long answer must not delay the erasure.
    """

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def run(self, interval: float, turns: Callable[[], Collection[Turn]]) -> None:
        """Check the keys of the running turns every `interval` seconds until cancelled."""
        # A failed read ends no turn: without the database no model call is made either.
        await run_every(interval, lambda: self.mark(turns()), failure="keys_not_read")

    async def mark(self, turns: Collection[Turn]) -> None:
        """Mark the turns with the states of their keys, and cancel those of deleted tenants.

        A key that is gone stays so; a tenant may be resumed, or deleted after its keys were revoked.
        """
        key_ids = {each.key_id for each in turns if each.key_id is not None}
        states = await self._keys.states(key_ids) if key_ids else {}
        for turn in turns:
            if turn.key_id is not None:
                turn.key_state = states[turn.key_id]
            if turn.key_state is KeyState.TENANT_DELETED:
                turn.cancel(TenantDeleted.of(turn.tenant_id))

    async def state(self, key_id: str) -> KeyState:
        """Return the state of a key and its tenant."""
        return (await self._keys.states([key_id]))[key_id]

    async def check(self, turn: Turn) -> None:
        """Read the state of a turn's key and check it.

        Raises:
            InvalidApiKey: The key was revoked or has expired.
            TenantSuspended: The tenant is suspended.
            TenantDeleted: The tenant is deleted.
        """
        await self.mark([turn])
        turn.check_key()
