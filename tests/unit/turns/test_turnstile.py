"""A turnstile lets a few through at a time, in their order, and nobody waits for ever."""

import asyncio
from contextlib import suppress

import pytest

from godoty_service.turns import turnstile
from godoty_service.turns.turnstile import Turnstile


async def is_free(gate: Turnstile) -> bool:
    """Whether somebody gets in at once; he stays."""
    entering = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    entering.cancel()
    with suppress(asyncio.CancelledError):
        await entering
    return not entering.cancelled()


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
    leaves[1]()
    for _ in range(2):
        assert await is_free(gate)
    assert not await is_free(gate)


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that hangs inside holds the next one up for a while only, and its leaving lets no more in than before."""
    monkeypatch.setattr(turnstile, "_LONGEST", 0.05)
    gate = Turnstile(1)
    leave_first = await gate.enter()
    leave_second = await gate.enter()
    leave_second()
    assert not await is_free(gate)
    leave_first()
    assert await is_free(gate)


async def test_what_comes_first_leaves_one_place_behind_it() -> None:
    """While somebody is before the first turnstile, one at a time goes through the one behind; then as many as may."""
    first = Turnstile(1)
    behind = Turnstile(3, behind=first)
    leave_first = await first.enter()
    leave_behind = await behind.enter()
    assert not await is_free(behind)

    waiting = [asyncio.create_task(behind.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    leave_behind()
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, False, False]
    leave_first()
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, True, True]


async def test_one_who_is_let_in_and_cancelled_at_once_has_left() -> None:
    """His place is free again."""
    gate = Turnstile(1)
    leave = await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    leave()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert await is_free(gate)
