"""Blocking clients, by pytest-grpc's fixtures, of the real server (see tests/conftest.py)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from tests.support.caller import Failure
from tests.support.service import Service, until


def test_blocking_client_converses(grpc_stub: Any, service: Service) -> None:
    """A stub of plain grpc reads a turn message by message, then its cost."""
    call = grpc_stub.Converse(pb.ConverseRequest(session_id="talk", text="hello"), metadata=service.metadata)
    events = [each.event for each in call]

    assert events[0].HasField("turn_started")
    assert events[-1].turn_finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    request = pb.GetSessionMetricsRequest(session_id="talk")
    metrics = grpc_stub.GetSessionMetrics(request, metadata=service.metadata)
    assert metrics.totals == events[-1].turn_finished.session_totals


def test_blocking_clients_converse_concurrently(grpc_stub: Any, service: Service) -> None:
    """Several threads over one channel each get their own complete turn."""

    def converse(number: int) -> str:
        request = pb.ConverseRequest(session_id=f"s{number}", text=f"@sandbox plain text=answer{number} delay_ms=1")
        return "".join(each.event.text_delta.text for each in grpc_stub.Converse(request, metadata=service.metadata))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(converse, range(8))) == [f"answer{number}" for number in range(8)]


def test_blocking_client_gets_error_details(grpc_stub: Any) -> None:
    """Errors have the same details for blocking clients."""
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub.ListSessions(pb.ListSessionsRequest())

    failure = Failure.of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


def test_cancel_by_a_blocking_client_frees_the_session(grpc_stub: Any, service: Service) -> None:
    """A blocking reader that cancels releases the session."""
    request = pb.ConverseRequest(session_id="talk", text="@sandbox slow first_delay_ms=0 tokens=100")
    call = grpc_stub.Converse(request, metadata=service.metadata)
    assert next(call).event.HasField("turn_started")
    call.cancel()

    def served() -> bool:
        again = grpc_stub.Converse(pb.ConverseRequest(session_id="talk", text="hi"), metadata=service.metadata)
        try:
            return bool(list(again)[-1].event.HasField("turn_finished"))
        except grpc.RpcError as error:
            assert Failure.of(error).reason == "SESSION_BUSY"  # noqa: PT017 - anything else fails the test
            return False

    until(served)
