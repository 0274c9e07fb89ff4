"""A cache forgets what has expired, evicts the least recently used value, and reads a value once for all callers."""

import asyncio
from collections.abc import Awaitable

import pytest

from godoty_service.aio.caching import TtlCache


class Tick:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_value_expires() -> None:
    """`get` returns it until its age is the limit, `peek` also afterwards."""
    tick = Tick()
    cache = TtlCache[str, int](size=2, ttl=3.0, tick=tick)
    cache.put("a", 1)
    tick.now = 2.9
    assert cache.get("a") == 1
    tick.now = 3.0

    assert cache.get("a") is None
    assert cache.peek("a") == (1, False)


def test_age_includes_the_read() -> None:
    """A value is as old as the begin of its read, not its end."""
    tick = Tick()
    cache = TtlCache[str, int](size=2, ttl=3.0, tick=tick)
    tick.now = 2.0
    cache.put("a", 1, read_at=0.0)
    tick.now = 3.0

    assert cache.get("a") is None


def test_least_recently_used_value_is_evicted() -> None:
    """A read and a write both count as a use; `forget` removes a value."""
    cache = TtlCache[str, int](size=2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.forget("a")
    cache.put("d", 4)

    assert (len(cache), cache.get("c"), cache.get("d")) == (2, 3, 4)


def test_weight_of_all_values_is_bounded() -> None:
    """One that is too heavy by itself is cached alone; what is replaced or forgotten has no weight any more."""
    cache = TtlCache[str, str](size=9, weigh=len, max_weight=10)
    cache.put("a", "1234")
    cache.put("a", "12345")
    cache.put("b", "12345")
    assert (cache.get("a"), cache.get("b")) == ("12345", "12345")
    cache.put("c", "1")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (None, "12345", "1")
    cache.forget("b")
    cache.put("d", "123456789")
    assert (cache.get("c"), cache.get("d")) == ("1", "123456789")
    cache.put("e", "x" * 100)

    assert (len(cache), cache.get("e")) == (1, "x" * 100)


def test_expired_values_are_removed() -> None:
    """Those that are fresh remain."""
    tick = Tick()
    cache = TtlCache[str, int](size=3, ttl=3.0, tick=tick)
    cache.put("a", 1)
    tick.now = 1.0
    cache.put("b", 2)
    tick.now = 3.0
    cache.remove_expired()

    assert (cache.peek("a"), cache.peek("b"), len(cache)) == ((None, False), (2, True), 1)


class Reads:
    """Reads of one value: each waits until the test ends it, and returns its number, from 1."""

    def __init__(self) -> None:
        self.pending: list[asyncio.Future[int]] = []

    def __call__(self) -> Awaitable[int]:
        """Begin a read."""
        self.pending.append(asyncio.get_running_loop().create_future())
        return self.pending[-1]

    def end(self, number: int) -> None:
        """End the read of this number."""
        self.pending[number - 1].set_result(number)

    def fail(self, number: int) -> None:
        """Fail the read of this number."""
        self.pending[number - 1].set_exception(ConnectionError(number))


async def start(cache: TtlCache[str, int], reads: Reads, *keys: str) -> list[asyncio.Task[int]]:
    """Load these keys concurrently."""
    tasks = [asyncio.create_task(cache.load(key, reads)) for key in keys]
    await idle()
    return tasks


async def idle() -> None:
    """Let all tasks run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_concurrent_loads_of_a_key_are_one_read() -> None:
    """Its value is for all of them, and is cached; another key is read by itself."""
    cache, reads = TtlCache[str, int](size=2), Reads()
    tasks = await start(cache, reads, "a", "a", "a", "b")
    assert len(reads.pending) == 2
    reads.end(1)
    reads.end(2)

    assert await asyncio.gather(*tasks) == [1, 1, 1, 2]
    assert (cache.get("a"), cache.get("b")) == (1, 2)


async def test_loaded_value_is_as_old_as_its_read() -> None:
    """The age counts from the begin of the read."""
    tick = Tick()
    cache, reads = TtlCache[str, int](size=2, ttl=3.0, tick=tick), Reads()
    (task,) = await start(cache, reads, "a")
    tick.now = 2.0
    reads.end(1)
    assert await task == 1
    tick.now = 2.9
    assert cache.get("a") == 1
    tick.now = 3.0

    assert cache.get("a") is None


async def test_none_is_a_value() -> None:
    """`peek` distinguishes it from no value."""
    cache = TtlCache[str, None](size=2)

    async def read() -> None:
        return None

    await cache.load("a", read)

    assert (cache.peek("a"), cache.peek("b")) == ((None, True), (None, False))


async def test_failed_load_is_repeated_by_those_that_waited_for_it() -> None:
    """They do not get its error, and read at once, not one after the other's failure; one of the values is cached."""
    cache, reads = TtlCache[str, int](size=2), Reads()
    tasks = await start(cache, reads, "a", "a", "a")
    reads.fail(1)
    await idle()
    assert len(reads.pending) == 3
    reads.end(2)
    reads.end(3)

    failure, *found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(failure, ConnectionError)
    assert found == [2, 3]
    assert cache.get("a") == 3


async def test_cancelled_load_is_repeated_by_those_that_waited_for_it() -> None:
    """The caller whose task read is cancelled; another one reads."""
    cache, reads = TtlCache[str, int](size=2), Reads()
    tasks = await start(cache, reads, "a", "a")
    tasks[0].cancel()
    await idle()
    reads.end(2)

    assert await tasks[1] == 2
    assert tasks[0].cancelled()
    assert cache.get("a") == 2


async def test_cancelled_waiter_does_not_end_the_read() -> None:
    """The read belongs to another caller."""
    cache, reads = TtlCache[str, int](size=2), Reads()
    tasks = await start(cache, reads, "a", "a")
    tasks[1].cancel()
    await idle()
    reads.end(1)

    assert await tasks[0] == 1
    assert len(reads.pending) == 1


async def test_value_that_is_forgotten_while_it_is_read_is_not_cached() -> None:
    """It may be older than the change; callers that come after the change read anew, and their value is cached."""
    cache, reads = TtlCache[str, int](size=2), Reads()
    (before,) = await start(cache, reads, "a")
    cache.forget("a")
    (after,) = await start(cache, reads, "a")
    reads.end(1)
    assert await before == 1
    assert cache.get("a") is None
    reads.end(2)

    assert await after == 2
    assert cache.get("a") == 2


@pytest.mark.parametrize("fails", [False, True])
async def test_load_leaves_nothing_behind(*, fails: bool) -> None:
    """Keys whose reads have ended take no memory beside the cache's bound."""
    cache, reads = TtlCache[str, int](size=2), Reads()
    for number in range(1, 6):
        (task,) = await start(cache, reads, f"key {number}")
        (reads.fail if fails else reads.end)(number)
        await asyncio.gather(task, return_exceptions=True)

    assert len(cache) == (0 if fails else 2)
    assert not cache._loads._running


async def test_read_whose_value_has_expired_is_not_waited_for() -> None:
    """A caller never gets a value whose read began longer ago than its age may be, however slow the database is."""
    tick = Tick()
    cache, reads = TtlCache[str, int](size=2, ttl=3.0, tick=tick), Reads()
    (first,) = await start(cache, reads, "a")
    tick.now = 2.9
    (in_time,) = await start(cache, reads, "a")
    tick.now = 3.0
    (late,) = await start(cache, reads, "a")
    assert len(reads.pending) == 2
    reads.end(2)
    assert await late == 2
    reads.end(1)

    assert (await first, await in_time) == (1, 1)
    assert cache.get("a") == 2
