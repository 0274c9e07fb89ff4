"""A connection that breaks while a response is written is not an internal error."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from godoty_service.ledger.states import CallState
from godoty_service.rpc import interceptor
from godoty_service.rpc.conversations import service, turn_codec
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
    fill = turn_codec.fill_event

    def breaking(message: Any, turn_id: str, read: Any) -> None:
        written.append(read[0])
        if len(written) > 3:
            raise grpc.aio.InternalError('Failed "execute_batch": (<SendMessageOperation>,)')
        fill(message, turn_id, read)

    faults = Faults()
    monkeypatch.setattr(service, "fill_event", breaking)
    monkeypatch.setattr(interceptor, "log", faults)

    call = caller.start(SLOW)
    reading = asyncio.create_task(read(call))
    session = await free(caller.service)  # its connection is not broken, so that it would wait until its deadline
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert session["message_count"] == 2
    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    assert faults.events == []
