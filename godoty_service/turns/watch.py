"""Looks after running turns: ends those that lost their lease, that somebody cancels elsewhere or nobody reads."""

import asyncio
from collections.abc import Sequence

import structlog

from godoty_service.errors import GodotyError, SessionLost
from godoty_service.sessions.replicas import Replicas
from godoty_service.turns.records import TurnRecords
from godoty_service.turns.turn import Turn

log = structlog.get_logger(__name__)

_GLANCE = 0.05  # seconds that a look for readers elsewhere may take: without one a turn is to end at once


class Watch:
    """Watches this server's turns."""

    def __init__(self, *, records: TurnRecords, replicas: Replicas) -> None:
        self._records = records
        self._replicas = replicas
        self._looks: set[asyncio.Task[None]] = set()

    async def look(self, turns: Sequence[Turn]) -> None:
        """Cancel those of these turns that may not go on."""
        for turn in turns:
            if not self._replicas.holds(turn.epoch):
                turn.cancel(SessionLost("The server lost touch with the database.", retry_after=1.0))
        if turns:
            await self._cancel_asked(turns)
        await self._cancel_unread([turn for turn in turns if turn.unread])

    def left(self, turn: Turn) -> None:
        """Take note that a reader has left: a turn that ends with the last one does, unless it is read elsewhere."""
        if turn.unread:
            look = asyncio.create_task(self._cancel_unread([turn]))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _cancel_asked(self, turns: Sequence[Turn]) -> None:
        try:
            asked = await self._records.to_cancel([turn.turn_id for turn in turns])
        except GodotyError as error:
            log.warning("cancels_not_seen", error=str(error))
            return
        for turn in turns:
            if turn.turn_id in asked:
                turn.cancel()

    async def _cancel_unread(self, turns: Sequence[Turn]) -> None:
        """Cancel those of these turns that nobody reads in another server either, as far as that can be seen."""
        if not turns:
            return
        try:
            async with asyncio.timeout(_GLANCE):
                followed = await self._records.followed([turn.turn_id for turn in turns])
        except (GodotyError, TimeoutError) as error:
            log.warning("readers_not_seen", error=str(error))
            followed = set()
        for turn in turns:
            if turn.unread and turn.turn_id not in followed:
                turn.cancel()
