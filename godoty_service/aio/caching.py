"""A cache in memory: bounded in size, with an age after which its values are read again, by one caller for all."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TtlCache(Generic[Key, Value]):
    """Values by key; the least recently used one is evicted first.

    Use it from one event loop. `get` does not return a value that has expired, but keeps it: it costs no more than the
    bound, and the next `put` replaces it, or `remove_expired` removes it. None may be a value: use `peek` then.
    """

    def __init__(
        self,
        *,
        size: int,
        ttl: float = float("inf"),
        tick: Callable[[], float] = time.monotonic,
        weigh: Callable[[Value], int] = lambda _: 0,
        max_weight: int = 0,
    ) -> None:
        """Create an empty cache.

        Args:
            size: The most values.
            ttl: Seconds after which a value has expired.
            tick: Seconds of a monotonic clock.
            weigh: Returns the weight of a value, always the same for the same one.
            max_weight: The most weight of all values together; one that is heavier by itself is cached alone.
        """
        self._size = size
        self._weigh = weigh
        self._max_weight = max_weight
        self._weight = 0
        self._ttl = ttl
        self._tick = tick
        self._values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()
        self._loads: CoalescedLoads[Key, Value] = CoalescedLoads(self.put, ttl=ttl, tick=tick)

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

    async def load(self, key: Key, read: Callable[[], Awaitable[Value]]) -> Value:
        """Read and cache the value of a key that has no fresh one, as `CoalescedLoads.load` does."""
        return await self._loads.load(key, read)

    def put(self, key: Key, value: Value, read_at: float | None = None) -> None:
        """Cache a value.

        Args:
            key: Its key.
            value: The value.
            read_at: When the read of it began, by the cache's clock, so that its age includes the read; None: now.
        """
        self._remove(key)
        self._values[key] = (self._tick() if read_at is None else read_at, value)
        self._weight += self._weigh(value)
        while len(self._values) > self._size or (self._weight > self._max_weight and len(self._values) > 1):
            self._remove(next(iter(self._values)))

    def forget(self, key: Key) -> None:
        """Remove a key, so that its value is read again; a read in progress, which may be older, is not cached."""
        self._remove(key)
        self._loads.forget(key)

    def remove_expired(self) -> None:
        """Remove the values that have expired: those that must not stay in memory."""
        limit = self._tick() - self._ttl
        for key in [key for key, (read_at, _) in self._values.items() if read_at <= limit]:
            self._remove(key)

    def _remove(self, key: Key) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._weight -= self._weigh(found[1])


class CoalescedLoads(Generic[Key, Value]):
    """Reads each value once for all concurrent callers, and puts it into a cache."""

    def __init__(self, put: Callable[[Key, Value, float], None], *, ttl: float, tick: Callable[[], float]) -> None:
        """Create it.

        Args:
            put: Caches a value: its key, the value, and when its read began.
            ttl: Seconds after which a value has expired, counted from the begin of its read.
            tick: Seconds of a monotonic clock.
        """
        self._put = put
        self._ttl = ttl
        self._tick = tick
        self._running: dict[Key, tuple[float, asyncio.Future[Value]]] = {}

    async def load(self, key: Key, read: Callable[[], Awaitable[Value]]) -> Value:
        """Return the value of a running read of this key, or read it. A read whose value has expired is not waited for.

        The read runs in the task of its caller. If it fails or is cancelled, those that waited for it read the value
        themselves, all at once: they do not get another's error, nor wait for one failure after another.

        Args:
            key: The key.
            read: Reads its value; what it raises is raised here.
        """
        other = self._running.get(key)
        if other is not None and self._tick() - other[0] < self._ttl:
            await asyncio.wait([other[1]])
            if not other[1].cancelled():
                return other[1].result()
        began, running = own = self._running[key] = self._tick(), asyncio.get_running_loop().create_future()
        try:
            value = await read()
            running.set_result(value)
            if self._running.get(key) is own:  # else it was forgotten meanwhile, or a later read will be cached
                self._put(key, value, began)
        finally:
            running.cancel()  # without effect on a result
            if self._running.get(key) is own:
                del self._running[key]
        return value

    def forget(self, key: Key) -> None:
        """Do not cache the value of a running read, and let no further caller wait for it."""
        self._running.pop(key, None)
