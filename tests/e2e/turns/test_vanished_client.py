"""A client whose connection is lost silently is detected, and its turn ends by `on_disconnect`."""

from collections.abc import Callable
from typing import Any

import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.states import CallState
from tests.conftest import Start
from tests.e2e.turns.silent_proxy import SilentProxy
from tests.e2e.turns.streams import CONTINUE, free, until_text
from tests.support.caller import Caller
from tests.support.service import Service, soon

QUICK: dict[str, Any] = {"keepalive_time": 3.0, "keepalive_timeout": 3.0}
BOUND = 20.0  # seconds; a turn whose client is not missed goes on for a minute
# A model that streams, and one that delays its first token.
STREAMS = "@sandbox slow tokens=1200 first_delay_ms=0 delay_ms=50 record_ms=-1"
THINKS = "@sandbox slow tokens=4 first_delay_ms=60000 record_ms=-1"


@pytest.mark.parametrize("script", [STREAMS, THINKS], ids=["streams", "thinks"])
async def test_silently_vanished_client_cancels_its_turn(
    serve: Start, connect: Callable[[Service], Caller], script: str
) -> None:
    """Under CANCEL the turn ends within the bound, its session is free, and its call is left to reconciliation."""
    service = await serve(**QUICK)
    async with SilentProxy(service.target) as proxy:
        call = connect(service.at(proxy.address)).start(script, timeout=None)
        await anext(aiter(call))
        proxy.fall_silent()
        await soon(lambda: (service.session("talk") or {"lease": None})["lease"] is None, within=BOUND)

    (entry,) = service.entries("talk")
    assert entry.state in (CallState.PENDING, CallState.UNRESOLVED)
    assert entry.error == "interrupted"


async def test_continue_finishes_turn_of_silently_vanished_client(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """Under CONTINUE the turn finishes, and another client reads it to its end."""
    service = await serve(**QUICK)
    async with SilentProxy(service.target) as proxy:
        call = connect(service.at(proxy.address)).start(
            "@sandbox slow tokens=200 first_delay_ms=0 delay_ms=50", timeout=None, on_disconnect=CONTINUE
        )
        await until_text(call, "t2 ")
        proxy.fall_silent()
        await free(service)

    (entry,) = service.entries("talk")
    assert entry.state is CallState.SETTLED


async def test_waiting_client_that_answers_pings_is_not_disconnected(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """A living client answers the pings, for any delay of the model."""
    caller = connect(await serve(**QUICK))
    turn = await caller.converse("@sandbox slow tokens=2 first_delay_ms=10000")

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
