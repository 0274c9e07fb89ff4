"""OpenRouter's wire format: comments, chunks, the usage chunk, error chunks, and bodies without streaming."""

import json
from typing import Any

from openrouter_sandbox.answers.answer import ENCRYPTED, REASONING, TEXT, Answer, Piece
from openrouter_sandbox.billing.generation import Generation
from openrouter_sandbox.decimal_json import dumps

COMMENT = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = "text/event-stream"
JSON = "application/json"

_UNAUTHORIZED = 401


class ChunkEncoder:
    """Encodes the chunks of one generation; the fields common to all chunks are encoded once."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._head = {
            "id": generation.id,
            "object": "chat.completion.chunk",
            "created": generation.created,
            "model": generation.served_name,
            "provider": generation.endpoint.provider,
        }
        head = json.dumps(self._head, separators=(",", ":"))[:-1]
        self._before = f'data: {head},"choices":[{{"index":0,"delta":'.encode()
        self._after = b',"finish_reason":null,"native_finish_reason":null}]}\n\n'

    def piece(self, piece: Piece) -> bytes:
        """Return the chunk of one token."""
        return self._before + piece.delta + self._after

    def finish(self) -> bytes:
        """Return the chunk with the finish reason."""
        return self._event({"choices": [_closing_choice(self._generation.answer.finish_reason)]})

    def usage(self, usage: dict[str, Any], shape: str) -> bytes:
        """Return the usage chunk; `shape` is the form of its choices: "repeat" the finish reason, "null", "empty"."""
        reason = self._generation.answer.finish_reason if shape == "repeat" else None
        choices = [] if shape == "empty" else [_closing_choice(reason)]
        metadata = self._generation.openrouter_metadata
        return self._event({"service_tier": None, "choices": choices, "usage": usage, **metadata})

    def annotations(self) -> bytes:
        """Return a chunk for each page that the answer cites; they have no tokens."""
        deltas = [
            {"content": "", "role": "assistant", "annotations": [each]}
            for each in self._generation.server_tools.annotations
        ]
        return b"".join(self._before + dumps(delta).encode("utf-8", "replace") + self._after for delta in deltas)

    def error(self, code: int, message: str, reason: str | None, usage: dict[str, Any] | None) -> bytes:
        """Return the chunk of a mid-stream error: a top-level `error`, with the usage unless it is None."""
        body: dict[str, Any] = {"error": {"code": code, "message": message}, "choices": [_closing_choice(reason)]}
        if usage is not None:
            body["usage"] = usage
        return self._event(body)

    def _event(self, body: dict[str, Any]) -> bytes:
        return b"data: " + dumps({**self._head, **body}).encode("utf-8", "replace") + b"\n\n"


def unstreamed_body(generation: Generation, usage: dict[str, Any]) -> bytes:
    """Return the response body of a request without streaming."""
    body: dict[str, Any] = {
        "id": generation.id,
        "object": "chat.completion",
        "created": generation.created,
        "model": generation.served_name,
        "provider": generation.endpoint.provider,
        "system_fingerprint": None,
        "service_tier": None,
        "choices": [_unstreamed_choice(generation.answer)],
        "usage": usage,
        **generation.openrouter_metadata,
    }
    if generation.server_tools.annotations:
        body["choices"][0]["message"]["annotations"] = list(generation.server_tools.annotations)
    return dumps(body).encode("utf-8", "replace")


def error_body(code: int, message: str, metadata: dict[str, Any] | None = None) -> bytes:
    """Return an error body in OpenRouter's format; all but authentication errors have a `user_id`."""
    error: dict[str, Any] = {"message": message, "code": code}
    if metadata:
        error["metadata"] = metadata
    return dumps({"error": error} if code == _UNAUTHORIZED else {"error": error, "user_id": "user_sandbox"}).encode()


def _closing_choice(reason: str | None) -> dict[str, Any]:
    delta = {"content": "", "role": "assistant"}
    return {"index": 0, "delta": delta, "finish_reason": reason, "native_finish_reason": reason}


def _unstreamed_choice(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text(TEXT) or (None if answer.tool_calls else ""),
        "refusal": None,
        "reasoning": answer.text(REASONING) or None,
    }
    if any(piece.kind in {REASONING, ENCRYPTED} for piece in answer.pieces):
        message["reasoning_details"] = answer.reasoning_details
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "type": "function",
                "index": n,
                "id": call.id,
                "function": {"name": call.name, "arguments": answer.text("tool", n)},
            }
            for n, call in enumerate(answer.tool_calls)
        ]
    reason = answer.finish_reason
    return {"index": 0, "logprobs": None, "finish_reason": reason, "native_finish_reason": reason, "message": message}
