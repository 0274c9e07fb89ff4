"""Hears the model's answer piece by piece: each is an event, and what was said so far is known if the turn breaks."""

from collections.abc import Callable, Iterator

from godoty_service.turns.events import ReasoningDelta, TextDelta
from godoty_service.turns.log import EventLog

_LARGEST_DELTA = 16 * 1024  # characters of one event; a provider may send a whole answer in one piece


class Voice:
    """A listener of the turn's model."""

    def __init__(self, log: EventLog) -> None:
        self.on_asking: Callable[[], None] = _nothing
        self.on_answering: Callable[[], None] = _nothing
        self._log = log
        self._said: list[str] = []
        self._answered = False

    @property
    def partial(self) -> str:
        """What has been said of a message that is not complete."""
        return "".join(self._said)

    def asking(self) -> None:
        """A request is about to leave."""
        self.on_asking()

    def text(self, piece: str) -> None:
        """Some more of the answer."""
        self._said.append(piece)
        for part in (piece,) if len(piece) <= _LARGEST_DELTA else _parts(piece):
            self._log.append(TextDelta(part))
        if not self._answered:
            self._answering()

    def reasoning(self, piece: str) -> None:
        """Some more of the reasoning."""
        for part in (piece,) if len(piece) <= _LARGEST_DELTA else _parts(piece):
            self._log.append(ReasoningDelta(part))
        if not self._answered:
            self._answering()

    def close(self) -> None:
        """Drop what it calls. An agent's objects refer to one another in cycles: what they hold is freed late."""
        self.on_asking = self.on_answering = _nothing

    def complete(self) -> None:
        """What was partial is a message now."""
        self._said.clear()

    def _answering(self) -> None:
        """Once the first piece has been told, what can wait for it is done."""
        self._answered = True
        self.on_answering()


def _parts(piece: str) -> Iterator[str]:
    """Cut a piece so that each message of the stream has at most 64 KiB of it, in UTF-8."""
    return (piece[place : place + _LARGEST_DELTA] for place in range(0, len(piece), _LARGEST_DELTA))


def _nothing() -> None:
    """Nobody wants to know."""
