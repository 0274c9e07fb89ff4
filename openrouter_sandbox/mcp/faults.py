"""Answers that break the protocol, written to the connection as they are."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from openrouter_sandbox.streaming.client_connection import ClientConnection

_JSON, _SSE, _HTML = "application/json", "text/event-stream", "text/html"
_PIECE = 64 * 1024
_DEEP = 100_000

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
        "status": (503, _HTML, b"<html>Out of service</html>"),
    }
    status, kind, body = answers[arguments["kind"]]
    await connection.respond(status, body, kind)


FAULTS: Mapping[str, Fault] = {"die": die, "flood": flood, "nonsense": nonsense}
