"""Batched operations: each item is processed once and has its own error, even if a wait for it is cancelled."""

import asyncio
from collections.abc import Sequence

import pytest

from godoty_service.aio.batching import Batcher


class RecordedBatches:
    """Records the batches; none of them ends before `released` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.released = asyncio.Event()

    async def run(self, items: Sequence[int]) -> Sequence[BaseException | None]:
        """Fail odd items; 100 fails the whole batch."""
        self.batches.append(list(items))
        await self.released.wait()
        if 100 in items:
            raise OSError("down")
        return [ValueError(str(item)) if item % 2 else None for item in items]


async def test_items_submitted_during_a_batch_share_the_next() -> None:
    """The first item runs at once and alone; the others follow in their order, in batches of at most `max_size`."""
    recorded = RecordedBatches()
    batcher = Batcher(recorded.run, max_size=3)
    submitted = [asyncio.create_task(batcher.submit(2 * number)) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(batcher.submit(20))]
    recorded.released.set()
    await asyncio.gather(*submitted, *later)
    await batcher.submit(30)

    assert [item for batch in recorded.batches for item in batch] == [0, 2, 4, 6, 8, 20, 30]
    assert max(len(batch) for batch in recorded.batches) == 3
    assert recorded.batches[-1] == [30]


async def test_each_submitter_gets_the_error_of_its_item() -> None:
    """A failed item does not fail the others; an exception of the batch is raised to all its submitters."""
    recorded = RecordedBatches()
    recorded.released.set()
    batcher = Batcher(recorded.run, max_size=10)
    found = await asyncio.gather(*(batcher.submit(item) for item in (0, 1, 2, 3)), return_exceptions=True)
    assert [type(each) for each in found] == [type(None), ValueError, type(None), ValueError]

    found = await asyncio.gather(*(batcher.submit(item) for item in (4, 100)), return_exceptions=True)
    assert OSError in {type(each) for each in found}
    await batcher.submit(6)


async def test_cancelled_wait_does_not_withdraw_the_item() -> None:
    """Its write may be under way already; the other items are not delayed."""
    recorded = RecordedBatches()
    batcher = Batcher(recorded.run, max_size=10)
    first, second, third = [asyncio.create_task(batcher.submit(item)) for item in (0, 2, 4)]
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    recorded.released.set()
    await asyncio.gather(first, third)

    with pytest.raises(asyncio.CancelledError):
        await second
    assert [item for batch in recorded.batches for item in batch] == [0, 2, 4]
