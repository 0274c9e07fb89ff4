"""Limits how many unproven API keys a source may have looked up: a token bucket for each source.

A key that is cached, or that was good when it was looked up last, needs no token, so a source in penalty does not
hold up the good keys behind the same proxy.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType

import structlog

from godoty_service.errors import QuotaExceeded

log = structlog.get_logger(__name__)

_BURST = 10.0  # look-ups of wrong keys that a source may have at once before the rate holds
_SOURCES = 10_000  # that are remembered; the one that sent no wrong key for the longest time goes first
_AT_ONCE = 32  # look-ups of unproven keys in the database, of all sources together
_LOG_INTERVAL = 60.0  # seconds between two log lines about a source


class TooManyWrongKeys(QuotaExceeded):
    """The source sent many wrong keys, and this one would have to be looked up."""

    reason = "TOO_MANY_WRONG_KEYS"


class _Source:
    """What is known of a source that sent wrong keys."""

    __slots__ = ("logged_at", "refused", "seen_at", "tokens")

    def __init__(self, now: float) -> None:
        self.tokens = _BURST
        self.seen_at = now
        self.refused = 0  # calls since the last log line
        self.logged_at = now - _LOG_INTERVAL


class AuthThrottle:
    """Counts the wrong keys of each source, in bounded memory."""

    def __init__(self, *, lookups_per_second: float, tick: Callable[[], float] = time.monotonic) -> None:
        """Build it.

        Args:
            lookups_per_second: Look-ups of unproven keys that a source in penalty gets.
            tick: Seconds of a clock that never turns back.
        """
        self._rate = lookups_per_second
        self._tick = tick
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._looking_up = 0

    def check(self, source: str) -> "KeyCheck":
        """Begin the check of a key that came from a source."""
        return KeyCheck(self, source)

    def acquire(self, source: str) -> None:
        """Take a token of a source and a place among the look-ups.

        Raises:
            TooManyWrongKeys: There is none.
        """
        wait = self._wait(source)
        if wait > 0:
            raise TooManyWrongKeys(
                f"Too many wrong API keys came from this address: {self._rate:g} unknown keys a second are checked;"
                f" retry in {wait:.1f} s.",
                quota="key_lookups/second",
                retry_after=wait,
            )
        self._looking_up += 1
        if (known := self._sources.get(source)) is not None:
            known.tokens -= 1
        else:
            self._remember(source).tokens -= 1

    def release(self) -> None:
        """Give back the place among the look-ups."""
        self._looking_up -= 1

    def accept(self, source: str) -> None:
        """Give back the token of a look-up that found a good key."""
        if (known := self._sources.get(source)) is not None:
            known.tokens = min(_BURST, known.tokens + 1)

    def refuse(self, source: str) -> None:
        """Count a refused call, and log the source if it was not logged within the last minute."""
        known = self._remember(source)
        known.refused += 1
        now = self._tick()
        if now - known.logged_at >= _LOG_INTERVAL:
            log.warning("keys_refused", source=source, calls=known.refused)
            known.refused, known.logged_at = 0, now

    def _wait(self, source: str) -> float:
        """Return the seconds until a source may have a key looked up; 0: it may now."""
        if self._looking_up >= _AT_ONCE:
            return 1.0
        known = self._sources.get(source)
        if known is None:
            return 0.0
        now = self._tick()
        known.tokens = min(_BURST, known.tokens + (now - known.seen_at) * self._rate)
        known.seen_at = now
        return max(0.0, (1 - known.tokens) / self._rate)

    def _remember(self, source: str) -> _Source:
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source(self._tick())
            if len(self._sources) > _SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(source)
        return known


class KeyCheck:
    """The check of one key. Its block surrounds the look-up in the database, if there is one."""

    __slots__ = ("_source", "_throttle", "_took")

    def __init__(self, throttle: AuthThrottle, source: str) -> None:
        self._throttle = throttle
        self._source = source
        self._took = False

    def __enter__(self) -> None:
        self._throttle.acquire(self._source)
        self._took = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._throttle.release()

    def accept(self) -> None:
        """The key is good."""
        if self._took:
            self._throttle.accept(self._source)

    def refuse(self) -> None:
        """The key is not good, or was not checked."""
        self._throttle.refuse(self._source)
