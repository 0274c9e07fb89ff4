"""Pauses between repeated looks for a change, which double while there is none."""


class Backoff:
    """The next pause, from a shortest to a longest one, in seconds."""

    def __init__(self, shortest: float, longest: float) -> None:
        """Create it.

        Args:
            shortest: The first pause, in seconds.
            longest: The longest one.
        """
        self._shortest = self._next = shortest
        self._longest = longest

    def next(self, *, changed: bool = False) -> float:
        """Return the next pause: the shortest one after a change, else twice the last one, up to the longest."""
        pause = self._shortest if changed else self._next
        self._next = min(self._longest, 2 * pause)
        return pause
