"""A client whose connection is lost silently is detected, and its turns end by `on_disconnect`."""

from collections.abc import Callable

from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.states import CallState
from godoty_service.server import running
from tests.conftest import Start
from tests.e2e.turns.silent_proxy import SilentProxy
from tests.e2e.turns.streams import CONTINUE, free, resume, until_text
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.service import Service, soon

# Models that would go on for minutes: one that streams, one that delays its first token, and one that waits.
CANCELLED = {
    "streams": "@sandbox slow tokens=4000 first_delay_ms=0 delay_ms=50 record_ms=-1",
    "thinks": "@sandbox slow tokens=4 first_delay_ms=200000 record_ms=-1",
}
CONTINUED = "@sandbox plain tokens=9 hold_after=3 hold=vanished"


async def test_turns_of_silently_vanished_client_end_by_on_disconnect(
    backends: Backends, connect: Callable[[Service], Caller]
) -> None:
    """Under CANCEL they end, and their calls are reconciled; under CONTINUE another client reads their ends."""
    database = backends.empty_database()
    async with running(backends.settings(database, keepalive_time=2.0, keepalive_timeout=6.0)) as server:
        service = backends.service(server.address, database)
        async with SilentProxy(service.target) as proxy:
            client = connect(service.at(proxy.address))
            calls = {name: client.start(text, session_id=name, timeout=None) for name, text in CANCELLED.items()}
            for each in calls.values():
                await anext(aiter(each))
            call = client.start(CONTINUED, session_id="waits", timeout=None, on_disconnect=CONTINUE)
            turn_id = (await until_text(call, "t2 "))[0].turn_id
            proxy.fall_silent()
            for session_id in CANCELLED:
                await free(service, session_id)
            await soon(lambda: {each.turn_id: each.log.readers for each in server.turns.all()} == {turn_id: 0})
        service.backends.allow("vanished")
        whole = await resume(connect(service), turn_id)

    assert whole.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    for session_id in CANCELLED:
        (entry,) = service.entries(session_id)
        assert entry.state in (CallState.PENDING, CallState.UNRESOLVED)
        assert entry.error == "interrupted"
    (entry,) = service.entries("waits")
    assert entry.state is CallState.SETTLED


async def test_waiting_client_that_answers_pings_is_not_disconnected(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """A living client answers the pings, for any delay of the model."""
    caller = connect(await serve(keepalive_time=1.0, keepalive_timeout=6.0))
    turn = await caller.converse("@sandbox slow tokens=2 first_delay_ms=9000")

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
