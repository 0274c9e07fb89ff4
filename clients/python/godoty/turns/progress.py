"""What is known of a turn while its events arrive, and which call comes next. It does no I/O.

`Turn` and `AsyncTurn` make the calls that `next_call` returns, and report each response by `receive`, each failure by
`fail` and the end of a stream by `end`. So a lost connection is one more call: Converse again with the same request id
until the turn has begun, then ResumeTurn after the last sequence.

A turn that ends with actions which its caller's tools or approvals answer goes on in another one, as if it were one:
while `answering`, its `questions` are asked, and the next call is Converse with the answers.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar, cast

import grpc

from godoty.actions.answers import Answers, Question, Responder, answers_to
from godoty.actions.tools import by_name
from godoty.calls import Call
from godoty.codec import event_from
from godoty.errors import ConnectionFailed, GodotyError
from godoty.operations.attachments import Upload
from godoty.reasons import DeadlineExceeded, ReviewerOnly
from godoty.retries import UNAVAILABLE, Clock, Retries
from godoty.turns.options import ConverseOptions, TurnOptions
from godoty.turns.request import Output, Prepared, follow_up, prepare
from godoty.turns.totals import added
from godoty.types import (
    Action,
    Annotations,
    Citation,
    ReasoningDelta,
    StopReason,
    TextDelta,
    Totals,
    TurnEvent,
    TurnFinished,
    TurnStarted,
)
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

_O = TypeVar("_O")

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
    """The state of one turn, with those that go on with its answers.

    Args:
        prepared: The request. None: a turn that runs already is read.
        turn_id: The turn that is read. Empty: the server gives it one.
        after: The sequence after which it is read.
        output: What the turn's value is.
        responder: Answers the turn's actions, unless it is one that runs already.
        disconnect_grace: Seconds without a connection after which a turn that has begun is given up.
        connect_timeout: Seconds after which one is given up that has not begun.
        clock: The seconds of a monotonic clock.

    Attributes:
        ended: The turn has ended, or was given up or left.
        answering: It waits for answers of the responder.
        turn_ids: The turns that were read.
        cursor: The sequence of the last event of the last of them.
        started: The event of its start. None: it has not come.
        finished: The event of the end of the last of them. None: it has not come.
        totals: Cost and usage of those that have ended. None: none has.
        actions: The open actions with which the last of them has ended.
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
        responder: Responder | None = None,
        disconnect_grace: float,
        connect_timeout: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._prepared = prepared
        self._request = prepared.request if prepared is not None else None  # of the last turn
        self._output = output
        self._responder = responder or Responder()
        self._answers = Answers(self._responder)
        self._grace = disconnect_grace
        self._connect_timeout = connect_timeout
        self._clock = clock
        self._retries = Retries(clock)
        self._deadline: float | None = None
        self._answered = False  # the current call has had a response
        self._sent = False
        self._begun = prepared is None  # the last turn has
        self._turn_id = turn_id  # of the last turn; empty: its first event has not come
        self._follow_ups = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._inputs: dict[str, Action] = {}
        self.ended = False
        self.answering = False
        self.turn_ids: list[str] = [turn_id] if turn_id else []
        self.session_id = prepared.request.session_id if prepared is not None else ""
        self.cursor = after
        self.started: TurnStarted | None = None
        self.finished: TurnFinished | None = None
        self.totals: Totals | None = None
        self.actions: tuple[Action, ...] = ()
        self.citations: list[Citation] = []
        self.lost_connections = 0

    @property
    def connected(self) -> bool:
        """Whether no connection was lost, or the turn has gone on since."""
        return not self._retries.waiting

    @property
    def turn_id(self) -> str:
        """The last turn that was read; empty: no event has come."""
        return self.turn_ids[-1] if self.turn_ids else ""

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
        """The cost of the turns; None as long as one runs, or it is not known of each call."""
        if self.finished is None or self.totals is None or self.totals.pending_calls or self.totals.unresolved_calls:
            return None
        return self.totals.cost_usd

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

    def questions(self) -> list[Question]:
        """Return the calls of the responder's code that answer actions; none may take longer than the turn."""
        left = self._left()
        found = self._answers.questions() if self.answering else []
        if left is None:
            return found
        return [each._replace(timeout=left if each.timeout is None else min(each.timeout, left)) for each in found]

    def answered(self, question: Question, value: Any) -> None:
        """Record the result of a question.

        Raises:
            TypeError: An approval callback has returned no decision.
        """
        self._answers.answered(question, value)

    def unanswered(self, question: Question, error: Exception) -> None:
        """Record that a question has failed.

        Raises:
            DeadlineExceeded: It was an approval, and has taken longer than the turn may.
            Exception: The error of an approval callback; that of a tool is for the model.
        """
        if not question.is_tool:
            self._check_deadline(error)
        self._answers.failed(question, error)

    def pending_uploads(self) -> list[Upload]:
        """Return what must be uploaded before the next call."""
        if self.answering:
            return self._answers.uploads()
        uploads = self._prepared.uploads if self._prepared is not None and not self._sent else ()
        return [each for each in uploads if each.is_due]

    def next_call(self) -> StreamCall | None:
        """Return the call that reads on: the first one, the one after a failure, or the one with answers.

        Returns:
            None: nothing was answered, and the turn has ended.

        Raises:
            DeadlineExceeded: The answers have come too late.
        """
        if self.answering and not self._go_on():
            return None
        if not self._sent and self._prepared is not None and self._prepared.timeout is not None:
            self._deadline = self._clock() + self._prepared.timeout
        self._sent, self._answered = True, False
        if self._request is not None and not self._begun:
            return StreamCall("AgentService.Converse", self._request, self._left())
        request = pb.ResumeTurnRequest(turn_id=self._turn_id, after_sequence=self.cursor)
        return StreamCall("AgentService.ResumeTurn", request, self._left())

    def receive(self, message: turn_pb.TurnEvent) -> TurnEvent | None:
        """Record an event; return it if it is one to be shown."""
        if not self._answered:
            self._answered = True
            self._retries.reset()
        if not self._turn_id:
            self._turn_id = message.turn_id
            self.turn_ids.append(message.turn_id)
        sequence = message.sequence
        if sequence <= self.cursor:  # a heartbeat, or an event of before
            return None
        self.cursor = sequence
        event = event_from(message)
        if type(event) is TextDelta:  # most events are; a pattern takes longer
            self._text.append(event.text)
            return event
        match event:
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case Annotations(citations):
                self.citations += citations
            case Action():
                self._inputs[event.action_id] = event
            case TurnStarted():
                self._start(event)
            case TurnFinished():
                self._finish(event)
        return event

    def fail(self, error: GodotyError) -> float:
        """Record the failure of a call; return the seconds to wait before the next one.

        Raises:
            GodotyError: There is no next one: the turn has failed, or is given up.
        """
        if isinstance(error, ReviewerOnly) and self._follow_ups and not self._begun:
            self._answers.refuse()
            self.answering = True
            return 0.0
        within = self._patience(error)
        was_connected = self.connected
        delay = self._retries.delay(error, within=within, deadline=self._deadline) if within else None
        if delay is None:
            if not isinstance(error, ConnectionFailed) and not _is_own_deadline(error):
                self.ended = True
            raise error
        self.lost_connections += self._begun and was_connected
        return delay

    def end(self) -> float:
        """Record that a stream has ended without the turn's end, as `fail` does."""
        return self.fail(ConnectionFailed(grpc.StatusCode.UNAVAILABLE, "the stream ended before the turn did"))

    def leave(self, *, search: bool = True) -> Generator[Call[Any], Any, None]:
        """Yield the calls by which a turn that is not read to its end is cancelled; take their results.

        Args:
            search: Whether one whose first event has not come is looked for.
        """
        if self.ended:
            return
        self.ended = True
        if not self._sent or self._request is None or self.answering or self._continues():
            return
        if not self._turn_id and search:
            self._turn_id = (yield self._find(self._request)) or ""
        if self._turn_id:
            yield cancellation(self._turn_id)

    def continuation(self, given: Mapping[str, object], options: TurnOptions) -> TurnProgress[_O]:
        """Return the progress of the turn that goes on with a caller's answers to the open actions.

        Raises:
            ValueError: There is no such action, or no answer.
            TypeError: One to an approval is no decision.
        """
        responder = responder_of(options, self._responder)
        wanted = cast("ConverseOptions", {**options, "session": self.session_id})
        prepared = prepare(
            "", wanted, output=None, disconnect_grace=self._grace, answers=answers_to(self.actions, given)
        )
        return TurnProgress(
            prepared,
            output=self._output,
            responder=responder,
            disconnect_grace=self._grace,
            connect_timeout=self._connect_timeout,
            clock=self._clock,
        )

    def _start(self, event: TurnStarted) -> None:
        self._begun, self.session_id = True, event.session_id
        self.started = self.started or event
        self.finished, self.actions = None, ()
        self._answers.delivered()

    def _finish(self, event: TurnFinished) -> None:
        self.finished = event
        self.totals = added(self.totals, event.turn_totals)
        self.actions = tuple(self._inputs.get(each.action_id, each) for each in event.actions)
        if self.actions:
            self.session_id = self.actions[0].session_id
        asks = event.stop_reason is StopReason.ACTION_REQUIRED and self._prepared is not None
        self.answering = asks and self._answers.open(self.actions)
        self.ended = not self.answering

    def _go_on(self) -> bool:
        """Make the request with the answers; return False if there are none."""
        self._check_deadline()
        self.answering = False
        results = self._answers.next_results()
        if not results or self._prepared is None:
            self.ended = True
            return False
        self._follow_ups += 1
        self._request = follow_up(self._prepared.request, self.session_id, results, number=self._follow_ups)
        self._begun, self._turn_id, self.cursor = False, "", 0
        return True

    def _check_deadline(self, cause: Exception | None = None) -> None:
        if self._left() == 0:
            self.ended = True
            raise DeadlineExceeded(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the answers to the turn's actions came too late"
            ) from cause

    def _left(self) -> float | None:
        """Return the seconds until the deadline; None: there is none."""
        return None if self._deadline is None else max(self._deadline - self._clock(), 0.0)

    def _patience(self, error: GodotyError) -> float:
        """Return the seconds in which the call is made again after such an error; 0: it is not."""
        lost = isinstance(error, ConnectionFailed)
        if not self._begun:
            # What tools have done is not given up as soon as what has not begun at all.
            within = max(self._connect_timeout, self._grace) if self._follow_ups else self._connect_timeout
            return within if lost or error.reason in UNAVAILABLE | _LIMITED else 0.0
        # After an event of this call, a reason is that of the turn's end.
        return self._grace if lost or (not self._answered and error.reason in UNAVAILABLE) else 0.0

    def _continues(self) -> bool:
        return self._request is not None and self._request.on_disconnect == turn_pb.ON_DISCONNECT_CONTINUE

    def _find(self, sent: pb.ConverseRequest) -> Call[str]:
        """Return the call that finds the turn of a request whose first event has not come."""
        request = pb.ListTurnsRequest(session_id=self.session_id)
        return Call(
            "AgentService.ListTurns",
            request,
            lambda page: next((each.turn_id for each in page.turns if each.request_id == sent.request_id), ""),
        )


def responder_of(options: TurnOptions, default: Responder) -> Responder:
    """Return what a turn may answer by itself: what its options say, else the default."""
    tools, approve = options.get("tools"), options.get("approve")
    return Responder(default.tools if tools is None else by_name(tools), approve or default.approve)


def cancellation(turn_id: str) -> Call[None]:
    """Return the call that cancels a turn."""
    return Call("AgentService.CancelTurn", pb.CancelTurnRequest(turn_id=turn_id), lambda _: None)


def _is_own_deadline(error: GodotyError) -> bool:
    return isinstance(error, DeadlineExceeded) and not error.reason


def _joined(parts: list[str]) -> str:
    if len(parts) > 1:
        parts[:] = ["".join(parts)]
    return parts[0] if parts else ""
