"""The progress of a turn without any connection: what is called next, and what is given up, by the test's clock."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from godoty.converse_request import ConverseOptions, prepare
from godoty.errors import ConnectionFailed, GodotyError
from godoty.reasons import BY_REASON, DeadlineExceeded
from godoty.turn_progress import TurnProgress
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2

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


def started(progress: TurnProgress[Any]) -> TurnProgress[Any]:
    """Begin a turn."""
    progress.next_call()
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
    first = progress.next_call()
    progress.receive(turn_pb2.TurnEvent(turn_id="t", heartbeat=turn_pb2.Heartbeat()))
    progress.fail(LOST)
    second = progress.next_call()
    progress = started(progress)
    progress.fail(LOST)
    third = progress.next_call()

    assert first == second
    assert first.method == "AgentService.Converse"
    assert third.method == "AgentService.ResumeTurn"
    assert third.request == pb.ResumeTurnRequest(turn_id="t", after_sequence=1)
    assert progress.session_id == "made"


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
    progress.next_call()
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
    progress.next_call()

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
    progress.next_call()
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
    progress.next_call()
    progress.receive(turn_pb2.TurnEvent(turn_id="t", heartbeat=turn_pb2.Heartbeat()))

    assert progress.fail(refused("SHUTTING_DOWN", seconds=1)) == 1
    assert progress.next_call().method == "AgentService.Converse"


def test_deadline_is_of_the_whole_turn(begin: Callable[..., TurnProgress[Any]], clock: Clock) -> None:
    """Later calls have what is left of it; after it the turn is cancelled, as it may still run."""
    progress = begin(timeout=20.0)
    assert progress.next_call().timeout == 20
    started(progress)
    clock.now += 12
    progress.fail(LOST)
    assert progress.next_call().timeout == 8
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
    progress.next_call()
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
