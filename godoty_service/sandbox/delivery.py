"""Delivery of one generation: its tokens at their pace, its faults where they are due, its bill at the end."""

import asyncio
import time
from collections.abc import AsyncIterator

from godoty_service.sandbox.answer import Piece
from godoty_service.sandbox.beat import Beat
from godoty_service.sandbox.channel import Channel, ConnectionCut
from godoty_service.sandbox.faults import message_of
from godoty_service.sandbox.generation import Generation
from godoty_service.sandbox.holds import Holds
from godoty_service.sandbox.settings import SandboxSettings
from godoty_service.sandbox.usage import shown
from godoty_service.sandbox.wire import COMMENT, DONE, EVENT_STREAM, JSON, Chunks, error_body, whole_body

_BURST = 16  # chunks sent at a stretch when nothing paces a stream; then others get their turn
_BAD_GATEWAY = 502
_DISTURBANCES = ("cut_after", "hang_after", "hold_after", "error_after")


class Delivery:
    """Sends a generation through a channel, streamed or whole as its request wants it."""

    def __init__(self, channel: Channel, generation: Generation, settings: SandboxSettings, holds: Holds) -> None:
        self._channel = channel
        self._generation = generation
        self._scenario = generation.scenario
        self._settings = settings
        self._holds = holds

    async def run(self) -> None:
        """Send it all, or as much as the scenario allows."""
        try:
            await self._send()
        except ConnectionCut:
            await self._cut()

    async def _send(self) -> None:
        generation, streamed = self._generation, bool(self._generation.conversation.body.get("stream"))
        if self._scenario.has("cut_after"):
            self._channel.cut_after = self._scenario.number("cut_after")
            if self._channel.cut_after == 0:
                raise ConnectionCut
        generation.started = True  # the provider is at work: from here on an abort costs something
        headers = {
            "x-generation-id": generation.id,
            "access-control-expose-headers": "X-Generation-Id,X-Provider-Name,cf-ray",
        }
        await self._channel.start(200, EVENT_STREAM if streamed else JSON, headers)
        await (self._stream() if streamed else self._send_whole())

    async def _cut(self) -> None:
        """Close the connection, and bill as the provider does when its client is gone."""
        if self._scenario.text("bill") == "full":
            self._generation.finish()
        elif self._channel.started:
            self._generation.abort()
        await self._channel.cut(reset=self._scenario.flag("rst"))

    async def _stream(self) -> None:
        generation, write = self._generation, self._channel.write
        chunks = Chunks(generation)
        if not self._scenario.has("hang_after"):
            await write(COMMENT * self._scenario.number("comments", self._settings.comments))
        try:
            await self._until_first()
            if self._delay and not any(map(self._scenario.has, _DISTURBANCES)):
                await Beat(self._channel, chunks, generation, self._delay).run()
            else:
                async for piece in self._pieces():
                    await write(chunks.piece(piece))
                    generation.produced += 1
        except _MidError as error:
            await write(chunks.error(error.code, error.message, error.reason, error.usage))
        else:
            usage = shown(generation.finish(), self._scenario)
            shape = self._scenario.text("usage_chunk", self._settings.usage_chunk)
            await write(chunks.finish())
            await write(chunks.usage(usage, shape))
        await self._channel.end(DONE)

    async def _send_whole(self) -> None:
        await self._channel.write(b"\n         \n" * self._scenario.number("whitespace"))
        try:
            await self._until_first()
            async for _ in self._pieces():
                self._generation.produced += 1
        except _MidError as error:
            await self._channel.end(error_body(error.code, error.message))
        else:
            usage = shown(self._generation.finish(), self._scenario)
            await self._channel.end(whole_body(self._generation, usage))

    async def _pieces(self) -> AsyncIterator[Piece]:
        """The tokens at their pace; the scenario's fault strikes where it is due."""
        loop, delay = asyncio.get_running_loop(), self._delay
        due = loop.time()
        for number, piece in enumerate(self._generation.answer.pieces):
            await self._strike()
            if number == 0:
                self._generation.first_token_at = time.monotonic()
            elif delay:
                due += delay  # against a fixed beat, so that a late chunk does not delay the rest
                await asyncio.sleep(due - loop.time())
            elif number % _BURST == 0:
                await asyncio.sleep(0)
            yield piece
        await self._strike()

    async def _until_first(self) -> None:
        """Wait as long as the provider takes to its first token."""
        default = 0 if self._scenario.flag("flat") else self._settings.first_delay_ms
        await asyncio.sleep(self._scenario.number("first_delay_ms", default) / 1000)

    @property
    def _delay(self) -> float:
        """Seconds between two tokens."""
        if rate := self._scenario.number("rate"):
            return 1 / rate
        default = 0 if self._scenario.flag("flat") else self._settings.delay_ms
        return self._scenario.number("delay_ms", default) / 1000

    async def _strike(self) -> None:
        """Hold, hang or fail when so many tokens have been produced."""
        produced, scenario = self._generation.produced, self._scenario
        if scenario.has("hang_after") and produced >= scenario.number("hang_after"):
            await asyncio.Event().wait()  # until the client gives up
        if scenario.has("hold_after") and produced >= scenario.number("hold_after"):
            await self._holds.wait(scenario.text("hold"), produced + 1 - scenario.number("hold_after"))
        if scenario.has("error_after") and produced >= scenario.number("error_after"):
            raise _MidError(self._generation)


class _MidError(Exception):
    """The scenario's error in the middle of an answer; what was produced has been billed."""

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        scenario = generation.scenario
        reason, usage = scenario.text("reason", "error"), generation.fail()
        self.code = scenario.number("code", _BAD_GATEWAY)
        self.message = message_of(self.code, scenario)
        self.reason = None if reason == "null" else reason
        self.usage = shown(usage, scenario) if scenario.text("usage", "1") != "0" else None
