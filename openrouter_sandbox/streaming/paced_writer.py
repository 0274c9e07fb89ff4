"""Writes the chunks of a stream without faults at fixed intervals."""

import asyncio

from openrouter_sandbox.billing.generation import Generation
from openrouter_sandbox.streaming.chunk_encoder import ChunkEncoder
from openrouter_sandbox.streaming.client_connection import ClientConnection

_SLOW_CLIENT_SECONDS = 0.005  # interval between write attempts while the client's buffer is full


class PacedWriter:
    """Writes a generation's chunks from one timer: a task that sleeps between chunks costs twice as much CPU time.

    Args:
        connection: The client's connection.
        chunks: The encoder.
        generation: The generation; its `produced_tokens` counts the chunks written.
        delay: Seconds between chunks, on a fixed schedule: a late chunk does not delay the following ones.
    """

    def __init__(
        self, connection: ClientConnection, chunks: ChunkEncoder, generation: Generation, delay: float
    ) -> None:
        self._connection = connection
        self._chunks = chunks
        self._generation = generation
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._start = 0.0

    async def run(self) -> None:
        """Write all chunks, the first one immediately."""
        self._start = self._generation.first_token_at = self._loop.time()
        self._write_due()
        try:
            await self._done
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _write_due(self) -> None:
        """Write the chunks that are due and schedule the next one."""
        generation, pieces = self._generation, self._generation.answer.pieces
        now, writable = self._loop.time(), True
        while generation.produced_tokens < len(pieces) and self._next_due() <= now and writable:
            writable = self._connection.write_nowait(self._chunks.piece(pieces[generation.produced_tokens]))
            generation.produced_tokens += 1
        if generation.produced_tokens < len(pieces):
            next_write = self._next_due() if writable else now + _SLOW_CLIENT_SECONDS
            self._timer = self._loop.call_at(next_write, self._write_due)
        elif not self._done.done():
            self._done.set_result(None)

    def _next_due(self) -> float:
        return self._start + self._generation.produced_tokens * self._delay
