"""Decodes the texts of an answer from its bytes, each with its time."""

import json
from collections.abc import Iterator
from typing import Any

from godoty.v1 import agent_service_pb2 as pb

from bench.generator.exchange import Exchange
from bench.generator.plan import Target

Timed = tuple[float, bytes]
_PREFIX = 5  # bytes before a gRPC message: compressed or not, and its length


def texts(target: Target, exchange: Exchange) -> Iterator[tuple[float, str]]:
    """Return the pieces of text in order, with the time at which each was complete."""
    pieces = zip(exchange.times, exchange.pieces, strict=True)
    if target.wire == "grpc":
        yield from _from_messages(pieces)
        return
    read = {"openai": _openai_text, "a2a": _a2a_text}[target.words]
    for when, data in _events(_unchunked(pieces)):
        if data != b"[DONE]" and (text := read(json.loads(data))):
            yield when, text


def _from_messages(pieces: Iterator[Timed]) -> Iterator[tuple[float, str]]:
    buffer = b""
    for when, piece in pieces:
        buffer += piece
        while len(buffer) >= _PREFIX and len(buffer) >= (end := _PREFIX + int.from_bytes(buffer[1:_PREFIX])):
            event = pb.ConverseResponse.FromString(buffer[_PREFIX:end]).event
            buffer = buffer[end:]
            if event.HasField("text_delta"):
                yield when, event.text_delta.text


def _unchunked(pieces: Iterator[Timed]) -> Iterator[Timed]:
    """Yield the body of a chunked HTTP/1.1 answer, chunk by chunk."""
    buffer, in_body = b"", False
    for when, piece in pieces:
        buffer += piece
        if not in_body:
            _, in_body_mark, rest = buffer.partition(b"\r\n\r\n")
            if not in_body_mark:
                continue
            buffer, in_body = rest, True
        while (line := buffer.find(b"\r\n")) >= 0:
            end = line + 2 + int(buffer[:line].partition(b";")[0], 16)
            if len(buffer) < end + 2:
                break
            yield when, buffer[line + 2 : end]
            buffer = buffer[end + 2 :]


def _events(pieces: Iterator[Timed]) -> Iterator[Timed]:
    """Yield the data of each server-sent event."""
    buffer = b""
    for when, piece in pieces:
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield when, line[5:].strip()


def _openai_text(chunk: dict[str, Any]) -> str:
    if "error" in chunk:
        raise ValueError(f"an error in the stream: {chunk['error']}")
    choices = chunk.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


def _a2a_text(event: dict[str, Any]) -> str:
    if "error" in event:
        raise ValueError(f"an error in the stream: {event['error']}")
    artifact = event["result"].get("artifact") or {}
    return "".join(part.get("text", "") for part in artifact.get("parts", ()))
