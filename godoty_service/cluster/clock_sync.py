"""The clock of a server: the database's time, which all servers share.

All stored times, and all times that are compared with them, come from it. The system clock may be wrong by any amount.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock, to_millisecond, utc_now

log = structlog.get_logger(__name__)

OnMeasured = Callable[["SynchronizedClock"], Awaitable[None]]

_MILLISECOND = timedelta(milliseconds=1)  # the database cuts its time to it
_LARGEST_HOLD = timedelta(seconds=1)  # for a smaller step back the clock stops, a larger one sets it back


class SynchronizedClock:
    """The database's time: the last reading, plus the time that has passed since by the monotonic clock.

    A reading is accurate to within its round trip. While the clock's own time lies within these bounds, it is not
    changed; otherwise it moves to the nearer bound. For a correction back of up to a second, the clock stops
    that long; a larger correction sets it back, so time never runs backwards by more than a correction. A change of the
    system clock changes only `offset`.

    Attributes:
        tolerance: How far the system clock may be off.
        offset: How far the system clock was ahead of the database's time when that was last read.
        uncertainty: How much of `offset` may be due to the round trip.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[datetime]],
        *,
        tolerance: timedelta,
        system: Clock = utc_now,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a clock; until the first measurement it is the system clock.

        Args:
            read: Returns the database's time.
            tolerance: How far the system clock may be off.
            system: The system clock.
            tick: Seconds of a monotonic clock.
        """
        self._read = read
        self._system = system
        self._tick = tick
        self._measured = False
        self._origin = (tick(), system())
        self._last = datetime.min.replace(tzinfo=UTC)
        self.tolerance = tolerance
        self.offset = self.uncertainty = timedelta()

    def __call__(self) -> datetime:
        """Return the time."""
        now = to_millisecond(self._at(self._tick()))
        if timedelta() < self._last - now <= _LARGEST_HOLD:
            return self._last
        self._last = now
        return now

    @property
    def within_tolerance(self) -> bool:
        """Whether the last measurement shows no more than the tolerated offset of the system clock."""
        return abs(self.offset) - self.uncertainty <= self.tolerance

    async def measure(self) -> None:
        """Read the database's time, and correct this clock.

        Raises:
            StorageUnavailable: The database cannot be reached.
        """
        sent = self._tick()
        earliest = await self._read()
        received = self._tick()
        latest = earliest + timedelta(seconds=received - sent) + _MILLISECOND
        own = self._at(received) if self._measured else earliest + (latest - earliest) / 2
        right = min(max(own, earliest), latest)
        if abs(own - right) > self.tolerance:
            log.warning("database_time_stepped", seconds=round((right - own).total_seconds(), 3))
        was_within = self.within_tolerance
        self._origin, self._measured = (received, right), True
        self.offset, self.uncertainty = self._system() - right, latest - earliest
        if was_within != self.within_tolerance:
            self._log_offset()

    async def run(self, interval: float, *, on_measured: OnMeasured) -> None:
        """Report the last measurement, and measure and report again every `interval` seconds until cancelled."""

        async def measure() -> None:
            try:
                await self.measure()
            finally:
                await on_measured(self)

        await on_measured(self)
        await run_every(interval, measure, failure="clock_not_measured")

    def _at(self, tick: float) -> datetime:
        """Return this clock's time at a reading of the monotonic clock."""
        origin, time_then = self._origin
        return time_then + timedelta(seconds=tick - origin)

    def _log_offset(self) -> None:
        facts = {
            "offset_seconds": round(self.offset.total_seconds(), 3),
            "tolerance_seconds": self.tolerance.total_seconds(),
        }
        if self.within_tolerance:
            log.info("clock_in_tolerance", **facts)
        else:
            log.error("clock_out_of_tolerance", note="check NTP here and on the database's hosts", **facts)
