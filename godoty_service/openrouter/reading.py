"""Reads a response in a task of its own.

Strands stands some twenty generators deep when it waits for the next event, and a token that wakes it is handed through
all of them. Text reaches its listener without Strands; so a token wakes this task alone, and Strands hears of the few
events that concern it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator

import httpx2 as httpx
from strands.types.streaming import StreamEvent

from godoty_service.errors import ProviderError, TurnTooLarge
from godoty_service.openrouter import failures
from godoty_service.openrouter.answer import Answer
from godoty_service.openrouter.body import BodyDecoder
from godoty_service.openrouter.bounded_body import UnreadableBody, decoded
from godoty_service.openrouter.chunk import incomplete
from godoty_service.openrouter.metered import OpenCall
from godoty_service.openrouter.sse import EventTooLarge
from godoty_service.openrouter.transport import body_of


class Reading:
    """A response that is being read, from now on."""

    def __init__(self, call: OpenCall, response: httpx.Response, answer: Answer, *, drain_seconds: float) -> None:
        """Begin to read.

        Args:
            call: Hears the generation's id and of the first token.
            response: Its headers are here.
            answer: Takes what comes; what went wrong stands in its `error` afterwards.
            drain_seconds: Seconds that an answer which outgrew its bounds is still read, for its usage and cost.
        """
        self._call = call
        self._response = response
        self._answer = answer
        self._drain_seconds = drain_seconds
        self._deadline: asyncio.Timeout | None = None
        self._arrived: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self._named = self._begun = False  # what the call has heard: it need not be told with each token
        self.first_output_time: float | None = None  # by the monotonic clock
        answer.headers = response.headers
        answer.generation_id = failures.generation_id(response.headers)
        self._hand_on([{"messageStart": {"role": "assistant"}}])
        self._task = asyncio.create_task(self._read())
        self._task.add_done_callback(lambda _: self._arrived.put_nowait(None))

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Tell the answer's events as they come.

        Raises:
            GodotyError: The listener cannot take any more.
        """
        try:
            while (event := await self._arrived.get()) is not None:
                yield event
            await self._task
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Read no more; the connection is given back where the answer has come to its end, else closed."""
        try:
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task])
        finally:
            await self._response.aclose()
        if not self._task.cancelled():
            self._task.exception()  # whoever wanted the events was told

    async def _read(self) -> None:
        answer = self._answer
        try:
            async with asyncio.timeout(None) as self._deadline:
                await self._read_body()
        except TimeoutError:  # it outgrew its bounds, and did not end soon after
            return
        except (httpx.HTTPError, httpx.StreamError, UnreadableBody) as failure:
            if not answer.complete:  # what broke after the last word took nothing away
                answer.error = answer.error or failures.from_exception(failure)
            return
        answer.error = answer.error or _incomplete(answer)

    async def _read_body(self) -> None:
        """Decode the body to its end: as a stream of events or as one document, whatever its content type says."""
        decoder, answer = BodyDecoder(), self._answer

        def take(data: bytes) -> None:
            try:
                pieces = decoder.feed(data)
            except EventTooLarge:
                answer.fail(TurnTooLarge("The provider sent an event that is larger than a message may be."))
                pieces = decoder.feed(b"")
            self._hand_on(answer.read(pieces))

        body = body_of(self._response)
        if body is not None and "content-encoding" not in self._response.headers:
            await body.pour(take)  # httpx's own layers would only hand on
        else:
            async for data in decoded(self._response):
                take(data)
        try:
            self._hand_on((answer.read_whole if decoder.whole else answer.read)(decoder.end()))
        except EventTooLarge:
            answer.fail(TurnTooLarge("The provider sent an answer that is larger than a message may be."))

    def _hand_on(self, events: list[StreamEvent]) -> None:
        """Tell the call what it must know at once, and Strands the events."""
        answer = self._answer
        if answer.generation_id is not None and not self._named:
            self._named = True
            self._call.heard(answer.generation_id)
        if answer.has_output and not self._begun:
            self._begun = True
            self.first_output_time = time.monotonic()
            self._call.first_token()
        if answer.error is not None:
            self._limit()
        for event in events:
            self._arrived.put_nowait(event)

    def _limit(self) -> None:
        """Read an answer that outgrew its bounds only so much longer: its usage may be near."""
        if (
            isinstance(self._answer.error, TurnTooLarge)
            and self._deadline is not None
            and self._deadline.when() is None
        ):
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._drain_seconds)


def _incomplete(answer: Answer) -> ProviderError | None:
    """Return the error of an answer that never said why it ended, and did not end well or said nothing of its usage."""
    if answer.finish_reason is not None or (answer.usage is not None and answer.closed):
        return None
    return incomplete()
