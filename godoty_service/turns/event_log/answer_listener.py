"""The listener of a turn's model: it appends each piece of the answer to the turn's event log."""

from collections.abc import Callable, Iterator, Sequence

from godoty_service.citations import Citation
from godoty_service.turns.event_log.events import Annotations, ReasoningDelta, TextDelta
from godoty_service.turns.event_log.log import EventLog

_MAX_DELTA = 16 * 1024  # characters of one event; a provider may send a whole answer in one piece


def _nothing() -> None:
    """Do nothing: no callback is set."""


def _discard(_: Sequence[Citation]) -> None:
    """Do nothing: no callback is set."""


class AnswerListener:
    """Receives the model's answer piece by piece: appends each piece, and retains an incomplete answer's text.

    Args:
        log: The turn's event log.
        on_request: Called before each request is sent.
        on_first_output: Called after the first piece of the turn's first answer was appended.
        on_citations: Called with citations of the answer.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        on_request: Callable[[], None] = _nothing,
        on_first_output: Callable[[], None] = _nothing,
        on_citations: Callable[[Sequence[Citation]], None] = _discard,
    ) -> None:
        self._log = log
        self._on_request = on_request
        self._on_first_output = on_first_output
        self._on_citations = on_citations
        self._pieces: list[str] = []
        self._has_output = False

    @property
    def partial(self) -> str:
        """The text so far of a message that is not complete."""
        return "".join(self._pieces)

    def on_request(self) -> None:
        """Handle a request that is about to be sent."""
        self._on_request()

    def text(self, piece: str) -> None:
        """Append a piece of the answer."""
        self._pieces.append(piece)
        for part in (piece,) if len(piece) <= _MAX_DELTA else _parts(piece):
            self._log.append(TextDelta(part))
        if not self._has_output:
            self._start_output()

    def reasoning(self, piece: str) -> None:
        """Append a piece of the reasoning."""
        for part in (piece,) if len(piece) <= _MAX_DELTA else _parts(piece):
            self._log.append(ReasoningDelta(part))
        if not self._has_output:
            self._start_output()

    def citations(self, found: Sequence[Citation]) -> None:
        """Append citations of the answer."""
        self._log.append(Annotations(tuple(found)))
        self._on_citations(found)

    def close(self) -> None:
        """Drop the callbacks.

        An agent's objects form reference cycles, which the garbage collector frees late; without this they would
        retain the session's totals and messages until then.
        """
        self._on_request = self._on_first_output = _nothing
        self._on_citations = _discard

    def complete(self) -> None:
        """Mark the text so far as a complete message."""
        self._pieces.clear()

    def _start_output(self) -> None:
        """Run the work that was deferred until the reader has the first piece."""
        self._has_output = True
        self._on_first_output()


def _parts(piece: str) -> Iterator[str]:
    """Split a piece so that each message of the stream has at most 64 KiB of it in UTF-8."""
    return (piece[start : start + _MAX_DELTA] for start in range(0, len(piece), _MAX_DELTA))
