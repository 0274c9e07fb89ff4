"""What is known of a turn while its events arrive, and which call comes next. It does no I/O.

`Turn` and `AsyncTurn` make the calls that `next_call` returns, and report each response by `receive`, each failure by
`fail` and the end of a stream by `end`. So a lost connection is one more call: Converse again with the same request id
until the turn has begun, then ResumeTurn after the last sequence.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar

import grpc

from godoty.calls import Call
from godoty.codec import event_from
from godoty.converse_request import Output, Prepared, Upload
from godoty.errors import ConnectionFailed, GodotyError
from godoty.reasons import DeadlineExceeded
from godoty.retries import Clock, Retries
from godoty.types import Annotations, Citation, ReasoningDelta, TextDelta, TurnEvent, TurnFinished, TurnStarted
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

_O = TypeVar("_O")

_UNAVAILABLE = {"STORAGE_UNAVAILABLE", "SHUTTING_DOWN", "TOO_MANY_WRONG_KEYS", "RATE_LIMITED"}
"""Reasons of servers that cannot take a call at the moment."""
_LIMITED = {"TOO_MANY_TURNS", "BUDGET_RESERVED"}
"""Reasons for which a turn cannot begin at the moment."""


class StreamCall(NamedTuple):
    """A call that streams the turn's events.

    Attributes:
        method: As in `Call`.
        request: The message.
        timeout: Its deadline in seconds. None: none.
    """

    method: str
    request: pb.ConverseRequest | pb.ResumeTurnRequest
    timeout: float | None


class TurnProgress(Generic[_O]):
    """The state of one turn.

    Args:
        prepared: The request. None: a turn that runs already is read.
        turn_id: The turn that is read. Empty: the server gives it one.
        after: The sequence after which it is read.
        output: What the turn's value is.
        disconnect_grace: Seconds without a connection after which a turn that has begun is given up.
        connect_timeout: Seconds after which one is given up that has not begun.
        clock: The seconds of a monotonic clock.

    Attributes:
        ended: The turn has ended, or was given up or left.
        cursor: The sequence of the last event.
        started: The event of its start. None: it has not come.
        finished: The event of its end. None: it has not come.
        citations: The web pages that the answer cites.
        lost_connections: How often the connection was lost since the turn began.
    """

    def __init__(
        self,
        prepared: Prepared | None,
        *,
        turn_id: str = "",
        after: int = 0,
        output: Output[_O] | None = None,
        disconnect_grace: float,
        connect_timeout: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._prepared = prepared
        self._output = output
        self._grace = disconnect_grace
        self._connect_timeout = connect_timeout
        self._clock = clock
        self._retries = Retries(clock)
        self._deadline: float | None = None
        self._answered = False  # the current call has had a response
        self._sent = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self.ended = False
        self.turn_id = turn_id
        self.session_id = prepared.request.session_id if prepared is not None else ""
        self.cursor = after
        self.started: TurnStarted | None = None
        self.finished: TurnFinished | None = None
        self.citations: list[Citation] = []
        self.lost_connections = 0

    @property
    def connected(self) -> bool:
        """Whether no connection was lost, or the turn has gone on since."""
        return not self._retries.waiting

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        return _joined(self._text)

    @property
    def reasoning(self) -> str:
        """The text of the reasoning so far."""
        return _joined(self._reasoning)

    @property
    def cost(self) -> Decimal | None:
        """The cost of the turn; None as long as it is not known of each call."""
        if self.finished is None:
            return None
        totals = self.finished.turn_totals
        return None if totals.pending_calls or totals.unresolved_calls else totals.cost_usd

    @property
    def output(self) -> _O | None:
        """The turn's value by its output schema; None: there is none."""
        if self._output is None or self.finished is None or self.finished.output_json is None:
            return None
        return self._output.parse(self.finished.output_json)

    @property
    def request_id(self) -> str:
        """The request id; empty for a turn that ran already."""
        return self._prepared.request.request_id if self._prepared is not None else ""

    def pending_uploads(self) -> tuple[Upload, ...]:
        """Return the attachments that must be uploaded before the first call."""
        return self._prepared.uploads if self._prepared is not None and not self._sent else ()

    def uploaded(self, upload: Upload, attachment_id: str) -> None:
        """Record the id of an uploaded attachment."""
        if self._prepared is not None:
            self._prepared.request.attachments[upload.place].attachment_id = attachment_id

    def next_call(self) -> StreamCall:
        """Return the call that reads on: the first one, or the one after a failure."""
        # A turn that waits for answers to its actions would go on here: with the results of client tools and approvals,
        # which its loop has gathered, in the request of another call.
        if not self._sent and self._prepared is not None and self._prepared.timeout is not None:
            self._deadline = self._clock() + self._prepared.timeout
        self._sent, self._answered = True, False
        timeout = None if self._deadline is None else max(self._deadline - self._clock(), 0.0)
        if self._prepared is not None and self.started is None:
            return StreamCall("AgentService.Converse", self._prepared.request, timeout)
        request = pb.ResumeTurnRequest(turn_id=self.turn_id, after_sequence=self.cursor)
        return StreamCall("AgentService.ResumeTurn", request, timeout)

    def receive(self, message: turn_pb.TurnEvent) -> TurnEvent | None:
        """Record an event; return it if it is one to be shown."""
        self._answered = True
        self._retries.reset()
        if not self.turn_id:
            self.turn_id = message.turn_id
        if message.sequence <= self.cursor:  # a heartbeat, or an event of before
            return None
        self.cursor = message.sequence
        event = event_from(message)
        match event:
            case TextDelta(text):
                self._text.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case Annotations(citations):
                self.citations += citations
            case TurnStarted():
                self.started, self.session_id = event, event.session_id
            case TurnFinished():
                self.finished, self.ended = event, True
        return event

    def fail(self, error: GodotyError) -> float:
        """Record the failure of a call; return the seconds to wait before the next one.

        Raises:
            GodotyError: There is no next one: the turn has failed, or is given up.
        """
        within = self._patience(error)
        delay = self._retries.delay(error, within=within, deadline=self._deadline) if within else None
        if delay is None:
            if not isinstance(error, ConnectionFailed) and not _is_own_deadline(error):
                self.ended = True
            raise error
        if self.started is not None:
            self.lost_connections += 1
        return delay

    def end(self) -> float:
        """Record that a stream has ended without the turn's end, as `fail` does."""
        return self.fail(ConnectionFailed(grpc.StatusCode.UNAVAILABLE, "the stream ended before the turn did"))

    def leave(self) -> Generator[Call[Any], Any, None]:
        """Yield the calls by which a turn that is not read to its end is cancelled; take their results."""
        if self.ended:
            return
        self.ended = True
        if not self._sent or self._prepared is None or self._continues():
            return
        if not self.turn_id:
            self.turn_id = yield self._find()
        if self.turn_id:
            yield cancellation(self.turn_id)

    def _patience(self, error: GodotyError) -> float:
        """Return the seconds in which the call is made again after such an error; 0: it is not."""
        lost = isinstance(error, ConnectionFailed)
        if self.started is None and self._prepared is not None:
            return self._connect_timeout if lost or error.reason in _UNAVAILABLE | _LIMITED else 0.0
        # After an event of this call, a reason is that of the turn's end.
        return self._grace if lost or (not self._answered and error.reason in _UNAVAILABLE) else 0.0

    def _continues(self) -> bool:
        return self._prepared is not None and self._prepared.request.on_disconnect == turn_pb.ON_DISCONNECT_CONTINUE

    def _find(self) -> Call[str]:
        """Return the call that finds the turn of a request whose first event has not come."""
        request = pb.ListTurnsRequest(session_id=self.session_id)
        return Call(
            "AgentService.ListTurns",
            request,
            lambda page: next((each.turn_id for each in page.turns if each.request_id == self.request_id), ""),
        )


def cancellation(turn_id: str) -> Call[None]:
    """Return the call that cancels a turn."""
    return Call("AgentService.CancelTurn", pb.CancelTurnRequest(turn_id=turn_id), lambda _: None)


def _is_own_deadline(error: GodotyError) -> bool:
    return isinstance(error, DeadlineExceeded) and not error.reason


def _joined(parts: list[str]) -> str:
    if len(parts) > 1:
        parts[:] = ["".join(parts)]
    return parts[0] if parts else ""
