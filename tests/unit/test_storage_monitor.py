"""The database counts as unavailable after the timeout, not when one connection was closed."""

import asyncio
import time

import pytest

from godoty_service.errors import StorageUnavailable
from godoty_service.mongo.monitor import StorageMonitor


class Database:
    """Fails pings at once.

    Attributes:
        failing: How many more pings fail.
        pings: How many there were.
    """

    def __init__(self, failing: int) -> None:
        self.failing = failing
        self.pings = 0

    async def ping(self) -> None:
        """Answer a ping."""
        await asyncio.sleep(0)
        self.pings += 1
        if self.pings <= self.failing:
            raise StorageUnavailable("connection closed")


async def test_ping_that_fails_at_once_is_retried() -> None:
    """A closed connection cancels no call: the next ping is answered within the timeout."""
    database = Database(failing=2)

    assert await StorageMonitor(database.ping, timeout=30).probe()
    assert database.pings == 3


async def test_database_that_refuses_every_ping_is_unavailable_after_the_timeout() -> None:
    """It is pinged several times before."""
    database = Database(failing=10**9)

    assert not await StorageMonitor(database.ping, timeout=2).probe()
    assert database.pings > 1


@pytest.mark.parametrize("fails", [False, True])
async def test_database_that_answers_after_a_pause_of_this_process_is_available(*, fails: bool) -> None:
    """The ping's time has passed meanwhile: its answer is read, or it fails and another one is answered."""
    pings = 0

    async def ping() -> None:
        nonlocal pings
        pings += 1
        if pings == 1:
            await asyncio.sleep(0.05)
            time.sleep(1.5)  # noqa: ASYNC251 - the pause
            await asyncio.sleep(0.5)
            if fails:
                raise StorageUnavailable("timed out")

    assert await StorageMonitor(ping, timeout=1).probe()
    assert pings == 1 + fails
