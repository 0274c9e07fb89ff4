"""Reads a response in a task of its own.

Strands stands some twenty generators deep when it waits for the next event, and a token that wakes it is handed through
all of them. Text reaches its listener without Strands; so a token wakes this task alone, and Strands hears of the few
events that concern it.
"""

import asyncio
from collections.abc import AsyncGenerator

import httpx2 as httpx
from strands.types.streaming import StreamEvent

from godoty_service.errors import ProviderError, ProviderUnavailable
from godoty_service.openrouter import failures
from godoty_service.openrouter.answer import Answer, parse_chunk
from godoty_service.openrouter.metered import OpenCall
from godoty_service.openrouter.responses import as_chat
from godoty_service.openrouter.sse import EventDecoder, EventTooLarge
from godoty_service.openrouter.transport import body_of


class Reading:
    """A response that is being read, from now on."""

    def __init__(self, call: OpenCall, response: httpx.Response, answer: Answer) -> None:
        """Begin to read.

        Args:
            call: Hears the generation's id and of the first token.
            response: Its headers are here.
            answer: Takes what comes; what went wrong stands in its `error` afterwards.
        """
        self._call = call
        self._response = response
        self._answer = answer
        self._arrived: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self._named = self._begun = False  # what the call has heard: it need not be told with each token
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
        response, answer = self._response, self._answer
        try:
            if "text/event-stream" in response.headers.get("content-type", ""):
                await self._read_stream()
            else:
                await self._read_whole()
            answer.error = answer.error or _incomplete(answer)
        except ProviderError as failure:
            answer.error = answer.error or failure
        except EventTooLarge:
            answer.error = answer.error or ProviderUnavailable(
                "The provider sent what cannot be read.", metadata={"provider_code": "malformed"}
            )
        except (httpx.HTTPError, httpx.StreamError) as failure:
            if not answer.complete:  # what broke after the last word took nothing away
                answer.error = answer.error or failures.from_exception(failure)

    async def _read_stream(self) -> None:
        decoder, answer = EventDecoder(), self._answer

        def take(data: bytes) -> None:
            self._hand_on(answer.read(decoder.feed(data)))

        body = body_of(self._response)
        if body is not None and "content-encoding" not in self._response.headers:
            await body.pour(take)  # httpx's own layers would only hand on
        else:
            async for data in self._response.aiter_bytes():
                take(data)
        self._hand_on(answer.read(decoder.end()))

    async def _read_whole(self) -> None:
        response = self._response
        body = as_chat(parse_chunk(await response.aread()))
        if "choices" not in body and not body.get("error"):
            raise failures.from_body(response.status_code, body, response.headers)
        self._hand_on(self._answer.take([body]))

    def _hand_on(self, events: list[StreamEvent]) -> None:
        """Tell the call what it must know at once, and Strands the events."""
        answer = self._answer
        if answer.generation_id is not None and not self._named:
            self._named = True
            self._call.heard(answer.generation_id)
        if answer.has_output and not self._begun:
            self._begun = True
            self._call.first_token()
        for event in events:
            self._arrived.put_nowait(event)


def _incomplete(answer: Answer) -> ProviderError | None:
    """Tell an answer that broke off: its stream ended well, but it never said why it ended."""
    if answer.finish_reason is not None or answer.usage is not None:
        return None
    return ProviderUnavailable("The provider's answer broke off.", metadata={"provider_code": "incomplete"})
