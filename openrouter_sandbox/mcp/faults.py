"""Answers that break the protocol, written to the connection as they are."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from openrouter_sandbox.streaming.client_connection import ClientConnection

_JSON, _SSE, _HTML = "application/json", "text/event-stream", "text/html"
_PIECE = 64 * 1024
_DEEP = 100_000
_CROWD = 10_000  # tools of one page
_CHUNKS = 30_000
# Of nonsense.
KINDS = ("html", "broken", "wrong", "other", "empty", "deep", "lists", "items", "status", "charset", "type")

Fault = Callable[[ClientConnection, Any, Mapping[str, Any]], Awaitable[None]]


async def die(connection: ClientConnection, _: Any, __: Mapping[str, Any]) -> None:
    """Close the connection in the middle of an answer."""
    await connection.start(200, _SSE)
    await connection.write(b"event: message\ndata: {")
    await connection.cut(reset=True)


async def flood(connection: ClientConnection, request_id: Any, arguments: Mapping[str, Any]) -> None:
    """Answer with many megabytes of text in one result, until the client closes the connection."""
    kind = arguments.get("kind", _SSE)
    head = json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {"content": [{"type": "text", "text": "@"}]}})
    start, _, end = head.partition("@")
    await connection.start(200, kind)
    await connection.write((("event: message\ndata: " if kind == _SSE else "") + start).encode())
    for _ in range(int(arguments["megabytes"]) * 1024 * 1024 // _PIECE):
        await connection.write(b"x" * _PIECE)
        if connection.is_closing:
            return
    await connection.write(f"{end}\n\n".encode())
    await connection.end()


async def nonsense(connection: ClientConnection, request_id: Any, arguments: Mapping[str, Any]) -> None:
    """Answer with what is no answer, of a kind."""
    envelope = {"jsonrpc": "2.0", "id": request_id}
    answers: dict[str, tuple[int, str, bytes]] = {
        "html": (200, _HTML, b"<html>Welcome</html>"),
        "broken": (200, _JSON, b'{"jsonrpc": "2.0", "id": '),
        "wrong": (200, _JSON, json.dumps({**envelope, "result": {"content": "text"}}).encode()),
        "other": (200, _JSON, json.dumps({**envelope, "id": 12345, "result": {}}).encode()),
        "empty": (200, _SSE, b""),
        "deep": (200, _JSON, b"[" * _DEEP + b"]" * _DEEP),
        "lists": (200, _JSON, b"[" + b"[]," * (300 * 1024) + b"[]]"),
        "items": (200, _JSON, _items(envelope, arguments.get("number", 500_000))),
        "status": (503, _HTML, b"<html>Out of service</html>"),
        "charset": (200, f"{_SSE}; charset=punycode", b"-" + b"9" * 60_000),
        "type": (500, "text/caf\xe9", b"caf\xe9"),
    }
    status, kind, body = answers[arguments["kind"]]
    await connection.respond(status, body, kind)


async def many(connection: ClientConnection, request_id: Any, arguments: Mapping[str, Any]) -> None:
    """Answer with many small things of a kind, each of which keeps to the protocol."""
    kind, number = arguments["kind"], int(arguments["number"])
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    block = json.dumps({"type": "text", "text": "a"})
    blocks = number if kind == "blocks" else 1
    result = (
        f'{{"jsonrpc": "2.0", "id": {json.dumps(request_id)}, "result": {{"resultType": "complete", "content": [@]}}}}'
    )
    await connection.start(200, _SSE)
    if kind == "requests":
        for each in range(number):
            await connection.write(_event(json.dumps({**message, "id": f"r{each}", "method": "ping"})))
            await asyncio.sleep(0)
    elif kind == "notifications":
        await connection.write(_event(json.dumps({**message, "method": "notifications/wrong", "params": {}})) * number)
    await connection.write(_event(result.replace("@", ",".join([block] * blocks))))
    await connection.end()


async def crumble(connection: ClientConnection, _: Any, __: Mapping[str, Any]) -> None:
    """Answer with white space, one byte in a chunk: more work for the client than its bytes show."""
    await connection.start(200, _JSON)
    for _ in range(_CHUNKS):
        await connection.write(b" ")
    await connection.end()


async def redirect(connection: ClientConnection, _: Any, arguments: Mapping[str, Any]) -> None:
    """Redirect the call to another address."""
    await connection.respond(307, b"", _HTML, {"location": str(arguments["to"])})


async def crowd(connection: ClientConnection, request_id: Any) -> None:
    """List many tools with small schemas."""
    tool = '{"name": "t%d", "inputSchema": {"type": "object"}}'
    tools = ",".join(tool % each for each in range(_CROWD))
    cursor = '"nextCursor": "next", "ttlMs": 0, "cacheScope": "private", "resultType": "complete"'
    body = f'{{"jsonrpc": "2.0", "id": {json.dumps(request_id)}, "result": {{"tools": [{tools}], {cursor}}}}}'
    await connection.respond(200, body.encode(), _JSON)


def _items(envelope: Mapping[str, Any], number: int) -> bytes:
    """Return a result whose content is numbers."""
    result = json.dumps({**envelope, "result": {"resultType": "complete", "content": "@"}}).encode()
    return result.replace(b'"@"', b"[%b0]" % (b"0," * (number - 1)))


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


FAULTS: Mapping[str, Fault] = {
    "crumble": crumble,
    "die": die,
    "flood": flood,
    "many": many,
    "nonsense": nonsense,
    "redirect": redirect,
}
