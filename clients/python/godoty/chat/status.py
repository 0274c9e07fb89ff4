"""What the status line says: what the turn and the session have cost, who answers, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.cells import cell_len

from godoty.chat.formatting import format_duration, format_totals, short
from godoty.types import (
    CallState,
    Event,
    ModelCall,
    ModelCallFinished,
    TextDelta,
    TokenUsage,
    ToolCallStarted,
    Totals,
    TurnFinished,
    TurnStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_SEPARATOR = " · "
_NAME_WIDTH = 48  # columns of a model, a provider or a session


class Status:
    """The state of a session and of its latest turn.

    Args:
        clock: The seconds of a monotonic clock.

    Attributes:
        session_id: The session. Empty: its id is not known yet.
        session: Its totals at the end of the latest turn. None: they are not known.
        running: A turn runs.
        activity: What the turn does. Empty: it answers.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.session_id = ""
        self.session: Totals | None = None
        self.running = False
        self.activity = ""
        self._connected: Callable[[], bool] = lambda: True
        self._clear()

    def _clear(self) -> None:
        self._begin = self._clock()
        self._end: float | None = None
        self._first_token: float | None = None
        self._calls: list[ModelCall] = []
        self._turn: Totals | None = None

    def open(self, session_id: str, totals: Totals | None) -> None:
        """Record another session."""
        self.session_id, self.session = session_id, totals
        self._clear()
        self._end = self._begin

    def begin(self, connected: Callable[[], bool]) -> None:
        """Record that a message was sent.

        Args:
            connected: Returns whether the turn has a connection.
        """
        self._clear()
        self._connected = connected
        self.running, self.activity = True, "sending"

    def end(self) -> None:
        """Record that the turn has ended, in whichever way."""
        self.running, self.activity = False, ""
        self._end = self._clock()

    def receive(self, event: Event) -> None:
        """Record an event of the turn."""
        match event:
            case TurnStarted():
                self.session_id, self.session = event.session_id, event.totals
            case TextDelta() | ToolCallStarted():
                self._first_token = self._first_token or self._clock()
            case ModelCallFinished(call):
                self._calls.append(call)
            case TurnFinished():
                self.settle(event.turn_totals, event.session_totals)

    def settle(self, turn: Totals | None, session: Totals) -> None:
        """Record the totals at the end of a turn."""
        self._turn, self.session = turn, session

    @property
    def elapsed(self) -> timedelta:
        """The time since the message was sent, until the turn's end."""
        return timedelta(seconds=(self._end if self._end is not None else self._clock()) - self._begin)

    @property
    def turn(self) -> Totals:
        """The totals of the turn; while it runs, those of its calls that have ended."""
        if self._turn is not None:
            return self._turn
        settled = [call for call in self._calls if call.state is CallState.SETTLED]
        tokens = sum(call.usage.total_tokens or 0 for call in settled if call.usage is not None)
        return Totals(
            cost_usd=sum((call.cost_usd or Decimal(0) for call in settled), Decimal(0)),
            usage=TokenUsage(total_tokens=tokens),
            model_calls=len(self._calls),
            pending_calls=sum(call.state is CallState.PENDING for call in self._calls),
            unresolved_calls=sum(call.state is CallState.UNRESOLVED for call in self._calls),
        )

    def parts(self) -> list[str]:
        """Return the parts of the status line."""
        parts = [short(self.session_id, _NAME_WIDTH) or "new session"]
        if self._calls or self._turn is not None or self.running:
            parts.append(f"turn {format_totals(self.turn, turns=False)}")
        if self.session is not None:
            parts.append(f"session {format_totals(self.session)}")
        return [*parts, *self.served()]

    def served(self) -> list[str]:
        """Return who answered, and how fast."""
        parts = []
        if self._calls:
            latest = self._calls[-1]
            names = [short(name, _NAME_WIDTH) for name in (latest.served_model, latest.provider) if name]
            parts.append(" via ".join(names))
        if self._first_token is not None:
            parts.append(f"first token {format_duration(timedelta(seconds=self._first_token - self._begin))}")
        if self._calls:
            parts.append(format_duration(self.elapsed))
        return [part for part in parts if part]

    def progress(self) -> str:
        """Return what the running turn does, and for how long."""
        activity = self.activity or "answering" if self._connected() else "the connection is lost: resuming"
        return f"{activity}, {self.elapsed.total_seconds():.0f} s"


def wrapped(parts: Iterable[str], width: int) -> list[str]:
    """Return parts on as few lines as they fit on; one that is too long is wrapped at its commas, else cut."""
    lines: list[str] = []
    for part in parts:
        separator = _SEPARATOR
        for piece in [part] if cell_len(part) <= width else part.split(", "):
            cut = short(piece, max(width, 2))
            if lines and cell_len(lines[-1] + separator + cut) <= width:
                lines[-1] += separator + cut
            else:
                lines.append(cut)
            separator = ", "
    return lines
