"""Slots of sessions: one holder, a line in order of arrival, and no queue for those that do not wait."""

import asyncio
from contextlib import ExitStack

import pytest

from godoty_service.errors import SessionBusy
from godoty_service.turns.slots import SessionSlots


async def test_slot_that_is_handed_over_is_busy() -> None:
    """Between the end of one holder and the first step of the next, a caller that does not wait is refused."""
    slots = SessionSlots()
    with ExitStack() as stack:
        first = ExitStack()
        first.enter_context(slots.place("tenant", "talk", wait=False))
        place = stack.enter_context(slots.place("tenant", "talk", wait=True))
        waiting = asyncio.ensure_future(place)
        await asyncio.sleep(0)
        assert not waiting.done()
        first.close()
        with pytest.raises(SessionBusy):
            stack.enter_context(slots.place("tenant", "talk", wait=False))
        await waiting


async def test_cancelled_place_passes_the_slot_on() -> None:
    """Whoever leaves the line, at its head or in its middle, does not keep the others from the slot."""
    slots = SessionSlots()
    order: list[int] = []

    async def use(number: int) -> None:
        with slots.place("tenant", "talk", wait=True) as place:
            await place
            order.append(number)
            await asyncio.sleep(0.01)

    users = [asyncio.create_task(use(number)) for number in range(6)]
    await asyncio.sleep(0)
    for number in (0, 3):
        users[number].cancel()
    await asyncio.gather(*users, return_exceptions=True)

    assert order == [0, 1, 2, 4, 5]
    with slots.place("tenant", "talk", wait=False) as place:  # nothing is left of the line
        await place


async def test_slots_of_tenants_do_not_meet() -> None:
    """The same session id of two tenants is two slots."""
    slots = SessionSlots()
    with slots.place("one", "talk", wait=False) as first, slots.place("two", "talk", wait=False) as second:
        await first
        await second
