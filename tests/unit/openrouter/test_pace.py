"""The pace: nothing waits while the processor is free; a busy process reads on one beat, a late one on a slower."""

import asyncio

from godoty_service.openrouter.pace import Pace


def _beat(pace: Pace, **seen: float) -> float:
    """What the pace makes of what it has seen, again and again: seconds between two beats."""
    for _ in range(20):
        pace._set(**{"busy_share": 0.0, "delay": 0.0, **seen})
    return pace._pause


def test_a_free_process_has_no_beat() -> None:
    """A little work holds nothing back, also after a busy time."""
    pace = Pace()
    assert _beat(pace, busy_share=0.9, delay=0.5) > 0
    assert _beat(pace, busy_share=0.2) == 0


def test_a_busy_process_has_a_fast_beat_and_a_late_one_a_slow_one() -> None:
    """Busy: 20 ms. Behind, or with little time left: slower, up to a quarter of a second; caught up: fast again."""
    pace = Pace()
    assert _beat(pace, busy_share=0.5) == 0.02
    assert _beat(pace, busy_share=0.5, delay=0.1) == 0.25
    assert _beat(pace, busy_share=0.4) == 0.02
    assert _beat(pace, busy_share=0.9) == 0.25
    assert _beat(pace, busy_share=0.6) == 0.25  # as it is
    assert _beat(pace, busy_share=0.4) == 0.02


async def test_who_rests_is_woken_at_the_beat_when_ready() -> None:
    """All that are ready go on together; the others wait for a later beat; without a beat nobody waits."""
    pace = Pace()
    await asyncio.wait_for(pace.rest(lambda: False), 1)

    pace._set(busy_share=0.9, delay=0.0)
    ready: set[int] = set()
    woken: list[int] = []

    async def rest(number: int) -> None:
        await pace.rest(lambda: number in ready)
        woken.append(number)

    tasks = [asyncio.create_task(rest(number)) for number in range(4)]
    await asyncio.sleep(0.05)
    assert woken == []
    ready |= {1, 3}
    await asyncio.wait(tasks[1::2], timeout=1)
    assert woken == [1, 3]
    tasks[0].cancel()  # one that is cancelled leaves the others their beat
    ready.add(2)
    await asyncio.wait_for(tasks[2], 1)
    assert woken == [1, 3, 2]


async def test_the_end_of_the_beat_lets_all_go() -> None:
    """Who rests while the process becomes free goes on, ready or not."""
    pace = Pace()
    pace._set(busy_share=0.9, delay=0.0)
    resting = asyncio.create_task(pace.rest(lambda: False))
    await asyncio.sleep(0)
    pace._set(busy_share=0.0, delay=0.0)
    await asyncio.wait_for(resting, 1)


async def test_the_beat_is_set_by_what_the_process_does() -> None:
    """A loop that works all the time gets a beat, one that sleeps loses it."""
    pace = Pace()
    running = asyncio.create_task(pace.run())
    loop = asyncio.get_running_loop()
    give_up = loop.time() + 30
    while not pace._pause and loop.time() < give_up:
        sum(range(50_000))
        await asyncio.sleep(0)
    assert pace._pause
    while pace._pause and loop.time() < give_up:
        await asyncio.sleep(0.05)
    assert not pace._pause
    running.cancel()
