"""A turn and its readers: the last one who leaves ends it, unless it goes on or is read in another server."""

import asyncio
from collections.abc import AsyncIterator, Collection

import pytest

from godoty_service.errors import StorageUnavailable
from godoty_service.turns.events import TextDelta
from godoty_service.turns.turn import Turn, TurnRequest
from godoty_service.turns.watch import Watch


@pytest.fixture
async def turn(request: pytest.FixtureRequest) -> AsyncIterator[Turn]:
    """A turn that works until it is cancelled."""
    wanted = TurnRequest(session_id="s", text="t", go_on=getattr(request, "param", False))
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
    """The records of turns, which tell what a test says of readers elsewhere."""

    def __init__(self, answer: set[str] | BaseException | None) -> None:
        self.answer = answer

    async def followed(self, turn_ids: Collection[str]) -> set[str]:
        """Tell which of these turns are read elsewhere; None: never answer."""
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return (self.answer or set()) & set(turn_ids)

    async def to_cancel(self, running: Collection[str]) -> set[str]:
        """Nobody asks for that."""
        return set()


class Replicas:
    """A heartbeat that is in time."""

    def holds(self, epoch: int) -> bool:
        """It is."""
        return True


def watching(answer: set[str] | BaseException | None) -> Watch:
    """Build a watch on records that answer so."""
    return Watch(records=Records(answer), replicas=Replicas())  # type: ignore[arg-type] # stand-ins


async def test_the_last_reader_who_leaves_cancels_the_turn(turn: Turn) -> None:
    """While somebody reads it goes on."""
    watch = watching(set())
    first, second = turn.events(), turn.events()
    turn.log.append(TextDelta("a"))
    await anext(first)
    await anext(second)
    await first.aclose()
    watch.left(turn)
    await asyncio.sleep(0.01)
    assert turn.task is not None
    assert not turn.task.done()

    await second.aclose()
    watch.left(turn)
    await asyncio.sleep(0.01)
    assert turn.task.cancelled()


@pytest.mark.parametrize("turn", [True], indirect=True)
async def test_a_turn_that_is_to_go_on_does(turn: Turn) -> None:
    """Asked to continue, it does not mind that nobody reads."""
    watch = watching(set())
    reader = turn.events()
    turn.log.append(TextDelta("a"))
    await anext(reader)
    await reader.aclose()
    watch.left(turn)
    await watch.look([turn])
    await asyncio.sleep(0.01)

    assert turn.task is not None
    assert not turn.task.done()


async def test_a_reader_elsewhere_counts_as_long_as_his_mark_is_fresh(turn: Turn) -> None:
    """A turn that lost its last reader here goes on for one elsewhere; when he has gone too, a later look ends it."""
    records = Records({"turn"})
    watch = Watch(records=records, replicas=Replicas())  # type: ignore[arg-type] # stand-ins
    watch.left(turn)
    await watch.look([turn])
    await asyncio.sleep(0.01)
    assert turn.task is not None
    assert not turn.task.done()

    records.answer = set()
    await watch.look([turn])
    await asyncio.sleep(0)
    assert turn.task.cancelling()


@pytest.mark.parametrize("answer", [StorageUnavailable("gone"), None], ids=["fails", "hangs"])
async def test_a_turn_ends_where_nobody_can_tell_of_readers_elsewhere(
    turn: Turn, answer: StorageUnavailable | None
) -> None:
    """A database that fails or does not answer keeps no turn running for nobody."""
    watching(answer).left(turn)
    assert turn.task is not None
    async with asyncio.timeout(5):
        await asyncio.wait([turn.task])

    assert turn.task.cancelled()


async def test_a_reader_who_comes_while_somebody_looks_keeps_the_turn(turn: Turn) -> None:
    """Between the last reader's leaving and the answer of the database another one may have come."""
    watching(set()).left(turn)
    turn.log.append(TextDelta("a"))
    reader = turn.events()
    await anext(reader)
    await asyncio.sleep(0.01)

    assert turn.task is not None
    assert not turn.task.done()


async def test_a_turn_is_cancelled_once(turn: Turn) -> None:
    """What it does on its way out is not interrupted by a second cancel."""
    turn.cancel()
    await asyncio.sleep(0)
    turn.cancel()

    assert turn.task is not None
    assert turn.task.cancelling() <= 1
