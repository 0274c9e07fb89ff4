"""A gateway that answers with given bytes, one reply for each request."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data"
CASES = DATA / "cases"
CATALOGUE = (DATA / "catalogue" / "models_2026-08-22_trimmed.json").read_bytes()
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.00012}
NOT_FOUND = b'{"error": {"code": 404, "message": "Generation not found"}}'
BREAK = b"<break>"  # in a reply: the connection breaks there
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WAIT = b"<wait>"  # in a reply: nothing more is sent until the client disconnects


class Gateway:
    """The replies of the gateway, and the requests that it received.

    Attributes:
        url: Its base URL.
        replies: Bodies of event streams, or whole responses that begin with `HTTP/`. The last answers all that follow.
        requests: The bodies of the requests for a completion.
        records: Generation records, by id.
    """

    def __init__(self) -> None:
        self.url = ""
        self.replies: list[bytes] = []
        self.requests: list[dict[str, Any]] = []
        self.records: dict[str, dict[str, Any]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [line[15:] for line in head.lower().split("\r\n") if line.startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0]) if lengths else 0)
            await self._send(writer, reader, self._reply(head.split(" ")[1], body))
        writer.close()

    def _reply(self, path: str, body: bytes) -> bytes:
        if path.endswith("/chat/completions"):
            self.requests.append(json.loads(body))
            reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
            return reply if reply.startswith(b"HTTP/") else response(reply)
        if path.partition("?")[0].endswith("/models"):
            return response(CATALOGUE, "application/json")
        record = self.records.get(path.partition("generation?id=")[2])
        if record is not None:
            return response(json.dumps({"data": record}).encode(), "application/json")
        return response(NOT_FOUND, "application/json", status=404)

    async def _send(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, reply: bytes) -> None:
        sent, broke, _ = reply.partition(BREAK)
        sent, waits, _ = sent.partition(WAIT)
        writer.write(sent)
        await writer.drain()
        if waits:
            await reader.read()
        elif broke:
            writer.transport.abort()


class Relay:
    """A listener whose requests the gateway of the current test answers.

    Attributes:
        current: That gateway.
    """

    def __init__(self) -> None:
        self.current = Gateway()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Have one request answered."""
        await self.current.serve(reader, writer)


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Listen, and yield the URL."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def gateway(*replies: bytes) -> AsyncIterator[Gateway]:
    """Start a gateway with some replies."""
    one = Gateway()
    one.replies = list(replies)
    async with listening(one.serve) as one.url:
        yield one


def response(body: bytes, content_type: str | None = "text/event-stream", *, status: int = 200) -> bytes:
    """Build a response that ends with its body, or breaks off if the body contains a break or a wait."""
    kind = f"content-type: {content_type}\r\n" if content_type else ""
    if BREAK in body or WAIT in body:
        return f"HTTP/1.1 {status} x\r\n{kind}content-length: {len(body) + 1}\r\n\r\n".encode() + body
    return f"HTTP/1.1 {status} x\r\n{kind}content-length: {len(body)}\r\n\r\n".encode() + body


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **others: Any) -> dict[str, Any]:
    """Build a chunk; without a delta it has no choice."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "gen-1", "model": "openai/gpt-4o-mini", "provider": "P", "choices": choices, **others}


def event(body: dict[str, Any]) -> bytes:
    """Build the event of a chunk."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def stream(*bodies: dict[str, Any] | bytes, done: bool = True) -> bytes:
    """Build the body of a stream; bytes are copied unchanged."""
    events = [each if isinstance(each, bytes) else event(each) for each in bodies]
    return b"".join(events) + (b"data: [DONE]\n\n" if done else b"")


def tool_call_stream(*groups: Iterable[dict[str, Any]], finish: str = "tool_calls", **others: Any) -> bytes:
    """Build a stream of one chunk for each group of tool call pieces, and its end."""
    deltas = [chunk({"tool_calls": list(group)}) for group in groups]
    return stream(*deltas, chunk({}, finish, usage=USAGE, **others))


def piece(arguments: Any = None, *, name: str | None = None, **others: Any) -> dict[str, Any]:
    """Build a piece of a tool call; what is not given is absent."""
    function = {key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not None}
    return {"type": "function", "function": function, **others}


def case(name: str) -> bytes:
    """Read a case: a stream's body, or a whole response."""
    (path,) = CASES.glob(f"{name}*")
    return path.read_bytes()


ANSWER = stream(chunk({"content": "Done."}), chunk({}, "stop", usage=USAGE))
