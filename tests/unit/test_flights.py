"""Writes that leave together: each once, each with its own fault, also where somebody gives up."""

import asyncio
from collections.abc import Sequence

import pytest

from godoty_service.flights import Flights


class Port:
    """Sees the flights off, and lets them land when told to."""

    def __init__(self) -> None:
        self.flights: list[list[int]] = []
        self.cleared = asyncio.Event()

    async def fly(self, items: Sequence[int]) -> Sequence[BaseException | None]:
        """Odd ones come to harm, and a hundred brings all down."""
        self.flights.append(list(items))
        await self.cleared.wait()
        if 100 in items:
            raise OSError("down")
        return [ValueError(str(item)) if item % 2 else None for item in items]


async def test_who_comes_meanwhile_shares_the_next_flight() -> None:
    """The first flies at once and alone; the others together, in their order, as many as it takes."""
    port = Port()
    flights = Flights(port.fly, most=3)
    joining = [asyncio.create_task(flights.join(2 * number)) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(flights.join(20))]
    port.cleared.set()
    await asyncio.gather(*joining, *later)
    await flights.join(30)

    assert [item for flight in port.flights for item in flight] == [0, 2, 4, 6, 8, 20, 30]
    assert max(len(flight) for flight in port.flights) == 3
    assert port.flights[-1] == [30]


async def test_each_is_told_what_went_wrong_for_it() -> None:
    """One that comes to harm takes nobody with it; what brings the flight down is told to all in it."""
    port = Port()
    port.cleared.set()
    flights = Flights(port.fly, most=10)
    found = await asyncio.gather(*(flights.join(item) for item in (0, 1, 2, 3)), return_exceptions=True)
    assert [type(each) for each in found] == [type(None), ValueError, type(None), ValueError]

    found = await asyncio.gather(*(flights.join(item) for item in (4, 100)), return_exceptions=True)
    assert OSError in {type(each) for each in found}
    await flights.join(6)


async def test_one_that_gives_up_flies_all_the_same() -> None:
    """Its write may be on its way already; nobody else is held up."""
    port = Port()
    flights = Flights(port.fly, most=10)
    first, second, third = [asyncio.create_task(flights.join(item)) for item in (0, 2, 4)]
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    port.cleared.set()
    await asyncio.gather(first, third)

    with pytest.raises(asyncio.CancelledError):
        await second
    assert [item for flight in port.flights for item in flight] == [0, 2, 4]
