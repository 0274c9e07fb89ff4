"""What is known of a turn, for its caller."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Generic, TypeVar

from godoty.connection import AsyncConnection, Connection
from godoty.turns.progress import TurnProgress
from godoty.types import Action, Citation, StopReason, Totals, TurnFinished, TurnStarted

_O = TypeVar("_O")

LEAVE_TIMEOUT = 5.0
"""Seconds: without an answer the turn is cancelled by the server, after its grace."""


class TurnView(Generic[_O]):
    """What is known of a turn, whether it still runs or has ended.

    A turn whose client tools or approvals were answered goes on in another one, and is one turn here: text, cost and
    totals are of all of them.
    """

    def __init__(self, progress: TurnProgress[_O]) -> None:
        self._progress = progress

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.turn_id or 'not begun'} of session {self.session_id or 'not known yet'}>"

    @property
    def turn_id(self) -> str:
        """The turn's id, the last one's of `turn_ids`; empty until its first event has come."""
        return self._progress.turn_id

    @property
    def turn_ids(self) -> tuple[str, ...]:
        """The turns that were read: the first, and those that went on with answers."""
        return tuple(self._progress.turn_ids)

    @property
    def session_id(self) -> str:
        """The session's id; empty until `TurnStarted` has come, unless `converse` was given one."""
        return self._progress.session_id

    @property
    def request_id(self) -> str:
        """The request id, by which a repeated request is not charged again."""
        return self._progress.request_id

    @property
    def sequence(self) -> int:
        """The sequence of the last event, after which `resume` continues."""
        return self._progress.cursor

    @property
    def text(self) -> str:
        """The text of the answer so far; of `wait()`, the whole one."""
        return self._progress.text

    @property
    def reasoning(self) -> str:
        """The text of the model's reasoning so far."""
        return self._progress.reasoning

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The web pages that the answer cites so far."""
        return tuple(self._progress.citations)

    @property
    def output(self) -> _O | None:
        """The turn's value by its output schema; of a pydantic class, its instance. None: there is none (yet)."""
        return self._progress.output

    @property
    def cost(self) -> Decimal | None:
        """The cost of the turn in US dollars. None: the turn has not ended, or the cost of a call is not known yet."""
        return self._progress.cost

    @property
    def totals(self) -> Totals | None:
        """Cost and usage of the turn. None: it has not ended."""
        return self._progress.totals if self.finished is not None else None

    @property
    def session_totals(self) -> Totals | None:
        """Cost and usage of the session with this turn. None: the turn has not ended."""
        return self.finished.session_totals if self.finished is not None else None

    @property
    def stop_reason(self) -> StopReason | None:
        """The reason why the turn ended. None: it has not ended, or ended with an error."""
        return self.finished.stop_reason if self.finished is not None else None

    @property
    def started(self) -> TurnStarted | None:
        """The event of its start. None: it has not come."""
        return self._progress.started

    @property
    def finished(self) -> TurnFinished | None:
        """The event of its end. None: it has not come."""
        return self._progress.finished

    @property
    def connected(self) -> bool:
        """False while a lost connection is made again."""
        return self._progress.connected

    @property
    def lost_connections(self) -> int:
        """How often the connection was lost since the turn began, whether it was made again or not."""
        return self._progress.lost_connections

    @property
    def actions(self) -> tuple[Action, ...]:
        """The open actions with which the turn has ended (`ACTION_REQUIRED`); empty: it needs no answers.

        Their inputs are there unless the turn was resumed after them: `client.actions.list` has those.
        """
        return self._progress.actions


def abandon(progress: TurnProgress[Any], call: Any, connection: Connection | AsyncConnection) -> None:
    """End a turn to which there is no reference any more, without waiting for it."""
    if call is not None:
        call.cancel()
    for each in progress.leave(search=False):
        connection.send(each)
