"""Reads a response in a task of its own.

Strands stands some twenty generators deep when it waits for the next event, and a token that wakes it is handed through
all of them. Text reaches its listener without Strands; so a token wakes this task alone, and Strands hears of the few
events that concern it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import httpx2 as httpx
from strands.types.streaming import StreamEvent

from godoty_service.errors import ProviderError, ProviderUnavailable
from godoty_service.openrouter import failures
from godoty_service.openrouter.answer import Answer, parse_chunk
from godoty_service.openrouter.metered import OpenCall
from godoty_service.openrouter.responses import as_chat
from godoty_service.openrouter.sse import EventDecoder, EventTooLarge


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
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            await self._response.aclose()
        if not self._task.cancelled():
            self._task.exception()  # whoever wanted the events was told

    async def _read(self) -> None:
        call, answer = self._call, self._answer
        try:
            answer.headers = self._response.headers
            if found := failures.generation_id(self._response.headers):
                answer.generation_id = found
                call.heard(found)
            self._arrived.put_nowait({"messageStart": {"role": "assistant"}})
            async for events in _steps(self._response, answer):
                if answer.generation_id is not None:
                    call.heard(answer.generation_id)
                if answer.has_output:
                    call.first_token()
                for event in events:
                    self._arrived.put_nowait(event)
            answer.error = answer.error or _incomplete(answer)
        except ProviderError as failure:
            answer.error = answer.error or failure
        except (httpx.HTTPError, httpx.StreamError) as failure:
            if not answer.complete:  # what broke after the last word took nothing away
                answer.error = answer.error or failures.from_exception(failure)


async def _steps(response: httpx.Response, answer: Answer) -> AsyncIterator[list[StreamEvent]]:
    """Read a response to its end: what comes of each network read.

    Raises:
        ProviderError: The body is neither an answer nor an error.
    """
    if "text/event-stream" not in response.headers.get("content-type", ""):
        body = as_chat(parse_chunk(await response.aread()))
        if "choices" not in body and not body.get("error"):
            raise failures.from_body(response.status_code, body, response.headers)
        yield answer.take([body])
        return
    decoder = EventDecoder()
    try:
        # Where nothing is to be unpacked, httpx's own layers only hand on.
        packed = "content-encoding" in response.headers
        async for data in response.aiter_bytes() if packed else cast("httpx.AsyncByteStream", response.stream):
            yield answer.read(each for each in decoder.feed(data) if each != b"[DONE]")
    except EventTooLarge as error:
        raise ProviderUnavailable(
            "The provider sent what cannot be read.", metadata={"provider_code": "malformed"}
        ) from error
    yield answer.read(each for each in decoder.end() if each != b"[DONE]")


def _incomplete(answer: Answer) -> ProviderError | None:
    """Tell an answer that broke off: its stream ended well, but it never said why it ended."""
    if answer.finish_reason is not None or answer.usage is not None:
        return None
    return ProviderUnavailable("The provider's answer broke off.", metadata={"provider_code": "incomplete"})
