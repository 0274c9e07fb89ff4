"""Reads a response in a task of its own.

When Strands waits for the next event, some twenty generators are suspended, and a token that wakes it passes through
all of them. Text reaches the listener without Strands; so a token wakes this task alone, and Strands receives the few
events that concern it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator

import httpx2 as httpx
from strands.types.streaming import StreamEvent

from godoty_service.errors import ProviderError, TurnTooLarge
from godoty_service.openrouter import errors
from godoty_service.openrouter.call_recorder import OpenCall
from godoty_service.openrouter.decoding.chunk import incomplete_error
from godoty_service.openrouter.decoding.sse import BodyDecoder, EventTooLarge
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from godoty_service.openrouter.transport import UnreadableBody, body_of, decoded

_ID_DELAY = 0.005  # seconds for which the write of a generation's id waits for the first data: it would delay that


class ResponseReader:
    """A response that is being read; reading starts at construction."""

    def __init__(
        self, call: OpenCall, response: httpx.Response, decoder: StreamDecoder, *, drain_seconds: float
    ) -> None:
        """Start to read.

        Args:
            call: Records the generation's id and the time of the first token.
            response: Its headers have arrived.
            decoder: Decodes the answer; its `error` is set if the answer failed.
            drain_seconds: Seconds for which an answer beyond its bounds is still read, for its usage and cost.
        """
        self._call = call
        self._response = response
        self._decoder = decoder
        self._drain_seconds = drain_seconds
        self._deadline: asyncio.Timeout | None = None
        self._events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self._id_recorded = self._first_token_recorded = False  # so that no later token repeats it
        self.first_output_time: float | None = None  # by the monotonic clock
        decoder.headers = response.headers
        decoder.generation_id = errors.generation_id(response.headers)
        self._events.put_nowait({"messageStart": {"role": "assistant"}})
        self._id_timer = asyncio.get_running_loop().call_later(_ID_DELAY, self._record_id)
        self._task = asyncio.create_task(self._read())
        self._task.add_done_callback(lambda _: self._events.put_nowait(None))

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer's events as they arrive.

        Raises:
            GodotyError: The listener rejected the answer.
        """
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await self._task
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop reading; release the connection if the answer has ended, else close it."""
        self._record_id()
        self._id_timer.cancel()
        try:
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task])
        finally:
            await self._response.aclose()
        if not self._task.cancelled():
            self._task.exception()  # mark it as retrieved: `events` raises it to its caller

    async def _read(self) -> None:
        decoder = self._decoder
        try:
            async with asyncio.timeout(None) as self._deadline:
                await self._read_body()
        except TimeoutError:  # the answer is beyond its bounds, and did not end soon after
            return
        except (httpx.HTTPError, httpx.StreamError, UnreadableBody) as failure:
            if not decoder.complete:  # a break after the complete answer loses nothing
                decoder.error = decoder.error or errors.from_exception(failure)
            return
        decoder.error = decoder.error or _error_of_end(decoder)

    async def _read_body(self) -> None:
        """Decode the body to its end: as a stream of events or as one document, with any content type."""
        body_decoder, decoder = BodyDecoder(), self._decoder

        def feed(data: bytes) -> None:
            try:
                pieces = body_decoder.feed(data)
            except EventTooLarge:
                decoder.fail(TurnTooLarge("The provider sent an event that is larger than a message may be."))
                pieces = body_decoder.feed(b"")
            self._forward(decoder.read(pieces))

        body = body_of(self._response)
        if body is not None and "content-encoding" not in self._response.headers:
            await body.read_into(feed)  # httpx's own layers would add nothing
        else:
            async for data in decoded(self._response):
                feed(data)
        try:
            self._forward((decoder.read_whole if body_decoder.whole else decoder.read)(body_decoder.end()))
        except EventTooLarge:
            decoder.fail(TurnTooLarge("The provider sent an answer that is larger than a message may be."))

    def _forward(self, events: list[StreamEvent]) -> None:
        """Record on the call what it must know at once, and queue the events for Strands."""
        decoder = self._decoder
        self._record_id()
        if decoder.has_output and not self._first_token_recorded:
            self._first_token_recorded = True
            self.first_output_time = time.monotonic()
            self._call.first_token()
        if decoder.error is not None:
            self._limit_drain()
        for event in events:
            self._events.put_nowait(event)

    def _record_id(self) -> None:
        if self._decoder.generation_id is not None and not self._id_recorded:
            self._id_recorded = True
            self._call.set_generation_id(self._decoder.generation_id)

    def _limit_drain(self) -> None:
        """Set the deadline of an answer beyond its bounds: its usage may still arrive."""
        if (
            isinstance(self._decoder.error, TurnTooLarge)
            and self._deadline is not None
            and self._deadline.when() is None
        ):
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._drain_seconds)


def _error_of_end(decoder: StreamDecoder) -> ProviderError | None:
    """Return the error of an answer that ended without a finish reason, unless it had usage and a proper end."""
    if decoder.finish_reason is not None or (decoder.usage is not None and decoder.closed):
        return None
    return incomplete_error()
