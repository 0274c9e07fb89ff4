"""Read pacing: nothing waits while the processor is free; a busy process reads at ticks, a late one at slower ticks."""

import asyncio

from godoty_service.openrouter.read_pacer import ReadPacer


def _pacer(*, streams: int = 20) -> ReadPacer:
    """Return the pacer of a process that reads this number of streams."""
    pace = ReadPacer()
    pace.streams = streams
    return pace


def _interval(pace: ReadPacer, *, busy_share: float = 0.0, delay: float = 0.0, beginning: int = 0) -> float:
    """Return the seconds between two ticks after repeated measurements of this load."""
    for _ in range(20):
        pace._set(busy_share=busy_share, delay=delay, beginning=beginning)
    return pace._interval


def test_free_process_has_no_ticks() -> None:
    """A low load delays nothing, also after a busy time."""
    pace = _pacer()
    assert _interval(pace, busy_share=0.9, delay=0.5) > 0
    assert _interval(pace, busy_share=0.1) == 0


def test_ticks_do_not_end_by_the_load_that_they_save() -> None:
    """They begin at a quarter of one core's time, and end well below it."""
    pace = _pacer()
    assert _interval(pace, busy_share=0.2) == 0
    assert _interval(pace, busy_share=0.3) == 0.02
    assert _interval(pace, busy_share=0.2) == 0.02
    assert _interval(pace, busy_share=0.1) == 0


def test_busy_process_has_fast_ticks_and_late_one_slow_ticks() -> None:
    """Busy: 20 ms. Behind, or with little time left: up to a quarter of a second. Recovered: fast again."""
    pace = _pacer()
    assert _interval(pace, busy_share=0.5) == 0.02
    assert _interval(pace, busy_share=0.5, delay=0.1) == 0.25
    assert _interval(pace, busy_share=0.4) == 0.02
    assert _interval(pace, busy_share=0.9) == 0.25
    assert _interval(pace, busy_share=0.6) == 0.25  # as it is
    assert _interval(pace, busy_share=0.4) == 0.02


def test_few_streams_have_ticks_only_if_the_process_has_no_time_left() -> None:
    """Turns one after the other are not delayed: nothing could be read together."""
    pace = _pacer(streams=7)
    assert _interval(pace, busy_share=0.6) == 0
    assert _interval(pace, busy_share=0.9) > 0


def test_ticks_are_slow_while_many_turns_begin() -> None:
    """Turns that wait for their first token get the time that the others' tokens would take."""
    pace = _pacer()
    assert _interval(pace, busy_share=0.2, beginning=7) == 0
    assert _interval(pace, busy_share=0.2, beginning=8) == 0.1
    assert _interval(pace, busy_share=0.2) == 0.02
    assert _interval(_pacer(streams=7), busy_share=0.2, beginning=8) == 0


async def test_ready_streams_wake_together_at_tick() -> None:
    """The others wait for a later tick; without ticks nothing waits."""
    pace = _pacer()
    await asyncio.wait_for(pace.wait(lambda: False), 180)

    pace._set(busy_share=0.9, delay=0.0, beginning=0)
    ready: set[int] = set()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await pace.wait(lambda: number in ready)
        woken.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(4)]
    await asyncio.sleep(0.05)
    assert woken == []
    ready |= {1, 3}
    await asyncio.wait(tasks[1::2], timeout=180)
    assert woken == [1, 3]
    tasks[0].cancel()  # one that is cancelled does not stop the ticks of the others
    ready.add(2)
    await asyncio.wait_for(tasks[2], 180)
    assert woken == [1, 3, 2]


async def test_end_of_ticks_wakes_all_streams() -> None:
    """A waiting stream continues when the process becomes free, ready or not."""
    pace = _pacer()
    pace._set(busy_share=0.9, delay=0.0, beginning=0)
    waiting = asyncio.create_task(pace.wait(lambda: False))
    await asyncio.sleep(0)
    pace._set(busy_share=0.0, delay=0.0, beginning=0)
    await asyncio.wait_for(waiting, 180)


async def test_ticks_follow_load_of_process() -> None:
    """A loop that works all the time gets ticks, one that sleeps loses them."""
    pace = _pacer()
    running = asyncio.create_task(pace.run(beginning=()))
    loop = asyncio.get_running_loop()
    give_up = loop.time() + 120
    while not pace._interval and loop.time() < give_up:
        sum(range(50_000))
        await asyncio.sleep(0)
    assert pace._interval
    while pace._interval and loop.time() < give_up:
        await asyncio.sleep(0.05)
    assert not pace._interval
    running.cancel()
