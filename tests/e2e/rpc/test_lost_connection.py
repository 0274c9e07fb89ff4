"""A connection that breaks while a response is written is not an internal error."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from godoty_service.ledger.states import CallState
from godoty_service.rpc import agent_codec, agent_service, interceptor
from tests.conftest import Start
from tests.e2e.turns.streams import SLOW, free
from tests.support.caller import Caller, read
from tests.support.service import Service


class Faults:
    """A log that records only errors."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def error(self, event: str, **_: Any) -> None:
        """Record an event."""
        self.events.append(event)


async def test_broken_connection_cancels_the_turn_and_is_not_logged_as_a_fault(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that gRPC raises from a failed write is treated as a cancel by the client."""
    caller = connect(await serve())
    written: list[int] = []
    message = agent_codec.event_message

    def breaking(turn_id: str, sequence: int, event: Any) -> Any:
        written.append(sequence)
        if len(written) > 3:
            raise grpc.aio.InternalError('Failed "execute_batch": (<SendMessageOperation>,)')
        return message(turn_id, sequence, event)

    faults = Faults()
    monkeypatch.setattr(agent_service, "event_message", breaking)
    monkeypatch.setattr(interceptor, "log", faults)

    turn = await read(caller.start(SLOW))

    assert turn.failure is not None
    assert turn.failure.code is not grpc.StatusCode.INTERNAL
    session = await free(caller.service)
    assert session["message_count"] == 2
    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    assert faults.events == []
