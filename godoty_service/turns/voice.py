"""Hears the model's answer piece by piece: each is an event, and what was said so far is known if the turn breaks."""

from collections.abc import Callable

from godoty_service.turns.events import ReasoningDelta, TextDelta
from godoty_service.turns.log import EventLog


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
        self._log.append(TextDelta(piece))
        if not self._answered:
            self._answering()

    def reasoning(self, piece: str) -> None:
        """Some more of the reasoning."""
        self._log.append(ReasoningDelta(piece))
        if not self._answered:
            self._answering()

    def complete(self) -> None:
        """What was partial is a message now."""
        self._said.clear()

    def _answering(self) -> None:
        """Once the first piece has been told, what can wait for it is done."""
        self._answered = True
        self.on_answering()


def _nothing() -> None:
    """Nobody wants to know."""
