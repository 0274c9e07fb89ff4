"""Slows down whoever tries keys: each refusal of a source that was refused several times in a row takes longer.

Only refusals wait: a good key of the same source never does, so a proxy's other clients are not held up.
"""

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

_FREE = 3  # refusals in a row that cost nothing
_FIRST = 0.1  # seconds that the next one waits; each after it twice as long
_FORGOTTEN_AFTER = 60.0  # seconds without a refusal
_SOURCES = 10_000
_WAITING = 1_000  # refusals that wait at the same time; more are answered at once, so that they cannot fill the memory


class Refusals:
    """Counts refusals by source, in bounded memory."""

    def __init__(
        self,
        *,
        longest: float,
        tick: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Build it.

        Args:
            longest: Seconds that a refusal waits at most; 0: none does.
            tick: Seconds of a clock that never turns back.
            sleep: Waits.
        """
        self._longest = longest
        self._tick = tick
        self._sleep = sleep
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting = 0

    async def wait(self, peer: str) -> None:
        """Count a refusal and wait as long as its source has earned.

        Args:
            peer: The caller's address, as gRPC tells it.
        """
        delay = self._count(source_of(peer))
        if delay <= 0 or self._waiting >= _WAITING:
            return
        self._waiting += 1
        try:
            await self._sleep(delay)
        finally:
            self._waiting -= 1

    def _count(self, source: str) -> float:
        now = self._tick()
        count, last = self._counts.pop(source, (0, now))
        count = 1 if now - last > _FORGOTTEN_AFTER else count + 1
        delay = 0.0 if count <= _FREE else min(self._longest, _FIRST * 2.0 ** min(count - _FREE - 1, 16))
        self._counts[source] = (count, now + delay)
        if len(self._counts) > _SOURCES:
            self._counts.popitem(last=False)
        return delay


def source_of(peer: str) -> str:
    """Tell the source of a peer such as "ipv4:10.0.0.1:5000": its address; of IPv6 the network, which one host owns."""
    family, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    if family != "ipv6":
        return host or family
    try:
        return str(ipaddress.ip_network(f"{host}/64", strict=False))
    except ValueError:
        return host
