"""The progress of a turn without any connection: what is called next, and what is given up, by the test's clock."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from godoty import Tool, Totals
from godoty.actions.answers import Responder
from godoty.errors import ConnectionFailed, GodotyError
from godoty.reasons import BY_REASON, DeadlineExceeded
from godoty.turns.options import ConverseOptions
from godoty.turns.progress import StreamCall, TurnProgress, responder_of
from godoty.turns.request import prepare
from godoty.turns.totals import added
from godoty.v1 import action_pb2, metering_pb2, turn_pb2
from godoty.v1 import agent_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

LOST = ConnectionFailed(grpc.StatusCode.UNAVAILABLE, "Stream removed")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def begin(clock: Clock) -> Callable[..., TurnProgress[Any]]:
    """Begins turns with a grace of 30 s and 10 s to connect."""

    def progress(**options: Any) -> TurnProgress[Any]:
        wanted = ConverseOptions(**options)  # type: ignore[typeddict-item] # of the test
        prepared = prepare("hi", wanted, output=None, disconnect_grace=30)
        return TurnProgress(prepared, disconnect_grace=30, connect_timeout=10, clock=clock)

    return progress


def next_call(progress: TurnProgress[Any]) -> StreamCall:
    """Return the next call, which there is."""
    found = progress.next_call()
    assert found is not None
    return found


def started(progress: TurnProgress[Any]) -> TurnProgress[Any]:
    """Begin a turn."""
    next_call(progress)
    progress.receive(turn_pb2.TurnEvent(sequence=1, turn_id="t", turn_started=turn_pb2.TurnStarted(session_id="made")))
    return progress


def refused(reason: str, *, seconds: float | None = None) -> GodotyError:
    """Return an error with a reason."""
    delay = timedelta(seconds=seconds) if seconds is not None else None
    return BY_REASON[reason](grpc.StatusCode.UNAVAILABLE, "", reason=reason, retry_delay=delay)


def test_request_is_repeated_until_the_turn_has_begun_and_then_resumed(
    begin: Callable[..., TurnProgress[Any]],
) -> None:
    """The same request with the same id; then the turn after its last sequence."""
    progress = begin(session="demo")
    first = next_call(progress)
    progress.receive(turn_pb2.TurnEvent(turn_id="t", heartbeat=turn_pb2.Heartbeat()))
    progress.fail(LOST)
    second = next_call(progress)
    progress = started(progress)
    progress.fail(LOST)
    third = next_call(progress)

    assert first == second
    assert first.method == "AgentService.Converse"
    assert third.method == "AgentService.ResumeTurn"
    assert third.request == pb.ResumeTurnRequest(turn_id="t", after_sequence=1)
    assert progress.session_id == "made"


def test_loss_is_counted_once_until_the_turn_goes_on(begin: Callable[..., TurnProgress[Any]]) -> None:
    """Not the attempts to come back, and not what happens before the turn has begun."""
    progress = begin()
    next_call(progress)
    progress.fail(LOST)
    assert (progress.connected, progress.lost_connections) == (False, 0)
    progress = started(progress)
    assert progress.connected

    for _ in range(2):
        progress.fail(LOST)
        progress.fail(LOST)
        assert not progress.connected
        next_call(progress)
        progress.receive(turn_pb2.TurnEvent(sequence=1, turn_id="t", heartbeat=turn_pb2.Heartbeat()))
        assert progress.connected
    assert progress.lost_connections == 2


def test_each_request_has_its_own_id(begin: Callable[..., TurnProgress[Any]]) -> None:
    """Unless it is given one."""
    assert begin().request_id != begin().request_id
    assert begin(request_id="order-7").request_id == "order-7"


@pytest.mark.parametrize(("has_begun", "patience"), [(False, 10), (True, 30)])
def test_lost_connection_is_given_up_after_its_time(
    begin: Callable[..., TurnProgress[Any]],
    clock: Clock,
    has_begun: bool,  # noqa: FBT001 - a case
    patience: int,
) -> None:
    """Counted from the first failure; an event that arrives begins the count anew."""
    progress = started(begin()) if has_begun else begin()
    next_call(progress)
    progress.fail(LOST)
    clock.now += patience - 3
    progress.fail(LOST)
    progress.receive(turn_pb2.TurnEvent(heartbeat=turn_pb2.Heartbeat()))
    clock.now += patience - 3
    delay = progress.fail(LOST)
    clock.now += patience + 1

    assert 0 < delay <= 2
    with pytest.raises(ConnectionFailed):
        progress.fail(LOST)


def test_delay_of_the_server_counts(begin: Callable[..., TurnProgress[Any]]) -> None:
    """One beyond the patience is an error at once."""
    progress = begin()
    next_call(progress)

    assert progress.fail(refused("RATE_LIMITED", seconds=1.5)) == 1.5
    with pytest.raises(GodotyError):
        progress.fail(refused("RATE_LIMITED", seconds=60))


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_reasons_that_are_retried(begin: Callable[..., TurnProgress[Any]], reason: str) -> None:
    """Those of a server that cannot take the turn at the moment; never the error of a turn that has begun."""
    for_a_moment = {
        *("STORAGE_UNAVAILABLE", "SHUTTING_DOWN", "TOO_MANY_WRONG_KEYS"),
        *("RATE_LIMITED", "TOO_MANY_TURNS", "BUDGET_RESERVED"),
    }
    progress = begin()
    next_call(progress)
    if reason in for_a_moment:
        assert progress.fail(refused(reason)) > 0
    else:
        with pytest.raises(BY_REASON[reason]):
            progress.fail(refused(reason))
        assert list(progress.leave()) == []

    with pytest.raises(BY_REASON[reason]):
        started(begin()).fail(refused(reason))


def test_waiting_turn_whose_server_stops_is_sent_to_another(begin: Callable[..., TurnProgress[Any]]) -> None:
    """Heartbeats of a turn that waits for its session are no beginning."""
    progress = begin()
    next_call(progress)
    progress.receive(turn_pb2.TurnEvent(turn_id="t", heartbeat=turn_pb2.Heartbeat()))

    assert progress.fail(refused("SHUTTING_DOWN", seconds=1)) == 1
    assert next_call(progress).method == "AgentService.Converse"


def test_deadline_is_of_the_whole_turn(begin: Callable[..., TurnProgress[Any]], clock: Clock) -> None:
    """Later calls have what is left of it; after it the turn is cancelled, as it may still run."""
    progress = begin(timeout=20.0)
    assert next_call(progress).timeout == 20
    started(progress)
    clock.now += 12
    progress.fail(LOST)
    assert next_call(progress).timeout == 8
    clock.now += 8
    with pytest.raises(DeadlineExceeded):
        progress.fail(DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    assert [each.method for each in progress.leave()] == ["AgentService.CancelTurn"]
    assert list(progress.leave()) == []


def test_turn_that_was_not_sent_is_left_without_a_call(begin: Callable[..., TurnProgress[Any]]) -> None:
    """There is nothing to cancel; nor of one that runs on by itself."""
    assert list(begin().leave()) == []
    assert list(started(begin(on_disconnect="continue")).leave()) == []


def test_turn_without_an_id_is_looked_up(begin: Callable[..., TurnProgress[Any]]) -> None:
    """By its request id."""
    progress = begin(session="demo", request_id="order-7")
    next_call(progress)
    calls = progress.leave()
    lookup = next(calls)
    turns = [turn_pb2.Turn(turn_id="other"), turn_pb2.Turn(turn_id="ours", request_id="order-7")]
    found = lookup.read(pb.ListTurnsResponse(turns=turns))

    assert lookup.request == pb.ListTurnsRequest(session_id="demo")
    assert calls.send(found).request == pb.CancelTurnRequest(turn_id="ours")


def test_options_are_checked_before_they_are_sent(begin: Callable[..., TurnProgress[Any]]) -> None:
    """An unknown value names those that there are."""
    with pytest.raises(ValueError, match="'never' is no OnBusy: REJECT, WAIT"):
        begin(on_busy="never")


class Loop:
    """A turn with a tool and an approval callback, whose events the test gives."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        responder = responder_of(ConverseOptions(**options), Responder())  # type: ignore[typeddict-item] # of the test
        wanted = ConverseOptions(session="demo", **options)  # type: ignore[typeddict-item] # the same
        prepared = prepare("hi", wanted, output=None, disconnect_grace=30, responder=responder)
        self.progress: TurnProgress[None] = TurnProgress(
            prepared, responder=responder, disconnect_grace=30, connect_timeout=10, clock=self.clock
        )
        self.turns = 0

    def ask(self, *actions: action_pb2.Action, cost: str = "0.1", pending: int = 0) -> None:
        """Let the next turn begin, and end with actions."""
        call = next_call(self.progress)
        assert isinstance(call.request, pb.ConverseRequest)
        self.turns += 1
        finished = turn_pb2.TurnFinished(
            stop_reason=turn_pb2.STOP_REASON_ACTION_REQUIRED if actions else turn_pb2.STOP_REASON_END_TURN,
            turn_totals=metering_pb2.Totals(cost_usd=cost, pending_calls=pending, model_calls=1),
            actions=actions,
        )
        started = turn_pb2.TurnStarted(session_id="demo")
        events = [
            {"turn_started": started},
            *({"action_required": each} for each in actions),
            {"turn_finished": finished},
        ]
        for sequence, event in enumerate(events, 1):
            self.progress.receive(turn_pb2.TurnEvent(sequence=sequence, turn_id=f"t{self.turns}", **event))  # type: ignore[arg-type] # of its kind

    def answer(self) -> None:
        """Call what is asked."""
        for question in self.progress.questions():
            self.progress.answered(question, question.function())


def action(action_id: str, name: str = "", *, reviewer: bool = False) -> action_pb2.Action:
    """Return an action: of a tool by its name, else an approval."""
    kind = action_pb2.ACTION_KIND_CLIENT_TOOL if name else action_pb2.ACTION_KIND_APPROVAL
    decider = action_pb2.ACTION_DECIDER_REVIEWER if reviewer else action_pb2.ACTION_DECIDER_CALLER
    return action_pb2.Action(
        action_id=action_id, session_id="demo", name=name, kind=kind, decider=decider, input_json="{}"
    )


def look() -> str:
    """Look."""
    return "here"


def test_turn_goes_on_with_its_answers() -> None:
    """In a request whose id follows from the first one's, with the same behaviour and nothing else."""
    loop = Loop(tools=[look], request_id="order-7", on_disconnect="continue", model="m", user="eve")
    loop.ask(action("a1", "look"))
    assert (loop.progress.ended, loop.progress.answering, loop.progress.cost) == (False, True, Decimal("0.1"))
    loop.answer()
    call = next_call(loop.progress)

    assert call.request == pb.ConverseRequest(
        session_id="demo",
        request_id="order-7.1",
        on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE,
        disconnect_grace=timedelta(seconds=30),
        action_results=[{"action_id": "a1", "output": {"output_text": "here"}}],
    )
    assert loop.progress.cost == Decimal("0.1")  # the turn has not begun
    loop.ask(cost="0.25")
    assert (loop.progress.ended, loop.progress.cost, loop.progress.turn_ids) == (True, Decimal("0.35"), ["t1", "t2"])


def test_unknown_cost_of_one_turn_is_unknown_of_all() -> None:
    """A pending call counts whichever turn it is of."""
    loop = Loop(tools=[look])
    loop.ask(action("a1", "look"), pending=1)
    loop.answer()
    loop.ask()

    assert loop.progress.cost is None
    assert loop.progress.totals is not None
    assert (loop.progress.totals.cost_usd, loop.progress.totals.pending_calls) == (Decimal("0.2"), 1)


def test_costs_are_summed_exactly() -> None:
    """However the program rounds its decimals."""
    with localcontext(prec=3):
        both = added(Totals(cost_usd=Decimal("1.000000000000000000000001")), Totals(cost_usd=Decimal("0.1")))
    assert both.cost_usd == Decimal("1.100000000000000000000001")


def test_reviewers_action_is_not_answered_again() -> None:
    """What the server has refused is left out of the next request, and is open at the end."""
    loop = Loop(tools=[look], approve=lambda _: True)
    loop.ask(action("a1", reviewer=True), action("a2", "look"))
    loop.answer()
    first = next_call(loop.progress)
    assert loop.progress.fail(refused("REVIEWER_ONLY")) == 0
    assert loop.progress.questions() == []
    second = next_call(loop.progress)

    assert isinstance(first.request, pb.ConverseRequest)
    assert isinstance(second.request, pb.ConverseRequest)
    assert [each.action_id for each in first.request.action_results] == ["a1", "a2"]
    assert [each.action_id for each in second.request.action_results] == ["a2"]
    assert first.request.request_id != second.request.request_id
    loop.ask(action("a1", reviewer=True))
    assert loop.progress.ended
    assert [each.action_id for each in loop.progress.actions] == ["a1"]


def test_action_that_is_asked_again_is_not_answered_twice() -> None:
    """A server that asks on and on is not answered on and on: the turn ends, and the action is visible."""
    loop = Loop(tools=[look])
    loop.ask(action("a1", "look"))
    loop.answer()
    loop.ask(action("a1", "look"))

    assert (loop.progress.ended, [each.action_id for each in loop.progress.actions]) == (True, ["a1"])


def test_answers_have_the_time_of_a_turn_that_has_begun() -> None:
    """A server that is away longer than a turn would wait to begin does not lose what tools have done."""
    loop = Loop(tools=[look])
    loop.ask(action("a1", "look"))
    loop.answer()
    next_call(loop.progress)
    loop.progress.fail(LOST)
    loop.clock.now += 25
    assert loop.progress.fail(LOST) > 0
    loop.clock.now += 10
    with pytest.raises(ConnectionFailed):
        loop.progress.fail(LOST)


def test_answers_that_come_too_late_end_the_turn() -> None:
    """The deadline is that of the first request; each tool may take what is left of it."""
    loop = Loop(tools=[Tool(look, timeout=60)], timeout=20.0)
    loop.ask(action("a1", "look"))
    loop.clock.now += 15
    assert [each.timeout for each in loop.progress.questions()] == [5.0]
    loop.answer()
    loop.clock.now += 6
    with pytest.raises(DeadlineExceeded):
        next_call(loop.progress)
    assert loop.progress.ended
    assert list(loop.progress.leave()) == []


def test_request_ids_of_answers_are_not_too_long() -> None:
    """Also if the first one has the greatest length."""
    loop = Loop(tools=[look], request_id="x" * 128)
    loop.ask(action("a1", "look"))
    loop.answer()
    call = next_call(loop.progress)

    assert isinstance(call.request, pb.ConverseRequest)
    assert len(call.request.request_id) <= 128
