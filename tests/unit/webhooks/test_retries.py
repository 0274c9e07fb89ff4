"""Failed deliveries are attempted again with growing pauses, and for the last time at the end of the window."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from godoty_service.webhooks.dispatch.retries import RetrySchedule

START = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = RetrySchedule(first=timedelta(seconds=5), window=timedelta(days=1))


def test_attempts_of_a_day_spread_over_it() -> None:
    """About a dozen: soon at first, then hours apart; the last one is at the end of the day, and none follows."""
    times, now, attempts = [START], START, 1
    while (due := DAY.next_time(attempts=attempts, now=now, deadline=START + DAY.window)) is not None:
        times.append(due)
        now, attempts = due, attempts + 1

    pauses = [(after - before).total_seconds() for before, after in pairwise(times)]
    assert 10 <= len(times) <= 16
    assert 4 <= pauses[0] <= 6
    assert 16 <= pauses[1] <= 24
    assert max(pauses) <= 4 * 3600 * 1.2
    assert times[-1] == START + DAY.window


def test_pauses_differ_by_chance() -> None:
    """So that what failed together is not attempted together."""
    assert len({DAY.pause(3) for _ in range(20)}) > 1


def test_endpoint_that_fails_is_probed_once_a_minute() -> None:
    """It has no pause before the first failure, and never a longer one."""
    pauses = [DAY.endpoint_pause(failures).total_seconds() for failures in (0, 1, 2, 10, 10**6)]

    assert pauses == [0, 5, 10, 60, 60]
