"""Decodes an answer: OpenRouter's chunks in, Strands' stream events out, and the facts that the ledger needs.

The listener receives each piece at once. Strands receives a block's first piece, for its time to the first token, and
then the rest of the block as one event: its loop takes longer for an event the more of them preceded it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, Protocol

from strands.types.streaming import StreamEvent

from godoty_service.citations import Citation, CitationCollector
from godoty_service.errors import GodotyError, ProviderUnavailable, TurnTooLarge
from godoty_service.openrouter.decoding.chunk import (
    DONE,
    AnswerLimits,
    chat_completion,
    content_of,
    finish_error,
    incomplete_error,
    merge_usage,
    parse_chunk,
    parse_lines,
    stop_reason,
    with_pipeline_cost,
    without_cost,
)
from godoty_service.openrouter.decoding.reasoning_details import ReasoningDetails
from godoty_service.openrouter.decoding.text import MAX_UNSPLIT, SurrogateJoiner, id_of, name_of, split_utf8
from godoty_service.openrouter.decoding.tool_calls import ToolCall, ToolCalls
from godoty_service.openrouter.errors import from_body

_TEXT_FIELDS = 2  # of a delta that has a text alone: its content and its role
_MAX_JSON_WIDTH = 6  # bytes of a character in JSON at most


class Listener(Protocol):
    """Receives an answer as it arrives."""

    def on_request(self) -> None:
        """Called when the request is in the ledger and about to be sent."""

    def text(self, piece: str) -> None:
        """Receive more of the text."""

    def reasoning(self, piece: str) -> None:
        """Receive more of the reasoning."""

    def citations(self, found: Sequence[Citation]) -> None:
        """Receive citations of the answer."""


class StreamDecoder:
    """The decoder of one answer.

    Attributes:
        generation_id: The provider's id, from the headers or the first chunk.
        served_model: The model that answered.
        provider: The upstream provider that served it.
        finish_reason: The provider's finish reason; None until it arrives.
        usage: The usage known so far, its fractions as Decimal; None until some of it arrives.
        error: The error of the stream.
        has_output: Some of the answer was forwarded.
        headers: The response's.
        closed: The provider marked the end of the stream.
    """

    def __init__(
        self,
        listener: Listener | None = None,
        *,
        limits: AnswerLimits | None = None,
        taken_ids: Callable[[], Collection[str]] = frozenset,
        secrets: Collection[str] = (),
    ) -> None:
        """Build it.

        Args:
            listener: Receives text and reasoning.
            limits: Bounds of what is retained of the answer.
            taken_ids: Returns the ids of the tool calls that the conversation has already.
            secrets: Keys to mask in the message of an error.
        """
        self.generation_id: str | None = None
        self.served_model: str | None = None
        self.provider: str | None = None
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.error: GodotyError | None = None
        self.has_output = False
        self.headers: Mapping[str, str] = {}
        self.closed = False
        self._listener = listener
        self._limits = limits or AnswerLimits()
        self._taken_ids = taken_ids
        self._secrets = secrets
        self._facts: tuple[Any, Any, Any] = (None, None, None)  # of the last chunk: id, model, provider
        self._provider_error = False  # the provider sent an error object
        self._broken = False  # no more of the answer is forwarded
        self._refusal = False
        self._cost_is_final = False
        self._size = 0  # of the counted text and reasoning, in bytes of JSON
        self._uncounted: list[str] = []
        self._max_uncounted = 0  # upper bound of their size, in bytes of JSON
        self._open_block: str | None = None
        self._unsent: list[str] = []  # pieces of the open block that the listener has not received
        self._buffered: list[str] = []  # pieces of the open block that Strands has not received
        self._block_started = False  # Strands has the first piece of the open block
        self._surrogates = SurrogateJoiner()
        self._tool_calls = ToolCalls(self._limits)
        self._details = ReasoningDetails(self._limits)
        self._citations: CitationCollector | None = None  # until there are some

    @property
    def refused(self) -> bool:
        """Whether the answer is an error object and nothing else: no generation was started."""
        return self._provider_error and self.generation_id is None and self.usage is None and not self.has_output

    @property
    def complete(self) -> bool:
        """Whether all that counts has arrived: the finish reason and the usage."""
        return self.finish_reason is not None and self.usage is not None and self.error is None

    @property
    def final_usage(self) -> dict[str, Any] | None:
        """The usage for settlement: without a cost that arrived before the end of a broken or cancelled answer.

        Such a cost is a running one. A cost that arrived with the finish reason or an error, or after it, is final, as
        is any once the provider has marked the end of the stream.
        """
        if self.usage is None or self._cost_is_final or (self.closed and self.error is None):
            return self.usage
        return without_cost(self.usage)

    def read(self, pieces: Iterable[bytes]) -> list[StreamEvent]:
        """Decode the data of events that arrived together, the end marker included.

        An object that cannot be parsed fails the answer, unless it had its finish reason already, and no more of the
        answer is forwarded; but id, usage and cost of the other objects are retained. Data that is no object is
        skipped: it keeps the connection alive.
        """
        chunks: list[dict[str, Any]] = []
        events: list[StreamEvent] = []
        for data in pieces:
            if data[:1] != b"{" and not (data := data.strip()).startswith(b"{"):
                self.closed = self.closed or data in DONE
                continue
            try:
                chunks.append(parse_chunk(data))
            except ProviderUnavailable as error:
                if (found := parse_lines(data)) is not None:
                    chunks += found
                    self.closed = self.closed or data.endswith(DONE)
                    continue
                events += self.add_chunks(chunks)
                chunks.clear()
                if self.finish_reason is None:
                    self.fail(error)
        return events + self.add_chunks(chunks)

    def read_whole(self, documents: Iterable[bytes]) -> list[StreamEvent]:
        """Decode an answer that is not streamed: one document, of the chat API or of the Responses API.

        Lines of one object each are the chunks of a stream.
        """
        events: list[StreamEvent] = []
        for data in documents:
            try:
                bodies = [chat_completion(parse_chunk(data))]
            except ProviderUnavailable as error:
                bodies = parse_lines(data) or []
                if not bodies:
                    self.fail(error)
            events += self.add_chunks(bodies)
            self.closed = self._cost_is_final = True
            if not any("choices" in body for body in bodies):
                self.fail(incomplete_error())
        return events

    def add_chunks(self, chunks: Iterable[dict[str, Any]]) -> list[StreamEvent]:
        """Decode the chunks that arrived together."""
        events: list[StreamEvent] = []
        for chunk in chunks:
            self._add_facts(chunk)
            choices = chunk.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict):
                self._add_choice(choices[0], events)
            if usage := chunk.get("usage"):
                self._add_usage(with_pipeline_cost(usage, chunk.get("openrouter_metadata")))
        self._notify()
        if self._citations is not None:
            self._send_citations(self._citations)
        if self._buffered and not self._block_started:
            self._forward(events)
        return events

    def fail(self, error: GodotyError) -> None:
        """Fail the answer with the first error given: no more of it is forwarded, and its usage is still decoded."""
        self.error, self._broken = self.error or error, True

    def end(self, *, maker: str = "") -> list[StreamEvent]:
        """Return the last events: the rest of the text, the tool calls, the end of the message.

        Args:
            maker: The requested model that the reasoning goes back to.

        Raises:
            TurnTooLarge: The message does not fit a database document.
        """
        events: list[StreamEvent] = []
        self._flush_surrogates(events)
        signature = self._details.signature(maker)
        if signature is not None:
            self._switch("reasoning", events)
            events.append(_delta({"reasoningContent": {"signature": signature}}))
        self._switch(None, events)
        calls = self._tool_calls.complete(self._taken_ids)
        for call in calls:
            events += _tool_events(call)
        others = sum(_size(call.input) for call in calls) + (_size(signature) if signature else 0)
        limit = self._limits.message_bytes - others
        if self._size + self._max_uncounted > limit and self._count() > limit:
            raise _too_large()
        reason = stop_reason(self.finish_reason, calls=bool(calls), refused=self._refusal)
        events.append({"messageStop": {"stopReason": reason}})
        return events

    def _add_facts(self, chunk: dict[str, Any]) -> None:
        facts = (chunk.get("id"), chunk.get("model"), chunk.get("provider"))
        if facts != self._facts:  # each chunk repeats them
            self._facts = facts
            self.generation_id = self.generation_id or id_of(facts[0])
            self.served_model = name_of(facts[1]) or self.served_model
            self.provider = name_of(facts[2]) or self.provider
        if chunk.get("error"):
            self._provider_error = True
            if not isinstance(self.error, TurnTooLarge):
                self.error = from_body(500, chunk, self.headers, secrets=self._secrets)

    def _add_usage(self, usage: Any) -> None:
        self.usage = merge_usage(self.usage, usage)
        if isinstance(usage, dict) and usage.get("cost") is not None:
            self._cost_is_final = self.finish_reason is not None or self.error is not None

    def _add_choice(self, choice: dict[str, Any], events: list[StreamEvent]) -> None:
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict) and not self._broken:
            self._add_delta(delta, events, repeats=self.has_output and not choice.get("delta"))
        if choice.get("error") and self.error is None:
            self.error = from_body(500, choice, {}, secrets=self._secrets)
        # The usage chunk repeats the finish reason or has none.
        if reason := name_of(choice.get("finish_reason")):
            self.finish_reason = reason
            self.error = self.error or finish_error(reason)
            self._flush_surrogates(events)

    def _add_delta(self, delta: dict[str, Any], events: list[StreamEvent], *, repeats: bool) -> None:
        if len(delta) == _TEXT_FIELDS and "role" in delta and not repeats and (content := delta.get("content")):
            self._add("text", content, events)  # nearly all deltas have nothing else
        else:
            self._add_parts(delta, events, repeats=repeats)

    def _add_parts(self, delta: dict[str, Any], events: list[StreamEvent], *, repeats: bool) -> None:
        if details := delta.get("reasoning_details"):
            self._details.add(details)
        if not repeats:
            if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):
                if not isinstance(reasoning, str):
                    reasoning = delta.get("reasoning_content")
                self._add("reasoning", reasoning, events)
            if content := delta.get("content"):
                self._add("text", content, events)
            if refusal := delta.get("refusal"):
                self._refuse(refusal, events)
        if annotations := delta.get("annotations"):
            self._citations = self._citations or CitationCollector()
            self._citations.add(annotations)
        if calls := delta.get("tool_calls"):
            self.has_output = self._tool_calls.add(calls) or self.has_output
            if self._tool_calls.too_many:
                self.fail(_too_large())

    def _send_citations(self, citations: CitationCollector) -> None:
        """Send the listener the citations; those that precede the output wait for it, as a retry would repeat them."""
        found = citations.take() if self.has_output else ()
        if not found or self._listener is None or isinstance(self.error, TurnTooLarge):
            return
        try:
            self._listener.citations(found)
        except TurnTooLarge as error:
            self.fail(error)

    def _refuse(self, refusal: Any, events: list[StreamEvent]) -> None:
        if isinstance(refusal, str):
            self._refusal = True
            self._add("text", refusal, events)

    def _add(self, block: str, piece: Any, events: list[StreamEvent]) -> None:
        if type(piece) is not str or not piece.isascii() or self._surrogates:
            text, refuses = content_of(piece)
            self._refusal = self._refusal or refuses
            piece = self._surrogates.join(block, text)
            if not piece:
                return
        if block != self._open_block:
            self._switch(block, events)
        self._unsent.append(piece)
        self._buffered.append(piece)
        self.has_output = True

    def _flush_surrogates(self, events: list[StreamEvent]) -> None:
        """Add U+FFFD for each lone surrogate at the end of a piece."""
        for block, replacement in self._surrogates.flush():
            self._add(block, replacement, events)

    def _switch(self, block: str | None, events: list[StreamEvent]) -> None:
        if block == self._open_block:
            return
        if self._open_block is not None:
            self._notify()
            self._forward(events)
            events.append({"contentBlockStop": {}})
        if block is not None:
            events.append({"contentBlockStart": {"start": {}}})
        self._open_block, self._block_started = block, False

    def _notify(self) -> None:
        """Send the listener the unsent pieces of the open block."""
        if not self._unsent:
            return
        piece = "".join(self._unsent)
        self._unsent.clear()
        self._uncounted.append(piece)
        self._max_uncounted += _MAX_JSON_WIDTH * len(piece)
        limit = self._limits.text_bytes
        if self._size + self._max_uncounted > limit and self._count() > limit:
            self.fail(_too_large())
        elif self._listener is not None and not isinstance(self.error, TurnTooLarge):
            send = self._listener.text if self._open_block == "text" else self._listener.reasoning
            try:
                for part in (piece,) if len(piece) <= MAX_UNSPLIT else split_utf8(piece):
                    send(part)
            except TurnTooLarge as error:
                self.fail(error)

    def _count(self) -> int:
        """Return the bytes of text and reasoning as JSON; it is called only if their upper bound exceeds a limit."""
        self._size += sum(map(_size, self._uncounted))
        self._uncounted.clear()
        self._max_uncounted = 0
        return self._size

    def _forward(self, events: list[StreamEvent]) -> None:
        """Forward the buffered pieces of the open block to Strands."""
        if self._buffered:
            text = {"text": "".join(self._buffered)}
            events.append(_delta(text if self._open_block == "text" else {"reasoningContent": text}))
            self._buffered.clear()
            self._block_started = True


def _delta(delta: Any) -> StreamEvent:
    return {"contentBlockDelta": {"delta": delta}}


def _tool_events(call: ToolCall) -> list[StreamEvent]:
    start: Any = {"toolUse": {"toolUseId": call.id, "name": call.name}}  # without a signature, as Strands' providers
    return [
        {"contentBlockStart": {"start": start}},
        _delta({"toolUse": {"input": call.input}}),
        {"contentBlockStop": {}},
    ]


def _size(text: str) -> int:
    """Return the bytes of a text as JSON."""
    quoted = encode_basestring(text)
    return len(quoted) if quoted.isascii() else len(quoted.encode())


def _too_large() -> TurnTooLarge:
    return TurnTooLarge("The model's answer is larger than a message may be.")
