"""A response is read in a task of its own: what it has told counts on every way out, and nothing is read after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from godoty_service.errors import TurnTooLarge
from godoty_service.openrouter.client import open_client
from godoty_service.openrouter.model import LISTENER, OpenRouterModel
from godoty_service.openrouter.pace import Pace

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"x-generation-id: gen-1\r\ntransfer-encoding: chunked\r\n\r\n"
)
TEXT = b'data: {"id": "gen-1", "model": "a/b", "choices": [{"delta": {"content": "Hello"}}]}\n\n'
USAGE = b'data: {"id": "gen-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "cost": 0.25}}\n\n'


class Call:
    """A call that notes what it is told."""

    output_limit: int | None = None
    clamped = False

    def __init__(self) -> None:
        self.told: list[str] = []
        self.usage: dict[str, Any] | None = None
        self.sent = False

    def sending(self) -> None:
        """Note that the request leaves."""
        self.sent = True

    def heard(self, generation_id: str) -> None:
        """Note the id."""
        self.told.append(generation_id)

    def first_token(self) -> None:
        """Note the first token."""
        self.told.append("first token")

    async def answered(self, *, usage: dict[str, Any] | None, **_: Any) -> str:
        """Note how it ended."""
        self.told.append("answered")
        self.usage = usage
        return "entry"


class Listener:
    """Hears the answer.

    Args:
        full: Cannot take a word.
    """

    def __init__(self, *, full: bool = False) -> None:
        self.heard = asyncio.Event()
        self.words: list[str] = []
        self._full = full

    def asking(self) -> None:
        """Hear that the request leaves."""

    def text(self, piece: str) -> None:
        """Hear some text."""
        if self._full:
            raise TurnTooLarge("full")
        self.words.append(piece)
        self.heard.set()


@asynccontextmanager
async def provider(*pieces: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A provider that sends some pieces at once, then one word a hundredth of a second, and ends no answer."""
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + chunked(b"".join(pieces)))
        with suppress(ConnectionError):
            while not writer.is_closing():
                await writer.drain()
                await asyncio.sleep(0.01)
                writer.write(chunked(TEXT))
        gone.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", gone


def chunked(data: bytes) -> bytes:
    """A chunk of a body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def turn(url: str, call: Call, listener: Listener) -> AsyncIterator[tuple[OpenRouterModel, asyncio.Task[None]]]:
    """A model that is asked, and who reads its stream."""

    class Meter:
        async def open(self, **_: Any) -> Call:
            return call

    client = open_client(
        api_key="key", base_url=url, site_url="", app_name="", connect_timeout=5, read_timeout=5, pace=Pace()
    )
    meter: Any = Meter()
    model = OpenRouterModel(client=client, meter=meter, model="a/b")

    async def read() -> None:
        said: Any = [{"role": "user", "content": [{"text": "hi"}]}]
        async for _ in model.stream(said, invocation_state={LISTENER: listener}):
            pass

    task = asyncio.create_task(read())
    try:
        yield model, task
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()


@pytest.mark.parametrize(
    ("pieces", "end"),
    [((TEXT,), ["gen-1", "first token"]), ((TEXT, USAGE), ["gen-1", "first token", "answered"])],
    ids=["before its usage", "after its usage"],
)
async def test_what_was_told_until_a_cancel_counts(pieces: tuple[bytes, ...], end: list[str]) -> None:
    """Once the cost has come the call is settled; before, it is left open. No word follows, and no byte is read."""
    call, listener = Call(), Listener()
    async with provider(*pieces) as (url, gone), turn(url, call, listener) as (model, task):
        await asyncio.wait_for(listener.heard.wait(), 5)
        task.cancel()
        await asyncio.wait([task])
        await model.aclose()
        words = len(listener.words)
        await asyncio.wait_for(gone.wait(), 5)

    assert call.told == end
    assert (call.usage is not None) == ("answered" in end)
    assert len(listener.words) == words


async def test_a_model_that_is_left_alone_reads_no_more() -> None:
    """Strands may leave a stream without closing it: the turn closes what the model has open."""
    call, listener = Call(), Listener()
    async with provider(TEXT) as (url, gone), turn(url, call, listener) as (model, _):
        await asyncio.wait_for(listener.heard.wait(), 5)
        await model.aclose()
        words = len(listener.words)
        await asyncio.wait_for(gone.wait(), 5)

        assert len(listener.words) == words


async def test_what_a_listener_cannot_take_ends_the_answer() -> None:
    """As its own error, not the provider's."""
    call, listener = Call(), Listener(full=True)
    async with provider(TEXT) as (url, gone), turn(url, call, listener) as (_, task):
        with pytest.raises(TurnTooLarge):
            await asyncio.wait_for(task, 5)
        await asyncio.wait_for(gone.wait(), 5)
