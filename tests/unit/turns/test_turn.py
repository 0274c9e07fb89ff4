"""A turn and its readers: the last one who leaves ends it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from godoty_service.turns.events import TextDelta
from godoty_service.turns.turn import Turn, TurnRequest


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


async def test_the_last_reader_who_leaves_cancels_the_turn(turn: Turn) -> None:
    """While somebody reads it goes on."""
    first, second = turn.events(), turn.events()
    turn.log.append(TextDelta("a"))
    await anext(first)
    await anext(second)
    await first.aclose()
    await asyncio.sleep(0.01)
    assert turn.task is not None
    assert not turn.task.done()

    await second.aclose()
    await asyncio.sleep(0.01)
    assert turn.task.cancelled()


@pytest.mark.parametrize("turn", [True], indirect=True)
async def test_a_turn_that_is_to_go_on_does(turn: Turn) -> None:
    """Asked to continue, it does not mind that nobody reads."""
    reader = turn.events()
    turn.log.append(TextDelta("a"))
    await anext(reader)
    await reader.aclose()
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
