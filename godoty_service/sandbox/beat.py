"""A beat: the chunks of a stream that nothing disturbs, each written at its time."""

import asyncio

from godoty_service.sandbox.channel import Channel
from godoty_service.sandbox.generation import Generation
from godoty_service.sandbox.wire import Chunks

_SLOW_CLIENT_SECONDS = 0.005  # until the next look at a client that does not keep up


class Beat:
    """Writes a generation's chunks by one timer: a task that sleeps between two of them costs twice as much.

    Args:
        channel: Where they go.
        chunks: Their wire format.
        generation: What they say; `produced` counts them as they are written.
        delay: Seconds between two chunks, against a fixed beat: a late one does not delay the rest.
    """

    def __init__(self, channel: Channel, chunks: Chunks, generation: Generation, delay: float) -> None:
        self._channel = channel
        self._chunks = chunks
        self._generation = generation
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._start = 0.0

    async def run(self) -> None:
        """Write them all; the first one now."""
        self._start = self._generation.first_token_at = self._loop.time()
        self._tick()
        try:
            await self._done
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _tick(self) -> None:
        """Write what is due."""
        generation, pieces = self._generation, self._generation.answer.pieces
        now, keeps_up = self._loop.time(), True
        while generation.produced < len(pieces) and self._due() <= now and keeps_up:
            keeps_up = self._channel.put(self._chunks.piece(pieces[generation.produced]))
            generation.produced += 1
        if generation.produced < len(pieces):
            again = self._due() if keeps_up else now + _SLOW_CLIENT_SECONDS
            self._timer = self._loop.call_at(again, self._tick)
        elif not self._done.done():
            self._done.set_result(None)

    def _due(self) -> float:
        return self._start + self._generation.produced * self._delay
