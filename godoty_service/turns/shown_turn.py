"""What the log of a turn shows of its answers and tools: enough to complete the messages of a dead server. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from strands.types.content import ContentBlock

from godoty_service.turns.events import Event, ModelCallFinished, TextDelta, ToolCallFinished


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTurn:
    """What a turn's readers could see of it.

    Attributes:
        answers: The texts of the answers, in order; one without text is left out, the last may be incomplete.
        results: The results of the tools that ended, by the id of the tool call.
    """

    answers: tuple[str, ...] = ()
    results: Mapping[str, ContentBlock] = field(default_factory=dict)

    def text_after(self, answers: int) -> str:
        """Return the text that follows a number of answers."""
        return "\n\n".join(self.answers[answers:])


def shown_turn(events: Iterable[Event]) -> ShownTurn:
    """Return what the events of a turn show. A model call ends an answer."""
    answers: list[list[str]] = [[]]
    results: dict[str, ContentBlock] = {}
    for event in events:
        match event:
            case TextDelta(text=text):
                answers[-1].append(text)
            case ModelCallFinished():
                answers.append([])
            case ToolCallFinished(tool_call_id=tool_call_id):
                results[tool_call_id] = _result(event)
    texts = ("".join(pieces) for pieces in answers)
    return ShownTurn(answers=tuple(text for text in texts if text), results=results)


def _result(event: ToolCallFinished) -> ContentBlock:
    return {
        "toolResult": {
            "toolUseId": event.tool_call_id,
            "status": "success" if event.succeeded else "error",
            "content": [{"text": event.output}],
        }
    }
