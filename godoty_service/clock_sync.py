"""The clock of a server: the database's time, which all servers share.

Whatever is stored, or compared with a stored time, is dated by it. The system clock may be wrong by any amount.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from godoty_service.clock import Clock, to_millisecond, utc_now
from godoty_service.errors import GodotyError

log = structlog.get_logger(__name__)

OnMeasured = Callable[["SynchronizedClock"], Awaitable[None]]

_MILLISECOND = timedelta(milliseconds=1)  # by as much the database's time may be later than it says
_LARGEST_HOLD = timedelta(seconds=1)  # a smaller step back is waited for, a larger one is taken


class SynchronizedClock:
    """The database's time: the last one read, plus what the monotonic clock says has passed since.

    A reading is right to within its round trip. As long as the clock's own time lies within these bounds, it is not
    changed; else it moves to the nearer one. A correction back of up to a second lets it stand still that long, a
    larger one sets it back, so time never runs backwards by more than a correction. A change of the system clock moves
    nothing but `offset`.

    Attributes:
        tolerance: How far the system clock may be off.
        offset: How far the system clock was ahead of the database's time when that was last read.
        uncertainty: How much of `offset` the round trip may have made.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[datetime]],
        *,
        tolerance: timedelta,
        system: Clock = utc_now,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build it; until the first measurement it is the system clock.

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
        """Whether the system clock is right, as far as the last measurement can tell."""
        return abs(self.offset) - self.uncertainty <= self.tolerance

    async def measure(self) -> None:
        """Read the database's time, and correct this one.

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
        """Report the last measurement and measure again, every `interval` seconds."""
        while True:
            await on_measured(self)
            await asyncio.sleep(interval)
            try:
                await self.measure()
            except GodotyError as error:
                log.warning("clock_not_measured", error=str(error))

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
