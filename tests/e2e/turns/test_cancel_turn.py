"""What cancels a turn: CancelTurn on any server, and the loss of the last reader; under CONTINUE only CancelTurn."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.states import CallState
from godoty_service.turns import cancellation, resumption, turn_store
from tests.conftest import Start
from tests.e2e.turns.streams import CONTINUE, SLOW, cancel, free, joined, resume, until_text
from tests.support.caller import Caller, read
from tests.support.history import assert_valid_history
from tests.support.service import Service, soon

TICK = 0.2  # seconds between two reads of cancel requests from other servers


async def closed_upstream(service: Service, session_id: str = "talk") -> None:
    """Wait until the provider sees the session's connection close: its answer would never end by itself."""
    connections = service.backends.sandbox.connections

    def noticed() -> bool:
        generation = service.entries(session_id)[-1].generation_id  # it is stored while the answer arrives
        aborted = service.backends.ask(connections.as_dict)["aborted"]
        return generation is not None and any(each["generation_id"] == generation for each in aborted)

    await soon(noticed)


def assert_cancelled(turn: Any) -> None:
    """Check that a turn's reader got the error of a cancelled turn."""
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.CANCELLED, "TURN_CANCELLED")


@pytest.mark.parametrize("where", ["here", "there"])
async def test_cancel_turn_ends_running_turn(caller: Caller, second_caller: Caller, where: str) -> None:
    """On its own server or another: upstream is closed, readers get the error, the call is left to reconciliation."""
    call = caller.start(SLOW, on_disconnect=CONTINUE)
    seen = await until_text(call, "t2 ")
    await cancel(caller if where == "here" else second_caller, seen[0].turn_id)

    await closed_upstream(caller.service)
    rest = await read(call)
    assert_cancelled(rest)
    session = await free(caller.service)
    assert session["message_count"] == 2
    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    for client in (caller, second_caller):
        again = await resume(client, seen[0].turn_id)
        assert_cancelled(again)
        assert joined(again.responses) == joined([*seen, *rest.responses])
    assert (await second_caller.converse("and now?")).finished.session_totals.turns == 2
    assert_valid_history(await caller.messages())


async def test_cancel_of_ended_turn_changes_nothing(caller: Caller, second_caller: Caller) -> None:
    """A finished turn and its session do not change, on any server and after any number of cancels."""
    turn = await caller.converse("hi")
    for client in (caller, second_caller, caller):
        await cancel(client, turn.responses[0].turn_id)
    await asyncio.sleep(2 * TICK)

    assert joined((await resume(second_caller, turn.responses[0].turn_id)).responses) == joined(turn.responses)
    assert (await caller.converse("and now?")).finished.session_totals.turns == 2
    assert_valid_history(await caller.messages())


async def test_loss_of_last_reader_cancels_turn(caller: Caller, second_caller: Caller) -> None:
    """Under CANCEL with two readers, by ResumeTurn or by request id, the turn runs until both have left."""
    for how in ("resume", "attach"):
        session_id = f"two-{how}"
        call = caller.start(SLOW, session_id=session_id, request_id=how)
        seen = await until_text(call, "t2 ")
        if how == "resume":
            second = caller.resume(seen[0].turn_id)
        else:
            second = caller.start(SLOW, session_id=session_id, request_id=how)
        await anext(aiter(second))
        call.cancel()
        await asyncio.sleep(0.3)
        session = caller.service.session(session_id)
        assert session is not None
        assert session["lease"] is not None
        second.cancel()
        await closed_upstream(caller.service, session_id)
        await free(caller.service, session_id)
        assert_cancelled(await resume(second_caller, seen[0].turn_id))


@pytest.mark.parametrize("how", ["resume", "attach"])
async def test_remote_reader_keeps_turn_running(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Under CANCEL a turn runs while any server has a reader, for any time, and ends when the last one has left."""
    monkeypatch.setattr(turn_store, "_MARK_VALID", 10_000)
    monkeypatch.setattr(resumption, "_MARK", 0.2)
    monkeypatch.setattr(cancellation, "_READER_TIMEOUT", 10.0)
    service = await serve()
    other = await serve(database=service.database.name)
    caller, second_caller = connect(service), connect(service.at(other.target))
    script = f"@sandbox plain tokens=9 hold_after=3 hold=mark-{how} record_ms=-1"
    call = caller.start(script, request_id="one")
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    second = second_caller.resume(turn_id) if how == "resume" else second_caller.start(script, request_id="one")
    await until_text(second, "t1 ")
    call.cancel()
    marks: set[Any] = set()

    def renewed() -> bool:
        marks.add((service.database["turns"].find_one(turn_id) or {})["follow_time"])
        return len(marks) > 3

    await soon(renewed)
    service.backends.allow(f"mark-{how}", 2)
    await until_text(second, "t4 ")
    assert service.entries("talk")[0].error is None
    second.cancel()
    await free(service)

    assert service.entries("talk")[0].error == "interrupted"
    assert_cancelled(await resume(second_caller, turn_id))


async def test_deadline_under_continue_ends_only_the_reader(caller: Caller, second_caller: Caller) -> None:
    """The caller's deadline passes, the turn runs to its end, and the rest can be read."""
    script = "@sandbox plain tokens=20 hold_after=5 hold=deadline"
    turn = await caller.converse(script, on_disconnect=CONTINUE, timeout=10.0)
    assert turn.failure is not None
    assert turn.failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    last = turn.responses[-1]
    caller.service.backends.allow("deadline")

    rest = await resume(second_caller, last.turn_id, last.sequence)
    assert rest.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert turn.text + rest.text == "".join(f"t{number} " for number in range(20))
    (entry,) = caller.service.entries("talk")
    assert entry.state is CallState.SETTLED


async def test_readers_under_continue_do_not_end_turn(caller: Caller, second_caller: Caller) -> None:
    """Under CONTINUE readers come and go on both servers, and the turn runs to its end."""
    call = caller.start("@sandbox plain tokens=20 hold_after=3 hold=readers", on_disconnect=CONTINUE)
    turn_id = (await until_text(call, "t1 "))[0].turn_id
    call.cancel()
    for client in (caller, second_caller, caller, second_caller):
        reader = client.resume(turn_id)
        await anext(aiter(reader))
        reader.cancel()
    caller.service.backends.allow("readers")

    assert (await resume(caller, turn_id)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
