"""Answers that stop in the middle until they are allowed to go on: a test drives them, no clock does."""

import asyncio
from collections import Counter


class Holds:
    """Tokens that held answers may produce, by the name that the scenario gives in `hold=`."""

    def __init__(self) -> None:
        self._allowed: Counter[str] = Counter()
        self._released: set[str] = set()
        self._changed = asyncio.Event()

    async def wait(self, name: str, token: int) -> None:
        """Wait until an answer may produce its token number `token` (1, 2, 3 …) after the hold."""
        while name not in self._released and self._allowed[name] < token:
            await self._changed.wait()

    def allow(self, name: str, tokens: int | None = None) -> None:
        """Allow so many tokens more; None: all of them."""
        if tokens is None:
            self._released.add(name)
        else:
            self._allowed[name] += tokens
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def clear(self) -> None:
        """Forget what was allowed."""
        self._allowed.clear()
        self._released.clear()
