"""An answer: a sequence of pieces, each one token and one chunk."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

TEXT, REASONING, ENCRYPTED, TOOL = "text", "reasoning", "encrypted", "tool"


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an answer.

    Attributes:
        kind: TEXT, REASONING, ENCRYPTED (opaque reasoning) or TOOL.
        delta: The `delta` of its chunk, encoded as JSON.
        text: Its part of the text, the reasoning or a tool call's arguments.
        tool: Index of its tool call in the answer.
    """

    kind: str
    delta: bytes
    text: str
    tool: int = 0


@dataclass(frozen=True)
class ToolCall:
    """A call of an offered tool: id, tool name, and arguments as JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """The complete answer to a request.

    Attributes:
        pieces: The tokens in order.
        tool_calls: The tool calls that the pieces contain.
        finish_reason: "stop", "length" or "tool_calls".
    """

    pieces: Sequence[Piece]
    tool_calls: Sequence[ToolCall] = ()
    finish_reason: str = "stop"

    def limited(self, max_tokens: int | None) -> "Answer":
        """Return the answer truncated to `max_tokens`, with finish reason "length" if it was longer."""
        if max_tokens is None or len(self.pieces) <= max_tokens:
            return self
        pieces = self.pieces[:max_tokens]
        reached = {piece.tool for piece in pieces if piece.kind == TOOL}
        return Answer(pieces, [call for n, call in enumerate(self.tool_calls) if n in reached], "length")

    def text(self, kind: str, tool: int = 0) -> str:
        """Return the text of all pieces of a kind, or the arguments of a tool call."""
        return "".join(piece.text for piece in self.pieces if piece.kind == kind and piece.tool == tool)

    @property
    def reasoning_details(self) -> list[dict[str, Any]]:
        """The reasoning entries of a body without streaming: readable text joined into one entry."""
        entries: list[dict[str, Any]] = []
        if any(piece.kind == REASONING for piece in self.pieces):
            entries.append(reasoning_entry(self.text(REASONING)))
        entries += [encrypted_entry(piece.text) for piece in self.pieces if piece.kind == ENCRYPTED]
        return entries


def reasoning_tokens(pieces: Iterable[Piece]) -> int:
    """Return the number of reasoning tokens."""
    return sum(1 for piece in pieces if piece.kind in {REASONING, ENCRYPTED})


def reasoning_entry(text: str) -> dict[str, Any]:
    """Return a readable entry of `reasoning_details`."""
    return {"type": "reasoning.text", "text": text, "format": "anthropic-claude-v1", "index": 0}


def encrypted_entry(data: str) -> dict[str, Any]:
    """Return an encrypted entry of `reasoning_details`, which only its provider can read."""
    return {
        "type": "reasoning.encrypted",
        "data": data,
        "id": f"rs_{data[-16:]}",
        "format": "openai-responses-v1",
        "index": 1,
    }


def text_piece(text: str) -> Piece:
    """Return a token of the answer's text."""
    return Piece(TEXT, _encoded({"role": "assistant", "content": text}), text)


def reasoning_piece(text: str) -> Piece:
    """Return a token of readable reasoning."""
    delta = {"role": "assistant", "content": "", "reasoning": text, "reasoning_details": [reasoning_entry(text)]}
    return Piece(REASONING, _encoded(delta), text)


def encrypted_piece(data: str) -> Piece:
    """Return an encrypted reasoning entry, which counts as one token."""
    delta = {
        "role": "assistant",
        "content": "",
        "reasoning": None,
        "reasoning_details": [encrypted_entry(data)],
    }
    return Piece(ENCRYPTED, _encoded(delta), data)


def tool_pieces(index: int, call: ToolCall) -> list[Piece]:
    """Return the pieces of a tool call: id and name, then the arguments in parts of eight characters."""
    head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
    parts = [call.arguments[at : at + 8] for at in range(0, len(call.arguments), 8)]
    tails = [{"index": index, "function": {"arguments": part}} for part in parts]
    return [
        Piece(TOOL, _encoded({"role": "assistant", "content": None, "tool_calls": [entry]}), text, index)
        for entry, text in zip([head, *tails], ["", *parts], strict=True)
    ]


@lru_cache(maxsize=16)
def long_pieces(tokens: int) -> tuple[Piece, ...]:
    """Return the answer of the `long` scenario, encoded once: "t0 t1 t2 ..."."""
    return tuple(text_piece(f"t{number} ") for number in range(tokens))


def long_text(tokens: int) -> str:
    """Return the complete text of a `long` or `tokens=` answer."""
    return "".join(f"t{number} " for number in range(tokens))


def _encoded(delta: dict[str, Any]) -> bytes:
    return json.dumps(delta, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
