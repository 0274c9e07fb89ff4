"""Decodes an answer: OpenRouter's chunks in, Strands' stream events out, and what the ledger must know on the way.

Who reads along hears each piece at once. Strands gets a block's first piece, for its clock, and then the rest of the
block as one: its loop takes longer for a piece the more of them there were.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pydantic_core import from_json
from strands.types.event_loop import StopReason
from strands.types.streaming import StreamEvent

from godoty_service.errors import ProviderError, ProviderUnavailable
from godoty_service.openrouter import exact
from godoty_service.openrouter.failures import from_body
from godoty_service.openrouter.reasoning import ReasoningDetails
from godoty_service.openrouter.tool_input import sound

_DONE = b"[DONE]"
_STOP_REASONS: dict[str, StopReason] = {
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "content_filtered",
}


class Listener(Protocol):
    """Hears an answer as it comes."""

    def asking(self) -> None:
        """The request is in the ledger, and about to leave."""

    def text(self, piece: str) -> None:
        """Some more of the text."""

    def reasoning(self, piece: str) -> None:
        """Some more of the reasoning."""


def parse_chunk(data: bytes) -> dict[str, Any]:
    """Parse a chunk; one with money in it keeps every digit.

    Raises:
        ProviderUnavailable: It is not a JSON object.
    """
    try:
        if b'"usage"' in data or b'"cost"' in data:
            chunk = exact.loads(data)
        else:
            try:
                chunk = from_json(data)
            except ValueError:  # lone surrogates, which the fast parser refuses
                chunk = exact.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable() from error
    if not isinstance(chunk, dict):
        raise _unreadable()
    return chunk


class Answer:
    """One answer, as it comes in.

    Attributes:
        generation_id: The provider's id, from the headers or the first chunk.
        served_model: Who answered.
        provider: Who served it.
        finish_reason: Why it ended; None until it says.
        usage: The usage object, its fractions as Decimal; None until it comes.
        error: What went wrong inside the stream.
        has_output: Something of the answer was handed out.
        headers: The response's.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.generation_id: str | None = None
        self.served_model: str | None = None
        self.provider: str | None = None
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.error: ProviderError | None = None
        self.has_output = False
        self.headers: Mapping[str, str] = {}
        self._listener = listener
        self._facts: tuple[Any, Any, Any] = (None, None, None)  # as the last chunk told them
        self._told_error = False
        self._broken = False
        self._open_block: str | None = None
        self._fresh: list[str] = []  # of the open block: what nobody has heard yet
        self._held: list[str] = []  # of the open block: what Strands has not got yet
        self._begun = False  # of the open block: Strands has its first piece
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._details = ReasoningDetails()

    @property
    def refused(self) -> bool:
        """Whether the provider said no, and nothing else: no generation stands behind it."""
        return self._told_error and self.generation_id is None and self.usage is None and not self.has_output

    @property
    def complete(self) -> bool:
        """Whether all that counts has come: why it ended, and what it took."""
        return self.finish_reason is not None and self.usage is not None and self.error is None

    def read(self, pieces: Iterable[bytes]) -> list[StreamEvent]:
        """Take the data of events that arrived together, the one that says that nothing follows among them.

        One that cannot be read makes the answer an error, and no more of it is handed out; but what the others tell of
        id, usage and cost is kept.
        """
        chunks: list[dict[str, Any]] = []
        events: list[StreamEvent] = []
        for data in pieces:
            if data == _DONE:
                continue
            try:
                chunks.append(parse_chunk(data))
            except ProviderUnavailable as error:
                events += self.take(chunks)
                chunks.clear()
                self.error, self._broken = self.error or error, True
        return events + self.take(chunks)

    def take(self, chunks: Iterable[dict[str, Any]]) -> list[StreamEvent]:
        """Take the chunks that arrived together."""
        events: list[StreamEvent] = []
        for chunk in chunks:
            self._take_facts(chunk)
            choices = chunk.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict):
                self._take_choice(choices[0], events)
        self._tell()
        if self._held and not self._begun:
            self._hand_on(events)
        return events

    def end(self) -> list[StreamEvent]:
        """Close what is open: the text, the tool calls, the message."""
        events: list[StreamEvent] = []
        signature = self._details.signature()
        if signature is not None:
            self._switch("reasoning", events)
            events.append(_delta({"reasoningContent": {"signature": signature}}))
        self._switch(None, events)
        for _, call in sorted(self._tool_calls.items()):
            use = {"toolUseId": call["id"], "name": call["name"]}
            events.append({"contentBlockStart": {"start": {"toolUse": use}}})  # type: ignore[typeddict-item] # Strands' own providers leave the signature out, too
            events.append(_delta({"toolUse": {"input": sound(call["arguments"])}}))
            events.append({"contentBlockStop": {}})
        reason = _STOP_REASONS.get(self.finish_reason or "", "end_turn")
        events.append({"messageStop": {"stopReason": reason}})
        return events

    def _take_facts(self, chunk: dict[str, Any]) -> None:
        facts = (chunk.get("id"), chunk.get("model"), chunk.get("provider"))
        if facts != self._facts:  # each chunk repeats them
            self._facts = facts
            self.generation_id = self.generation_id or _text(facts[0])
            self.served_model = _text(facts[1]) or self.served_model
            self.provider = _text(facts[2]) or self.provider
        usage = chunk.get("usage")
        if isinstance(usage, dict) and (self.usage is None or usage.get("cost") is not None):
            self.usage = usage  # a later one that tells less must not take a cost away
        if chunk.get("error"):
            self.error = from_body(500, chunk, self.headers)
            self._told_error = True

    def _take_choice(self, choice: dict[str, Any], events: list[StreamEvent]) -> None:
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict) and not self._broken:
            self._take_delta(delta, events)
        if choice.get("error") and self.error is None:
            self.error = from_body(500, choice, {})
        # The usage chunk repeats the reason, or has none where the finish chunk had one.
        if reason := choice.get("finish_reason"):
            self.finish_reason = _text(reason) or self.finish_reason

    def _take_delta(self, delta: dict[str, Any], events: list[StreamEvent]) -> None:
        if details := delta.get("reasoning_details"):
            self._details.add(details)
        told = (delta.get("reasoning"), delta.get("reasoning_content"))
        if any(told) and (reasoning := _text(told[0]) or _text(told[1])):
            self._add("reasoning", reasoning, events)
        if content := _content(delta.get("content")):
            self._add("text", content, events)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                self._take_tool_call(call)
                self.has_output = True

    def _add(self, block: str, piece: str, events: list[StreamEvent]) -> None:
        self._switch(block, events)
        self._fresh.append(piece)
        self._held.append(piece)
        self.has_output = True

    def _take_tool_call(self, piece: dict[str, Any]) -> None:
        index = piece.get("index")
        place = index if isinstance(index, int) else len(self._tool_calls)  # a whole message numbers none
        call = self._tool_calls.setdefault(place, {"id": "", "name": "", "arguments": ""})
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call["id"] = call["id"] or _text(piece.get("id")) or ""
        call["name"] = call["name"] or _text(function.get("name")) or ""
        call["arguments"] += _text(function.get("arguments")) or ""

    def _switch(self, block: str | None, events: list[StreamEvent]) -> None:
        if block == self._open_block:
            return
        if self._open_block is not None:
            self._tell()
            self._hand_on(events)
            events.append({"contentBlockStop": {}})
        if block is not None:
            events.append({"contentBlockStart": {"start": {}}})
        self._open_block, self._begun = block, False

    def _tell(self) -> None:
        """Let the listener hear what is new of the open block."""
        if self._fresh and self._listener is not None:
            tell = self._listener.text if self._open_block == "text" else self._listener.reasoning
            tell("".join(self._fresh))
        self._fresh.clear()

    def _hand_on(self, events: list[StreamEvent]) -> None:
        """Let Strands have what it has not got of the open block."""
        if self._held:
            text = {"text": "".join(self._held)}
            events.append(_delta(text if self._open_block == "text" else {"reasoningContent": text}))
            self._held.clear()
            self._begun = True


def _delta(delta: Any) -> StreamEvent:
    return {"contentBlockDelta": {"delta": delta}}


def _content(value: Any) -> str | None:
    """Read a message's content: text, or a list of parts of which the texts count."""
    if isinstance(value, list):
        value = "".join(part.get("text") or "" for part in value if isinstance(part, dict))
    return _text(value)


def _text(value: Any) -> str | None:
    """Return a text that is not empty, with half a surrogate pair replaced: it could be neither kept nor sent."""
    if not isinstance(value, str) or not value:
        return None
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _unreadable() -> ProviderUnavailable:
    return ProviderUnavailable("The provider sent what cannot be read.", metadata={"provider_code": "malformed"})
