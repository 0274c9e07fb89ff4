"""Stops the model calls of turns whose API key was revoked or has expired since they started."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from godoty_service.errors import GodotyError, InvalidApiKey
from godoty_service.tenancy.keys import ApiKeys
from godoty_service.turns.turn import Turn

log = structlog.get_logger(__name__)


class KeyWatch:
    """Reads the keys of running turns: one database operation for all of them."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def run(self, interval: float, turns: Callable[[], Collection[Turn]]) -> None:
        """Look every so many seconds, until cancelled, at the keys of the turns that run then."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.look(turns())
            except GodotyError as error:  # no model call is made without the database either
                log.warning("keys_not_read", error=str(error))

    async def look(self, turns: Collection[Turn]) -> None:
        """Mark the turns whose key is in force no more."""
        watched = {each.key_id for each in turns if each.key_id is not None and not each.key_ended}
        ended = await self._keys.ended(watched) if watched else set()
        for turn in turns:
            turn.key_ended = turn.key_ended or turn.key_id in ended

    async def check(self, turn: Turn) -> None:
        """Refuse a turn whose key is in force no more.

        Raises:
            InvalidApiKey: It is not.
        """
        await self.look([turn])
        refuse_ended(turn)


def refuse_ended(turn: Turn) -> None:
    """Refuse a turn whose key is known to be in force no more.

    Raises:
        InvalidApiKey: It is not.
    """
    if turn.key_ended:
        raise InvalidApiKey("The API key that started the turn was revoked or has expired.")
