from datetime import UTC, datetime, timedelta

import pytest
import structlog

from godoty_service.cluster.clock_sync import SynchronizedClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class SimulatedClocks:
    """A database's clock, a system clock and a monotonic one, all set by the test.

    Attributes:
        passed: Seconds since the start, on the monotonic clock.
        ahead: How far the system clock is ahead of the database's.
        step: How far the database's clock was set since the start.
        round_trip: Seconds that a reading takes, half of them before the clock is read.
    """

    def __init__(self) -> None:
        self.passed = 0.0
        self.ahead = self.step = timedelta()
        self.round_trip = 0.0

    def clock(self, *, tolerance: float = 60.0) -> SynchronizedClock:
        """Build the clock under test."""
        return SynchronizedClock(
            self.read,
            tolerance=timedelta(seconds=tolerance),
            system=lambda: self.now() + self.ahead,
            tick=lambda: self.passed,
        )

    def now(self) -> datetime:
        """Return the true time."""
        return NOON + timedelta(seconds=self.passed)

    async def read(self) -> datetime:
        """Read the database's time."""
        self.passed += self.round_trip / 2
        read = self.now() + self.step
        self.passed += self.round_trip / 2
        return read


@pytest.mark.parametrize("ahead", [timedelta(days=31), timedelta(days=-31), timedelta()])
async def test_measured_clock_returns_database_time(ahead: timedelta) -> None:
    """The system clock's error is in `offset` alone."""
    clocks = SimulatedClocks()
    clocks.ahead = ahead
    clock = clocks.clock()
    await clock.measure()
    clocks.passed += 7.25

    assert abs(clock() - clocks.now()) <= timedelta(milliseconds=1)
    assert abs(clock.offset - ahead) <= timedelta(milliseconds=1)
    assert clock.within_tolerance == (not ahead)


async def test_system_clock_set_while_running_moves_no_time() -> None:
    """The time continues unchanged, and the next measurement shows the offset."""
    clocks = SimulatedClocks()
    clock = clocks.clock()
    await clock.measure()
    before = clock()
    clocks.ahead = timedelta(days=1)

    assert clock() == before
    await clock.measure()
    assert abs(clock() - before) <= timedelta(milliseconds=1)
    assert abs(clock.offset - clocks.ahead) <= timedelta(milliseconds=1)


async def test_slow_reading_within_its_bounds_changes_nothing() -> None:
    """A reading that took four seconds is less accurate than the clock already is."""
    clocks = SimulatedClocks()
    clock = clocks.clock()
    await clock.measure()
    clocks.round_trip = 4.0
    await clock.measure()

    assert abs(clock() - clocks.now()) <= timedelta(milliseconds=1)


async def test_round_trip_widens_the_tolerance() -> None:
    """An offset that may be due to the round trip is not reported."""
    clocks = SimulatedClocks()
    clocks.round_trip, clocks.ahead = 4.0, timedelta(seconds=3)
    clock = clocks.clock(tolerance=1.0)
    await clock.measure()

    assert clock.within_tolerance


async def test_small_step_back_stops_the_clock() -> None:
    """After a correction back of less than a second, the clock stops until it is right."""
    clocks = SimulatedClocks()
    clock = clocks.clock()
    await clock.measure()
    before = clock()
    clocks.step = timedelta(seconds=-0.5)
    await clock.measure()
    stopped = clock()
    clocks.passed += 0.6

    assert stopped == before
    assert abs(clock() - (clocks.now() + clocks.step)) <= timedelta(milliseconds=2)


async def test_large_step_back_sets_the_clock_back() -> None:
    """After a failover to a member whose clock is behind, the clock is set back to that member's time."""
    clocks = SimulatedClocks()
    clock = clocks.clock()
    await clock.measure()
    before = clock()
    clocks.step = timedelta(minutes=-5)
    await clock.measure()

    assert timedelta() <= clock() - (before + clocks.step) <= timedelta(milliseconds=2)


async def test_offset_beyond_tolerance_is_logged_once_and_its_end_too() -> None:
    """Exceeding the tolerance and returning to it are one line each."""
    clocks = SimulatedClocks()
    clocks.ahead = timedelta(minutes=2)
    clock = clocks.clock()
    with structlog.testing.capture_logs() as lines:
        await clock.measure()
        await clock.measure()
        clocks.ahead = timedelta()
        await clock.measure()

    assert [each["event"] for each in lines] == ["clock_out_of_tolerance", "clock_in_tolerance"]
    assert lines[0]["offset_seconds"] == pytest.approx(120, abs=0.01)
