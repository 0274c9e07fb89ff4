"""Pauses answers until tokens are released, so that a test controls their progress without a clock."""

import asyncio
from collections import Counter


class Holds:
    """The number of tokens released to paused answers, by the scenario's `hold=` name."""

    def __init__(self) -> None:
        self._allowed: Counter[str] = Counter()
        self._released: set[str] = set()
        self._changed = asyncio.Event()

    async def wait(self, name: str, token: int) -> None:
        """Wait until the answer's token number `token` after the pause (1, 2, 3 …) is released."""
        while name not in self._released and self._allowed[name] < token:
            await self._changed.wait()

    def allow(self, name: str, tokens: int | None = None) -> None:
        """Release `tokens` more tokens; None releases all."""
        if tokens is None:
            self._released.add(name)
        else:
            self._allowed[name] += tokens
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def clear(self) -> None:
        """Revoke all releases."""
        self._allowed.clear()
        self._released.clear()
