"""A turnstile lets a few through at a time, in their order, and nobody waits for ever."""

import asyncio

import pytest

from godoty_service.turns import turnstile
from godoty_service.turns.turnstile import Turnstile


async def test_a_burst_goes_through_in_its_order_a_few_at_a_time() -> None:
    """Who comes later waits until somebody leaves; leaving twice counts once; who gives up holds nobody up."""
    gate = Turnstile(3)
    through: list[int] = []
    leaves = [await gate.enter() for _ in range(3)]

    async def turn(number: int) -> None:
        leave = await gate.enter()
        through.append(number)
        leave()

    waiting = [asyncio.create_task(turn(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert through == []
    waiting[1].cancel()
    leaves[0]()
    leaves[0]()
    await asyncio.wait(waiting)

    assert through == [0, 2, 3, 4]
    assert not gate._free.locked()
    leaves[1]()
    for _ in range(2):
        await gate.enter()
    assert gate._free.locked()


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that hangs inside holds the next one up for a while only, and its leaving lets no more in than before."""
    monkeypatch.setattr(turnstile, "_LONGEST", 0.05)
    gate = Turnstile(1)
    leave_first = await gate.enter()
    leave_second = await gate.enter()
    leave_second()
    assert gate._free.locked()
    leave_first()
    assert not gate._free.locked()
