"""Builds chunks of an answer, and reads the events and pieces that a decoder makes of them."""

import json
from collections.abc import Sequence
from typing import Any

from godoty_service.citations import Citation
from godoty_service.openrouter.decoding.chunk import parse_chunk
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.1}


def chunk(delta: dict[str, Any] | None = None, *, finish: str | None = None, **others: Any) -> dict[str, Any]:
    """Return a parsed chunk."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "gen-1", "model": "a/b", "provider": "P", "choices": choices, **others}
    return parse_chunk(json.dumps(body).encode())


def decode(decoder: StreamDecoder, *groups: list[dict[str, Any]]) -> list[Any]:
    """Return all events of an answer that arrived in these groups."""
    return [event for group in groups for event in decoder.add_chunks(group)] + decoder.end()


def text_of(events: list[Any], kind: str = "text") -> str:
    """Return the text among events, or the reasoning."""
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    if kind == "text":
        return "".join(delta.get("text", "") for delta in deltas)
    return "".join(delta.get("reasoningContent", {}).get("text", "") for delta in deltas)


def tools_of(events: list[Any]) -> list[tuple[str, str, str]]:
    """Return the tool calls among events: id, name, input."""
    starts = [each["contentBlockStart"]["start"].get("toolUse") for each in events if "contentBlockStart" in each]
    inputs = [
        each["contentBlockDelta"]["delta"]["toolUse"]["input"]
        for each in events
        if "toolUse" in each.get("contentBlockDelta", {}).get("delta", {})
    ]
    uses = [use for use in starts if use]
    return [(use["toolUseId"], use["name"], given) for use, given in zip(uses, inputs, strict=True)]


def assert_balanced(events: list[Any]) -> None:
    """Check that blocks do not overlap, and that the message ends once."""
    kinds = [next(iter(event)) for event in events if "contentBlockDelta" not in event]
    assert kinds[-1] == "messageStop"
    assert kinds[:-1] == ["contentBlockStart", "contentBlockStop"] * (len(kinds) // 2)


class RecordingListener:
    """A listener that records what it receives."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, str]] = []

    def on_request(self) -> None:
        """Ignore the request."""

    def text(self, piece: str) -> None:
        """Record some text."""
        self.pieces.append(("text", piece))

    def reasoning(self, piece: str) -> None:
        """Record some reasoning."""
        self.pieces.append(("reasoning", piece))

    def citations(self, found: Sequence[Citation]) -> None:
        """Record citations."""
        self.pieces += [("citation", each.url) for each in found]
