"""Sends one generation: tokens at the configured pace, injected faults, and the bill at the end."""

import asyncio
import time
from collections.abc import AsyncIterator

from openrouter_sandbox.answers.answer import Piece
from openrouter_sandbox.billing.generation import Generation
from openrouter_sandbox.billing.usage import visible_usage
from openrouter_sandbox.scenarios.holds import Holds
from openrouter_sandbox.settings import SandboxSettings
from openrouter_sandbox.streaming.chunk_encoder import (
    COMMENT,
    DONE,
    EVENT_STREAM,
    JSON,
    ChunkEncoder,
    error_body,
    unstreamed_body,
)
from openrouter_sandbox.streaming.client_connection import ClientConnection, ConnectionCut
from openrouter_sandbox.streaming.error_responses import error_message
from openrouter_sandbox.streaming.paced_writer import PacedWriter

_BURST = 16  # chunks of an unpaced stream between two yields to the event loop
_BAD_GATEWAY = 502
_MID_STREAM_PARAMETERS = ("cut_after", "hang_after", "hold_after", "error_after")


class ResponseStreamer:
    """Sends a generation to a client, with or without streaming as its request selects."""

    def __init__(
        self, connection: ClientConnection, generation: Generation, settings: SandboxSettings, holds: Holds
    ) -> None:
        self._connection = connection
        self._generation = generation
        self._scenario = generation.scenario
        self._settings = settings
        self._holds = holds

    async def run(self) -> None:
        """Send the response, up to the byte at which the scenario closes the connection."""
        try:
            await self._send()
        except ConnectionCut:
            await self._cut_connection()

    async def _send(self) -> None:
        generation, streamed = self._generation, bool(self._generation.conversation.body.get("stream"))
        if self._scenario.has("cut_after"):
            self._connection.cut_after = self._scenario.number("cut_after")
            if self._connection.cut_after == 0:
                raise ConnectionCut
        generation.started = True  # the provider has started: an abort is billed from here on
        headers = {
            "x-generation-id": generation.id,
            "access-control-expose-headers": "X-Generation-Id,X-Provider-Name,cf-ray",
        }
        await self._connection.start(200, EVENT_STREAM if streamed else JSON, headers)
        await (self._stream() if streamed else self._send_unstreamed())

    async def _cut_connection(self) -> None:
        """Close the connection and bill the generation as aborted, or in full with `bill=full`."""
        if self._scenario.text("bill") == "full":
            self._generation.finish()
        elif self._connection.started:
            self._generation.abort()
        await self._connection.cut(reset=self._scenario.flag("rst"))

    async def _stream(self) -> None:
        generation, write = self._generation, self._connection.write
        chunks = ChunkEncoder(generation)
        if not self._scenario.has("hang_after"):
            await write(COMMENT * self._scenario.number("comments", self._settings.comments))
        try:
            await self._wait_first_token()
            if generation.server_tools.annotations:
                await write(chunks.annotations())
            if self._delay and not any(map(self._scenario.has, _MID_STREAM_PARAMETERS)):
                await PacedWriter(self._connection, chunks, generation, self._delay).run()
            else:
                async for piece in self._pieces():
                    await write(chunks.piece(piece))
                    generation.produced_tokens += 1
        except _MidStreamError as error:
            await write(chunks.error(error.code, error.message, error.reason, error.usage))
        else:
            usage = visible_usage(generation.finish(), self._scenario)
            shape = self._scenario.text("usage_chunk", self._settings.usage_chunk)
            await write(chunks.finish())
            await write(chunks.usage(usage, shape))
        await self._connection.end(DONE)

    async def _send_unstreamed(self) -> None:
        await self._connection.write(b"\n         \n" * self._scenario.number("whitespace"))
        try:
            await self._wait_first_token()
            async for _ in self._pieces():
                self._generation.produced_tokens += 1
        except _MidStreamError as error:
            await self._connection.end(error_body(error.code, error.message))
        else:
            usage = visible_usage(self._generation.finish(), self._scenario)
            await self._connection.end(unstreamed_body(self._generation, usage))

    async def _pieces(self) -> AsyncIterator[Piece]:
        """Yield the tokens at the configured pace, and apply the scenario's faults."""
        loop, delay = asyncio.get_running_loop(), self._delay
        due = loop.time()
        for number, piece in enumerate(self._generation.answer.pieces):
            await self._apply_faults()
            if number == 0:
                self._generation.first_token_at = time.monotonic()
            elif delay:
                due += delay  # a fixed schedule: a late chunk does not delay the following ones
                await asyncio.sleep(due - loop.time())
            elif number % _BURST == 0:
                await asyncio.sleep(0)
            yield piece
        await self._apply_faults()

    async def _wait_first_token(self) -> None:
        """Wait for the configured time to the first token."""
        default = 0 if self._scenario.flag("flat") else self._settings.first_delay_ms
        await asyncio.sleep(self._scenario.number("first_delay_ms", default) / 1000)

    @property
    def _delay(self) -> float:
        """Seconds between tokens."""
        if rate := self._scenario.number("rate"):
            return 1 / rate
        default = 0 if self._scenario.flag("flat") else self._settings.delay_ms
        return self._scenario.number("delay_ms", default) / 1000

    async def _apply_faults(self) -> None:
        """Hang, pause or fail if the scenario's number of tokens has been produced."""
        produced, scenario = self._generation.produced_tokens, self._scenario
        if scenario.has("hang_after") and produced >= scenario.number("hang_after"):
            await asyncio.Event().wait()  # until the client disconnects
        if scenario.has("hold_after") and produced >= scenario.number("hold_after"):
            await self._holds.wait(scenario.text("hold"), produced + 1 - scenario.number("hold_after"))
        if scenario.has("error_after") and produced >= scenario.number("error_after"):
            raise _MidStreamError(self._generation)


class _MidStreamError(Exception):
    """The scenario's mid-stream error; creating it bills the tokens produced so far."""

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        scenario = generation.scenario
        reason, usage = scenario.text("reason", "error"), generation.fail()
        self.code = scenario.number("code", _BAD_GATEWAY)
        self.message = error_message(self.code, scenario)
        self.reason = None if reason == "null" else reason
        self.usage = visible_usage(usage, scenario) if scenario.text("usage", "1") != "0" else None
