"""A cache forgets what has expired, and evicts the least recently used value."""

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
