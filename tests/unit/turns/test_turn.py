"""A turn and its readers: it ends with the last one, unless it is to continue or another server has a reader."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import timedelta
from typing import Any

import pytest

from godoty_service.errors import StorageUnavailable
from godoty_service.turns.cancellation import TurnMonitor
from godoty_service.turns.event_log.events import TextDelta
from godoty_service.turns.turn import Turn, TurnRequest

GRACE = timedelta(seconds=60)
has_grace = pytest.mark.parametrize("turn", [{"disconnect_grace": GRACE}], indirect=True)


@pytest.fixture
async def turn(request: pytest.FixtureRequest) -> AsyncIterator[Turn]:
    """Yield a turn that runs until it is cancelled."""
    fields: dict[str, Any] = getattr(request, "param", {})
    wanted = TurnRequest(session_id="s", text="t", **fields)
    running = Turn(tenant_id="tenant", turn_id="turn", request=wanted, epoch=0)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            running.log.end()

    running.task = asyncio.create_task(work())
    await asyncio.sleep(0)
    yield running
    running.task.cancel()


class Records:
    """Turn records with the remote readers that a test sets."""

    def __init__(self, answer: set[str] | BaseException | None) -> None:
        self.answer = answer
        self.delay = 0.0  # seconds

    async def with_remote_reader(self, graces: Mapping[str, timedelta]) -> set[str]:
        """Return the turns with a remote reader; None: never answer."""
        await asyncio.sleep(self.delay)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return (self.answer or set()) & graces.keys()

    async def to_cancel(self, running: Collection[str]) -> set[str]:
        """Return no cancel requests."""
        return set()


class Replicas:
    """A valid heartbeat."""

    def lease_valid(self, epoch: int) -> bool:
        """Return True."""
        return True


def monitor_with(answer: set[str] | BaseException | None) -> TurnMonitor:
    """Build a monitor with the given answer of the turn store."""
    return TurnMonitor(turn_store=Records(answer), replicas=Replicas())  # type: ignore[arg-type] # stand-ins


async def test_loss_of_last_reader_cancels_turn(turn: Turn) -> None:
    """It runs while it has a reader."""
    monitor = monitor_with(set())
    first, second = turn.events(), turn.events()
    turn.log.append(TextDelta("a"))
    await anext(first)
    await anext(second)
    await first.aclose()
    monitor.on_reader_left(turn)
    await asyncio.sleep(0.01)
    assert turn.task is not None
    assert not turn.task.done()

    await second.aclose()
    monitor.on_reader_left(turn)
    await asyncio.wait([turn.task], timeout=180)
    assert turn.task.cancelled()


@pytest.mark.parametrize("turn", [{"go_on": True}, {"go_on": True, "disconnect_grace": GRACE}], indirect=True)
async def test_continuing_turn_runs_without_readers(turn: Turn) -> None:
    """A turn that is to continue runs without readers."""
    monitor = monitor_with(set())
    reader = turn.events()
    turn.log.append(TextDelta("a"))
    await anext(reader)
    await reader.aclose()
    monitor.on_reader_left(turn)
    await monitor.check([turn])
    await asyncio.sleep(0.01)

    assert turn.task is not None
    assert not turn.task.done()


async def test_remote_reader_counts_while_its_mark_is_valid(turn: Turn) -> None:
    """A turn without a reader here runs while a remote reader's mark is valid; a later check ends it."""
    records = Records({"turn"})
    monitor = TurnMonitor(turn_store=records, replicas=Replicas())  # type: ignore[arg-type] # stand-ins
    monitor.on_reader_left(turn)
    await monitor.check([turn])
    await asyncio.sleep(0.01)
    assert turn.task is not None
    assert not turn.task.done()

    records.answer = set()
    await monitor.check([turn])
    await asyncio.sleep(0)
    assert turn.task.cancelling()


async def test_slow_database_does_not_end_turn_with_remote_reader(turn: Turn) -> None:
    """The read of its mark takes half a second: the turn runs on, whether its reader here left or it is checked."""
    records = Records({"turn"})
    records.delay = 0.5
    monitor = TurnMonitor(turn_store=records, replicas=Replicas())  # type: ignore[arg-type] # stand-ins
    monitor.on_reader_left(turn)
    await monitor.check([turn])
    await asyncio.sleep(0.1)

    assert turn.task is not None
    assert not turn.task.done()
    assert not turn.task.cancelling()


@pytest.mark.parametrize("answer", [StorageUnavailable("gone"), None], ids=["fails", "hangs"])
async def test_unread_turn_ends_if_remote_readers_are_unknown(turn: Turn, answer: StorageUnavailable | None) -> None:
    """A database that fails or does not answer keeps no turn running without readers."""
    monitor_with(answer).on_reader_left(turn)
    assert turn.task is not None
    async with asyncio.timeout(180):
        await asyncio.wait([turn.task])

    assert turn.task.cancelled()


async def test_reader_that_arrives_during_check_keeps_turn_running(turn: Turn) -> None:
    """Between the loss of the last reader and the database's answer another reader may have come."""
    monitor_with(set()).on_reader_left(turn)
    turn.log.append(TextDelta("a"))
    reader = turn.events()
    await anext(reader)
    await asyncio.sleep(0.01)

    assert turn.task is not None
    assert not turn.task.done()


@has_grace
async def test_turn_runs_for_its_grace_without_reader(turn: Turn) -> None:
    """It is cancelled by the first check after that, and not before; a reader that comes back begins it anew."""
    monitor = monitor_with(set())
    assert turn.task is not None
    for _ in range(2):
        reader = turn.events()
        turn.log.append(TextDelta("a"))
        await anext(reader)
        turn.log.left_at -= GRACE.total_seconds()  # a time at which another reader has left
        await monitor.check([turn])
        await reader.aclose()
        monitor.on_reader_left(turn)
        await monitor.check([turn])
        await asyncio.sleep(0.01)
        assert not turn.task.done()

    turn.log.left_at -= GRACE.total_seconds()
    await monitor.check([turn])
    await asyncio.sleep(0)
    assert turn.task.cancelling()


@has_grace
@pytest.mark.parametrize("answer", [StorageUnavailable("gone"), None], ids=["fails", "hangs"])
async def test_turn_with_grace_runs_while_remote_readers_are_unknown(
    turn: Turn, answer: StorageUnavailable | None
) -> None:
    """Its reader may have come back on another server; once the server stops, that is not considered any more."""
    turn.log.left_at -= GRACE.total_seconds()
    monitor = monitor_with(answer)
    await monitor.check([turn])
    await asyncio.sleep(0.01)
    assert turn.task is not None
    assert not turn.task.done()

    turn.grace = timedelta()
    await monitor.check([turn])
    await asyncio.sleep(0)
    assert turn.task.cancelling()


async def test_turn_is_cancelled_once(turn: Turn) -> None:
    """Its cleanup is not interrupted by a second cancel."""
    turn.cancel()
    await asyncio.sleep(0)
    turn.cancel()

    assert turn.task is not None
    assert turn.task.cancelling() <= 1
