"""A model's answer to an output schema, read from the events of its stream."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from strands.types.content import ContentBlock, Message, Messages
from strands.types.streaming import StreamEvent

from godoty_service import exact_json
from godoty_service.openrouter.decoding.tool_calls import unparsed_input

_MAX_QUOTED = 16_000  # characters of a refused answer that the model sees again
_NORMAL = frozenset({"end_turn", "tool_use"})


@dataclass(slots=True)
class _Block:
    """A block of an answer.

    Attributes:
        kind: "text", "reasoningContent", "toolUse", or "final": a call of the tool for the answer.
        events: Its events.
        tool_call_id: The id of a call.
        text: Its text, or the input of a call.
    """

    kind: str = "text"
    events: list[StreamEvent] = field(default_factory=list)
    tool_call_id: str = ""
    text: str = ""


class OutputAnswer:
    """One answer.

    Attributes:
        call: The event with its ledger entry; None: it has not ended, or failed.
    """

    def __init__(self, tool: str) -> None:
        """Create it without an event.

        Args:
            tool: The name of the tool for the answer.
        """
        self._tool = tool
        self._blocks: list[_Block] = []
        self._stop = "end_turn"
        self._metadata: dict[str, Any] = {}
        self.call: StreamEvent | None = None

    def add(self, event: StreamEvent) -> bool:
        """Add an event; return whether it is to be passed on at once: the end of a call that has failed."""
        fields: dict[str, Any] = dict(event)
        if entry := fields.get("modelCall"):
            self.call = None if entry.error else event
            return bool(entry.error)
        if "contentBlockStart" in fields:
            self._blocks.append(self._begin(fields["contentBlockStart"]["start"]))
        if "contentBlockDelta" in fields:
            self._extend(self._blocks[-1], fields["contentBlockDelta"]["delta"])
        if "messageStop" in fields:
            self._stop = fields["messageStop"]["stopReason"]
        elif "metadata" in fields:
            self._metadata = fields["metadata"]
        elif self._blocks:
            self._blocks[-1].events.append(event)
        return False

    @property
    def begun(self) -> bool:
        """Whether some of it has arrived."""
        return bool(self._blocks)

    @property
    def usage(self) -> Mapping[str, int]:
        """Its tokens, as Strands counts them."""
        usage: Mapping[str, int] = self._metadata.get("usage", {})
        return usage

    @property
    def is_whole(self) -> bool:
        """Whether it is meant as the final answer: no limit has cut it, no filter stopped it, and it calls no tool."""
        return self._stop in _NORMAL and not any(each.kind == "toolUse" for each in self._blocks)

    @property
    def text(self) -> str:
        """The text that it is shown as; of one that was cut also the part of the input for the answer."""
        kinds = {"text"} if self._stop in _NORMAL else {"text", "final"}
        return "".join(_readable(each) for each in self._blocks if each.kind in kinds)

    @property
    def candidates(self) -> list[tuple[str, str | None]]:
        """What may be the value, as JSON, each with why it is none. Calls of the tool for it precede the text."""
        finals = [_input_of(each) for each in self._blocks if each.kind == "final"]
        return finals or [(self.text, None if self.text.strip() else "there is none")]

    def forwarded(self, used: Mapping[str, int]) -> Iterator[StreamEvent]:
        """Yield its events without those calls.

        Args:
            used: Tokens of the answers before it.
        """
        for each in self._blocks:
            if each.kind != "final":
                yield from each.events
            elif self._stop not in _NORMAL and each.text:
                yield from _text_events(_readable(each))
        yield from self._closing(self._stop, used)

    def answered(self, output: str, used: Mapping[str, int]) -> Iterator[StreamEvent]:
        """Yield the events of an answer with its reasoning, and the value as its text.

        What a provider signed stays only if the value was the answer's text: it would miss the call.
        """
        signed = not any(each.kind == "final" for each in self._blocks)
        for each in self._blocks:
            if each.kind == "reasoningContent":
                yield from (event for event in each.events if signed or not _has_signature(event))
        yield from _text_events(output)
        yield from self._closing("end_turn", used)

    def correction(self, fault: str) -> Messages:
        """Return the messages that make the model answer again: its answer, and why it is not valid."""
        finals = [each for each in self._blocks if each.kind == "final"]
        content: list[ContentBlock] = [{"text": self.text[:_MAX_QUOTED]}] if self.text.strip() else []
        text = f"The answer is not valid: {fault}. Give the whole answer again, by the schema."
        if not finals:
            return [
                Message(role="assistant", content=content or [{"text": "[no answer]"}]),
                Message(role="user", content=[{"text": text}]),
            ]
        results: list[ContentBlock] = []
        for each in finals:
            use_id = each.tool_call_id
            content.append({"toolUse": {"toolUseId": use_id, "name": self._tool, "input": _quoted(each.text)}})
            results.append({"toolResult": {"toolUseId": use_id, "status": "error", "content": [{"text": text}]}})
        return [Message(role="assistant", content=content), Message(role="user", content=results)]

    def _begin(self, start: Any) -> _Block:
        use = start.get("toolUse")
        if use is None:
            return _Block()
        return _Block(kind="final" if use["name"] == self._tool else "toolUse", tool_call_id=use["toolUseId"])

    @staticmethod
    def _extend(block: _Block, delta: Any) -> None:
        if "toolUse" in delta:
            block.text += delta["toolUse"]["input"]
        elif "text" in delta:
            block.text += delta["text"]
        else:
            block.kind = "reasoningContent"

    def _closing(self, stop: str, used: Mapping[str, int]) -> Iterator[StreamEvent]:
        usage = {name: count + used.get(name, 0) for name, count in self.usage.items()}
        yield {"messageStop": {"stopReason": stop}}  # type: ignore[typeddict-item] # as it came
        yield {"metadata": {**self._metadata, "usage": usage}}  # type: ignore[typeddict-item] # the same


def _text_events(text: str) -> Iterator[StreamEvent]:
    yield {"contentBlockStart": {"start": {}}}
    yield {"contentBlockDelta": {"delta": {"text": text}}}
    yield {"contentBlockStop": {}}


def _has_signature(event: StreamEvent) -> bool:
    delta: Any = event.get("contentBlockDelta", {}).get("delta", {})
    return "signature" in delta.get("reasoningContent", {})


def _input_of(block: _Block) -> tuple[str, str | None]:
    """Return the input of a call, and why it is no valid one."""
    unparsed = unparsed_input(exact_json.loads(block.text))
    return (block.text, None) if unparsed is None else unparsed


def _readable(block: _Block) -> str:
    return block.text if block.kind != "final" else _input_of(block)[0]


def _quoted(text: str) -> Any:
    """Return an input as the model sees it again."""
    if len(text) > _MAX_QUOTED:
        return {"cut": text[:_MAX_QUOTED]}
    return exact_json.loads(text)
