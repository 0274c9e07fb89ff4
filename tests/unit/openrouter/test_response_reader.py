"""A response is read in a task of its own: what it reported counts on every way out, and nothing is read after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from godoty_service.errors import TurnTooLarge
from godoty_service.openrouter import response_reader
from godoty_service.openrouter.client import open_client
from godoty_service.openrouter.model import LISTENER, OpenRouterModel
from godoty_service.openrouter.read_pacer import ReadPacer

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"x-generation-id: gen-1\r\ntransfer-encoding: chunked\r\n\r\n"
)
TEXT = b'data: {"id": "gen-1", "model": "a/b", "choices": [{"delta": {"content": "Hello"}}]}\n\n'
USAGE = b'data: {"id": "gen-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "cost": 0.25}}\n\n'


class RecordingCall:
    """A call that records its events."""

    output_limit: int | None = None
    clamped = False

    def __init__(self) -> None:
        self.events: list[str] = []
        self.usage: dict[str, Any] | None = None
        self.sent = False

    def sending(self) -> None:
        """Record that the request is sent."""
        self.sent = True

    def set_generation_id(self, generation_id: str) -> None:
        """Record the id."""
        self.events.append(generation_id)

    def first_token(self) -> None:
        """Record the first token."""
        self.events.append("first token")

    async def answered(self, *, usage: dict[str, Any] | None, **_: Any) -> str:
        """Record the usage."""
        self.events.append("answered")
        self.usage = usage
        return "entry"


class EventListener:
    """A listener that records the text.

    Args:
        full: It rejects all text.
    """

    def __init__(self, *, full: bool = False) -> None:
        self.received = asyncio.Event()
        self.words: list[str] = []
        self._full = full

    def on_request(self) -> None:
        """Ignore the request."""

    def text(self, piece: str) -> None:
        """Record some text."""
        if self._full:
            raise TurnTooLarge("full")
        self.words.append(piece)
        self.received.set()


@asynccontextmanager
async def provider(*pieces: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Start a provider that sends some pieces at once, then a word each 10 ms, and never ends the answer.

    Without a piece it sends its headers alone.
    """
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + (chunked(b"".join(pieces)) if pieces else b""))
        with suppress(ConnectionError, RuntimeError):  # RuntimeError: uvloop, for a transport closed meanwhile
            while not writer.is_closing():
                await writer.drain()
                await asyncio.sleep(0.01)
                if pieces:
                    writer.write(chunked(TEXT))
        gone.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", gone


def chunked(data: bytes) -> bytes:
    """Encode a chunk of a body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def turn(
    url: str, call: RecordingCall, listener: EventListener
) -> AsyncIterator[tuple[OpenRouterModel, asyncio.Task[None]]]:
    """Run a model's stream in a task."""

    class Meter:
        async def open(self, **_: Any) -> RecordingCall:
            return call

    client = open_client(
        api_key="key",
        base_url=url,
        site_url="",
        app_name="",
        connect_timeout=60,
        read_timeout=60,
        read_pacer=ReadPacer(),
    )
    meter: Any = Meter()
    model = OpenRouterModel(client=client, meter=meter, model="a/b")

    async def read() -> None:
        messages: Any = [{"role": "user", "content": [{"text": "hi"}]}]
        async for _ in model.stream(messages, invocation_state={LISTENER: listener}):
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
async def test_cancelled_answer_is_settled_only_with_usage(pieces: tuple[bytes, ...], end: list[str]) -> None:
    """Without its usage the call remains open. No word follows, and no byte is read."""
    call, listener = RecordingCall(), EventListener()
    async with provider(*pieces) as (url, gone), turn(url, call, listener) as (model, task):
        await asyncio.wait_for(listener.received.wait(), 180)
        task.cancel()
        await asyncio.wait([task])
        await model.aclose()
        words = len(listener.words)
        await asyncio.wait_for(gone.wait(), 180)

    assert call.events == end
    assert (call.usage is not None) == ("answered" in end)
    assert len(listener.words) == words


async def test_closed_model_stops_reading() -> None:
    """Strands may abandon a stream without closing it: the turn closes the model's connections."""
    call, listener = RecordingCall(), EventListener()
    async with provider(TEXT) as (url, gone), turn(url, call, listener) as (model, _):
        await asyncio.wait_for(listener.received.wait(), 180)
        await model.aclose()
        words = len(listener.words)
        await asyncio.wait_for(gone.wait(), 180)

        assert len(listener.words) == words


async def test_error_of_listener_ends_answer() -> None:
    """With the listener's error, not the provider's."""
    call, listener = RecordingCall(), EventListener(full=True)
    async with provider(TEXT) as (url, gone), turn(url, call, listener) as (_, task):
        with pytest.raises(TurnTooLarge):
            await asyncio.wait_for(task, 180)
        await asyncio.wait_for(gone.wait(), 180)


@pytest.mark.parametrize("delay", [0.0, 3600.0], ids=["by itself", "when it is closed"])
async def test_generation_is_known_without_any_data(delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id is recorded a moment after the headers have arrived, or when the turn is cancelled before."""
    monkeypatch.setattr(response_reader, "_ID_DELAY", delay)
    call = RecordingCall()
    async with provider() as (url, _), turn(url, call, EventListener()) as (model, _):
        while not (call.events if delay == 0 else model._readers):
            await asyncio.sleep(0.001)
        assert call.events == (["gen-1"] if delay == 0 else [])

    assert call.events == ["gen-1"]
