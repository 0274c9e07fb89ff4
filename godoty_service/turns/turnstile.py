"""A turnstile: work of many turns is done in their order, so many at a time, and not all of it side by side.

Side by side, a burst of turns would all ask their models when the last of them is ready to. With one turnstile before
the first request and one before the end, a busy server answers first and tidies up afterwards.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_LONGEST = 1.0  # seconds to wait; work that hangs in front must not hold up the rest


class Turnstile:
    """Lets so many through at once, in the order of their coming.

    Args:
        at_once: How many.
        behind: Another, whose work comes first: while somebody is in it or waits for it, one at a time goes here.
    """

    def __init__(self, at_once: int, *, behind: "Turnstile | None" = None) -> None:
        self._at_once = at_once
        self._before = behind
        self._on_change: list[Callable[[], None]] = []
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        if behind is not None:
            behind.watch(self._let_in)

    async def enter(self) -> Callable[[], None]:
        """Wait to be let in, but not for ever; returns how to leave, which may be called more than once."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._let_in()
        try:
            if not place.done():
                async with asyncio.timeout(_LONGEST):
                    await place
        except TimeoutError:
            if not _entered(place):
                self._forget(place)
                return _nothing
        except asyncio.CancelledError:
            if _entered(place):
                self._leave()
            else:
                self._forget(place)
            raise
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._leave()

        return leave

    @property
    def busy(self) -> bool:
        """Whether somebody is in it or waits for it."""
        return self._inside > 0 or bool(self._waiting)

    def watch(self, told: Callable[[], None]) -> None:
        """Have somebody told of whoever leaves."""
        self._on_change.append(told)

    def _leave(self) -> None:
        self._inside -= 1
        self._let_in()
        self._tell()

    def _forget(self, place: "asyncio.Future[None]") -> None:
        with suppress(ValueError):
            self._waiting.remove(place)
        self._tell()

    def _tell(self) -> None:
        for told in self._on_change:
            told()

    def _let_in(self) -> None:
        most = 1 if self._before is not None and self._before.busy else self._at_once
        while self._waiting and self._inside < most:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self._inside += 1


def _entered(place: "asyncio.Future[None]") -> bool:
    return place.done() and not place.cancelled()


def _nothing() -> None:
    """Leave where nobody went in."""
