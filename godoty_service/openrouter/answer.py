"""Decodes an answer: OpenRouter's chunks in, Strands' stream events out, and what the ledger must know on the way.

Who reads along hears each piece at once. Strands gets a block's first piece, for its clock, and then the rest of the
block as one: its loop takes longer for a piece the more of them there were.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, Protocol

from strands.types.streaming import StreamEvent

from godoty_service.errors import GodotyError, ProviderUnavailable, TurnTooLarge
from godoty_service.openrouter import finish
from godoty_service.openrouter.chunk import DONE, incomplete, parse_chunk
from godoty_service.openrouter.failures import from_body
from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.openrouter.pieces import Halves, content_of, parts_of
from godoty_service.openrouter.reasoning import ReasoningDetails
from godoty_service.openrouter.reported_usage import merged, without_cost
from godoty_service.openrouter.responses import as_chat
from godoty_service.openrouter.text import SHORT, id_of, name_of, parts
from godoty_service.openrouter.tool_calls import ToolCalls

_WIDEST = 6  # bytes of a character in JSON at most


class Listener(Protocol):
    """Hears an answer as it comes."""

    def asking(self) -> None:
        """The request is in the ledger, and about to leave."""

    def text(self, piece: str) -> None:
        """Some more of the text."""

    def reasoning(self, piece: str) -> None:
        """Some more of the reasoning."""


class Answer:
    """One answer, as it comes in.

    Attributes:
        generation_id: The provider's id, from the headers or the first chunk.
        served_model: Who answered.
        provider: Who served it.
        finish_reason: Why it ended; None until it says.
        usage: What is known of the usage, its fractions as Decimal; None until some of it comes.
        error: What went wrong inside the stream.
        has_output: Something of the answer was handed out.
        headers: The response's.
        closed: The provider said that nothing follows.
    """

    def __init__(
        self,
        listener: Listener | None = None,
        *,
        limits: AnswerLimits | None = None,
        taken_ids: Callable[[], Collection[str]] = frozenset,
        secrets: Collection[str] = (),
    ) -> None:
        """Begin an answer.

        Args:
            listener: Hears text and reasoning.
            limits: Bounds of what is kept of it.
            taken_ids: Returns the ids of the tool calls that the conversation has already.
            secrets: Keys that are masked in the message of an error.
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
        self._facts: tuple[Any, Any, Any] = (None, None, None)  # as the last chunk told them
        self._told_error = False
        self._broken = False
        self._refusal = False
        self._cost_is_last = False
        self._size = 0  # of text and reasoning, in bytes of JSON, as far as it is counted
        self._uncounted: list[str] = []
        self._most = 0  # bytes that the uncounted take at most
        self._open_block: str | None = None
        self._fresh: list[str] = []  # of the open block: what nobody has heard yet
        self._held: list[str] = []  # of the open block: what Strands has not got yet
        self._begun = False  # of the open block: Strands has its first piece
        self._halves = Halves()
        self._tool_calls = ToolCalls(self._limits)
        self._details = ReasoningDetails(self._limits)

    @property
    def refused(self) -> bool:
        """Whether the provider said no, and nothing else: no generation stands behind it."""
        return self._told_error and self.generation_id is None and self.usage is None and not self.has_output

    @property
    def complete(self) -> bool:
        """Whether all that counts has come: why it ended, and what it took."""
        return self.finish_reason is not None and self.usage is not None and self.error is None

    @property
    def final_usage(self) -> dict[str, Any] | None:
        """The usage as it can be booked: a cost that came before the end of a broken or cancelled answer is left out.

        It is a running one. What came with the finish reason or an error, or after it, is the last, as is any once the
        provider has said that nothing follows.
        """
        if self.usage is None or self._cost_is_last or (self.closed and self.error is None):
            return self.usage
        return without_cost(self.usage)

    def read(self, pieces: Iterable[bytes]) -> list[StreamEvent]:
        """Take the data of events that arrived together, the one that says that nothing follows among them.

        An object that cannot be parsed makes the answer an error, unless the answer had its end already, and no more of
        it is handed out; but what the others tell of id, usage and cost is kept. What is no object is passed over: it
        keeps the connection alive.
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
                if (found := parts_of(data)) is not None:
                    chunks += found
                    self.closed = self.closed or data.endswith(DONE)
                    continue
                events += self.take(chunks)
                chunks.clear()
                if self.finish_reason is None:
                    self.fail(error)
        return events + self.take(chunks)

    def read_whole(self, documents: Iterable[bytes]) -> list[StreamEvent]:
        """Take an answer that is not streamed: one document, of the chat API or of the Responses API.

        Lines of one object each are the chunks of a stream.
        """
        events: list[StreamEvent] = []
        for data in documents:
            try:
                bodies = [as_chat(parse_chunk(data))]
            except ProviderUnavailable as error:
                bodies = parts_of(data) or []
                if not bodies:
                    self.fail(error)
            events += self.take(bodies)
            self.closed = self._cost_is_last = True
            if not any("choices" in body for body in bodies):
                self.fail(incomplete())
        return events

    def take(self, chunks: Iterable[dict[str, Any]]) -> list[StreamEvent]:
        """Take the chunks that arrived together."""
        events: list[StreamEvent] = []
        for chunk in chunks:
            self._take_facts(chunk)
            choices = chunk.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict):
                self._take_choice(choices[0], events)
            if usage := chunk.get("usage"):
                self._take_usage(usage)
        self._tell()
        if self._held and not self._begun:
            self._hand_on(events)
        return events

    def fail(self, error: GodotyError) -> None:
        """Make the answer an error, unless it is one: no more of it is handed out, and its usage is still read."""
        self.error, self._broken = self.error or error, True

    def end(self, *, maker: str = "") -> list[StreamEvent]:
        """Close what is open: the text, the tool calls, the message.

        Args:
            maker: The requested model that the reasoning goes back to.

        Raises:
            TurnTooLarge: The message does not fit a document of the database.
        """
        events: list[StreamEvent] = []
        self._add_halves(events)
        signature = self._details.signature(maker)
        if signature is not None:
            self._switch("reasoning", events)
            events.append(_delta({"reasoningContent": {"signature": signature}}))
        self._switch(None, events)
        calls = self._tool_calls.whole(self._taken_ids)
        for call in calls:
            use = {"toolUseId": call.id, "name": call.name}
            events.append({"contentBlockStart": {"start": {"toolUse": use}}})  # type: ignore[typeddict-item] # Strands' own providers leave the signature out, too
            events.append(_delta({"toolUse": {"input": call.input}}))
            events.append({"contentBlockStop": {}})
        others = sum(_size(call.input) for call in calls) + (_size(signature) if signature else 0)
        limit = self._limits.message_bytes - others
        if self._size + self._most > limit and self._counted() > limit:
            raise _too_large()
        reason = finish.stop_reason(self.finish_reason, calls=bool(calls), refused=self._refusal)
        events.append({"messageStop": {"stopReason": reason}})
        return events

    def _take_facts(self, chunk: dict[str, Any]) -> None:
        facts = (chunk.get("id"), chunk.get("model"), chunk.get("provider"))
        if facts != self._facts:  # each chunk repeats them
            self._facts = facts
            self.generation_id = self.generation_id or id_of(facts[0])
            self.served_model = name_of(facts[1]) or self.served_model
            self.provider = name_of(facts[2]) or self.provider
        if chunk.get("error"):
            self._told_error = True
            if not isinstance(self.error, TurnTooLarge):
                self.error = from_body(500, chunk, self.headers, secrets=self._secrets)

    def _take_usage(self, usage: Any) -> None:
        self.usage = merged(self.usage, usage)
        if isinstance(usage, dict) and usage.get("cost") is not None:
            self._cost_is_last = self.finish_reason is not None or self.error is not None

    def _take_choice(self, choice: dict[str, Any], events: list[StreamEvent]) -> None:
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict) and not self._broken:
            self._take_delta(delta, events, repeats=self.has_output and not choice.get("delta"))
        if choice.get("error") and self.error is None:
            self.error = from_body(500, choice, {}, secrets=self._secrets)
        # The usage chunk repeats the reason, or has none where the finish chunk had one.
        if reason := name_of(choice.get("finish_reason")):
            self.finish_reason = reason
            self.error = self.error or finish.failure(reason)
            self._add_halves(events)

    def _take_delta(self, delta: dict[str, Any], events: list[StreamEvent], *, repeats: bool) -> None:
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
        if calls := delta.get("tool_calls"):
            self.has_output = self._tool_calls.add(calls) or self.has_output
            if self._tool_calls.too_many:
                self.fail(_too_large())

    def _refuse(self, refusal: Any, events: list[StreamEvent]) -> None:
        if isinstance(refusal, str):
            self._refusal = True
            self._add("text", refusal, events)

    def _add(self, block: str, piece: Any, events: list[StreamEvent]) -> None:
        if type(piece) is not str or not piece.isascii() or self._halves:
            text, refuses = content_of(piece)
            self._refusal = self._refusal or refuses
            piece = self._halves.joined(block, text)
            if not piece:
                return
        if block != self._open_block:
            self._switch(block, events)
        self._fresh.append(piece)
        self._held.append(piece)
        self.has_output = True

    def _add_halves(self, events: list[StreamEvent]) -> None:
        """Add a replacement for halves of pairs whose other half has not come."""
        for block, half in self._halves.left():
            self._add(block, half, events)

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
        if not self._fresh:
            return
        piece = "".join(self._fresh)
        self._fresh.clear()
        self._uncounted.append(piece)
        self._most += _WIDEST * len(piece)
        if self._size + self._most > self._limits.text_bytes and self._counted() > self._limits.text_bytes:
            self.fail(_too_large())
        elif self._listener is not None and not isinstance(self.error, TurnTooLarge):
            tell = self._listener.text if self._open_block == "text" else self._listener.reasoning
            try:
                for part in (piece,) if len(piece) <= SHORT else parts(piece):
                    tell(part)
            except TurnTooLarge as error:
                self.fail(error)

    def _counted(self) -> int:
        """Return the bytes of text and reasoning as JSON."""
        self._size += sum(map(_size, self._uncounted))
        self._uncounted.clear()
        self._most = 0
        return self._size

    def _hand_on(self, events: list[StreamEvent]) -> None:
        """Let Strands have what it has not got of the open block."""
        if self._held:
            text = {"text": "".join(self._held)}
            events.append(_delta(text if self._open_block == "text" else {"reasoningContent": text}))
            self._held.clear()
            self._begun = True


def _delta(delta: Any) -> StreamEvent:
    return {"contentBlockDelta": {"delta": delta}}


def _size(text: str) -> int:
    """Return the bytes of a text as JSON."""
    quoted = encode_basestring(text)
    return len(quoted) if quoted.isascii() else len(quoted.encode())


def _too_large() -> TurnTooLarge:
    return TurnTooLarge("The model's answer is larger than a message may be.")
