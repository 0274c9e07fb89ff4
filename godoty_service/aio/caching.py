"""A cache in memory: bounded in size, with an age after which its values are read again."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TtlCache(Generic[Key, Value]):
    """Values by key; the least recently used one is evicted first.

    Use it from one event loop. `get` does not return a value that has expired, but keeps it: it costs no more than the
    bound, and the next `put` replaces it.
    """

    def __init__(self, *, size: int, ttl: float = float("inf"), tick: Callable[[], float] = time.monotonic) -> None:
        """Create an empty cache.

        Args:
            size: The most values.
            ttl: Seconds after which a value has expired.
            tick: Seconds of a monotonic clock.
        """
        self._size = size
        self._ttl = ttl
        self._tick = tick
        self._values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Return the value of a key, or None if there is none that is fresh."""
        value, fresh = self.peek(key)
        return value if fresh else None

    def peek(self, key: Key) -> tuple[Value | None, bool]:
        """Return the value of a key, expired or not, and whether it is fresh; None and False if there is none."""
        found = self._values.get(key)
        if found is None:
            return None, False
        self._values.move_to_end(key)
        return found[1], self._tick() - found[0] < self._ttl

    def put(self, key: Key, value: Value, *, read_at: float | None = None) -> None:
        """Cache a value.

        Args:
            key: Its key.
            value: The value.
            read_at: When the read of it began, by the cache's clock, so that its age includes the read; None: now.
        """
        self._values[key] = (self._tick() if read_at is None else read_at, value)
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Remove a key, so that its value is read again."""
        self._values.pop(key, None)
