"""Turns without a stream: StartTurn begins one, WaitTurn returns its end, from any server."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import attachment_pb2
from godoty.v1 import turn_pb2 as turn_pb
from google.protobuf.duration_pb2 import Duration

from godoty_service.bootstrap.components import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.server import running
from godoty_service.tenancy.policies import Policy
from godoty_service.turns.service import TurnService
from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, free, joined, resume
from tests.support.caller import Caller, failure_of, read
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.media import png
from tests.support.service import Service, soon

HELD = "@sandbox plain tokens=9 hold_after=3 hold="
ENDED, RUNNING = turn_pb.TURN_STATE_ENDED, turn_pb.TURN_STATE_RUNNING


async def start(caller: Caller, text: str, **fields: Any) -> pb.StartTurnResponse:
    """Start a turn."""
    request = pb.ConverseRequest(text=text, **{"session_id": "talk", **fields})
    found: pb.StartTurnResponse = await caller.call("StartTurn", pb.StartTurnRequest(request=request))
    return found


async def wait(caller: Caller, turn_id: str, seconds: float | None = 90.0) -> turn_pb.Turn:
    """Wait for a turn."""
    request = pb.WaitTurnRequest(turn_id=turn_id)
    if seconds is not None:
        request.timeout.CopyFrom(Duration(seconds=int(seconds)))
    found: turn_pb.Turn = (await caller.call("WaitTurn", request)).turn
    return found


async def test_turn_goes_on_without_a_reader(caller: Caller, second_caller: Caller) -> None:
    """StartTurn answers while the model does; both servers say that it runs, wait for its end, and have its events."""
    started = await start(caller, f"{HELD}unread")
    for client in (caller, second_caller):
        running = await wait(client, started.turn_id, 0)
        assert (running.state, running.session_id) == (RUNNING, "talk")
    waiting = [asyncio.create_task(wait(client, started.turn_id)) for client in (caller, second_caller)]
    _, unended = await asyncio.wait(waiting, timeout=0.5)
    assert len(unended) == 2
    caller.service.backends.allow("unread")
    first, second = await asyncio.gather(*waiting)
    turn = await resume(second_caller, started.turn_id)

    assert first == second
    assert (first.state, first.stop_reason) == (ENDED, turn_pb.STOP_REASON_END_TURN)
    assert first.totals == turn.finished.turn_totals
    assert turn.started.session_id == started.session_id == "talk"
    assert (await wait(caller, started.turn_id, 0)).state == ENDED


async def test_wait_ends_with_its_time(caller: Caller, second_caller: Caller) -> None:
    """The turn as it is then, on its own server and on another one."""
    started = await start(caller, f"{HELD}long")
    for client in (caller, second_caller):
        assert (await wait(client, started.turn_id, 1)).state == RUNNING
    caller.service.backends.allow("long")
    assert (await wait(caller, started.turn_id, None)).state == ENDED


async def test_session_id_is_generated(caller: Caller) -> None:
    """The answer has it, as `turn_started` would; a repeated request has the same."""
    started = await start(caller, "hi", session_id="", request_id="new")
    assert await start(caller, "hi", session_id="", request_id="new") == started
    await wait(caller, started.turn_id)
    assert await start(caller, "hi", session_id="", request_id="new") == started

    assert started.session_id
    assert len(await caller.messages(started.session_id)) == 2


async def test_request_id_is_one_turn(caller: Caller, second_caller: Caller) -> None:
    """On both servers, at once and later, by StartTurn and by Converse; another request with it is refused."""
    callers = [caller, second_caller] * 4
    found = await asyncio.gather(*(start(each, f"{HELD}once", request_id="once") for each in callers))
    assert len({each.turn_id for each in found}) == 1
    streams = [each.start(f"{HELD}once", request_id="once", on_disconnect=CONTINUE) for each in (caller, second_caller)]
    caller.service.backends.allow("once")
    turns = [await read(each) for each in streams]
    assert await start(second_caller, f"{HELD}once", request_id="once") == found[0]
    refused = await failure_of(start(caller, "hi", request_id="once"))

    assert {each.turn_id for turn in turns for each in turn.responses} == {found[0].turn_id}
    assert joined(turns[0].responses) == joined(turns[1].responses)
    assert len(caller.service.entries("talk")) == 1
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_errors_are_those_of_converse(caller: Caller) -> None:
    """Before the turn begins: they name the fields within the request; nothing is written."""
    for fields, field, reason in (
        ({"text": " "}, "request.text", "INVALID_FIELD"),
        ({"text": "hi", "model": "openai/gpt-99"}, "request.model", "UNKNOWN_MODEL"),
        ({"text": "hi", "on_disconnect": turn_pb.ON_DISCONNECT_CANCEL}, "request.on_disconnect", "INVALID_FIELD"),
    ):
        failure = await failure_of(start(caller, **fields))
        assert (failure.reason, list(failure.fields)) == (reason, [field])
    empty = await failure_of(caller.call("StartTurn", pb.StartTurnRequest()))
    assert list(empty.fields) == ["request"]
    assert caller.service.session("talk") is None
    running = await start(caller, f"{HELD}busy", user="ada")
    busy = await failure_of(start(caller, "hi", request_id="free"))
    assert busy.reason == "SESSION_BUSY"
    caller.service.backends.allow("busy")
    await wait(caller, running.turn_id)
    await free(caller.service)
    other = await failure_of(start(caller, "hi", user="bob", request_id="free"))
    assert (other.reason, list(other.fields)) == ("INVALID_FIELD", ["request.user"])
    assert (await wait(caller, (await start(caller, "hi", user="ada", request_id="free")).turn_id)).state == ENDED


async def test_refusal_of_a_budget_is_an_error(caller: Caller) -> None:
    """The turn does not begin, and its session is as before."""
    async with open_components(caller.service.backends.settings(caller.service.database.name)) as components:
        budget = Budget(window=BudgetWindow.DAY, limit=Decimal("0.000001"), hard=True)
        await components.tenancy.policies.set(caller.service.tenant_id, Policy(budgets=(budget,)))
    failure = await failure_of(start(caller, "hello"))

    assert failure.reason == "BUDGET_SPENT"
    assert caller.service.session("talk") is None


async def test_inline_attachments_are_apart(caller: Caller) -> None:
    """A mebibyte of them beside a long text is taken, as by Converse."""
    source = attachment_pb2.AttachmentSource(inline=png(size=1_000_000))
    started = await start(caller, "look " * 20_000, model="anthropic/claude-haiku-4.5", attachments=[source])

    assert (await wait(caller, started.turn_id)).stop_reason == turn_pb.STOP_REASON_END_TURN


async def test_turn_that_waits_ends_with_its_call(caller: Caller) -> None:
    """With ON_BUSY_WAIT, before it has begun: it never does, and its request id is free."""
    first = await start(caller, f"{HELD}first")
    call = caller.stub.StartTurn(
        pb.StartTurnRequest(
            request=pb.ConverseRequest(
                session_id="talk", text="second", on_busy=turn_pb.ON_BUSY_WAIT, request_id="second"
            )
        ),
        metadata=caller.service.metadata,
    )
    turns = caller.service.database["turns"]
    query = {"tenant_id": caller.service.tenant_id, "request_id": "second"}
    await soon(lambda: turns.count_documents(query) == 1)
    call.cancel()
    await soon(lambda: turns.count_documents(query) == 0)
    caller.service.backends.allow("first")
    await wait(caller, first.turn_id)

    assert len(caller.service.entries("talk")) == 1


async def test_failed_turn_has_its_reason(caller: Caller, second_caller: Caller) -> None:
    """The error of a turn that failed later is in the turn."""
    started = await start(caller, "@sandbox error-mid n=3 usage=1", request_id="fails")
    turn = await wait(second_caller, started.turn_id)

    assert (turn.state, turn.error_reason) == (ENDED, "PROVIDER_UNAVAILABLE")
    assert await start(caller, "@sandbox error-mid n=3 usage=1", request_id="fails") == started


async def test_turn_of_another_tenant_is_not_found(caller: Caller, other_tenant: Caller) -> None:
    """As one that does not exist."""
    started = await start(caller, "hi")
    failure = await failure_of(wait(other_tenant, started.turn_id))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")


async def test_unknown_turn_is_not_found(caller: Caller) -> None:
    """At once, however long the caller would wait."""
    failure = await failure_of(wait(caller, f"turn_{'0' * 28}"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")


async def test_cancelled_waits_leave_nothing(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """Neither tasks nor callbacks, at the server of the turn and at another one, and the turn goes on."""
    service = await serve()
    other = await serve(database=service.database.name)
    callers = [connect(service), connect(service.at(other.target))]
    started = await start(callers[0], f"{HELD}left")
    await wait(callers[1], started.turn_id, 0)
    before = len(asyncio.all_tasks())
    calls = [
        each.stub.WaitTurn(pb.WaitTurnRequest(turn_id=started.turn_id), metadata=service.metadata)
        for each in callers * 20
    ]
    waiting = [asyncio.ensure_future(failure_of(each)) for each in calls]
    await soon(lambda: len(asyncio.all_tasks()) >= before + 2 * len(calls))
    for each in calls:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await soon(lambda: len(asyncio.all_tasks()) <= before)
    assert (await wait(callers[1], started.turn_id, 0)).state == RUNNING
    service.backends.allow("left")
    assert (await wait(callers[1], started.turn_id)).state == ENDED


async def test_wait_returns_the_end_of_a_dead_servers_turn(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """It is interrupted as soon as the lease has expired; a repeated start finds it."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    other = await serve(database=service.database.name, **SURVIVOR)
    caller = connect(service.at(other.target))
    started = await start(connect(service), f"{HELD}dead", request_id="dies")
    waiting = asyncio.create_task(wait(caller, started.turn_id))
    await process.kill()
    turn = await waiting

    assert (turn.state, turn.stop_reason) == (ENDED, turn_pb.STOP_REASON_INTERRUPTED)
    assert await start(caller, f"{HELD}dead", request_id="dies") == started


async def test_server_that_stops_ends_its_waits(
    connect: Callable[[Service], Caller], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For turns of other servers, with SHUTTING_DOWN, so that the caller waits at another one."""
    asked, get = asyncio.Event(), TurnService.get

    async def asking(service: TurnService, *given: Any) -> Any:
        asked.set()
        return await get(service, *given)

    monkeypatch.setattr(TurnService, "get", asking)
    backends, database = caller.service.backends, caller.service.database.name
    started = await start(caller, f"{HELD}stop")
    async with running(backends.settings(database)) as server:
        waiting = asyncio.create_task(failure_of(wait(connect(caller.service.at(server.address)), started.turn_id)))
        await asked.wait()
    failure = await waiting
    backends.allow("stop")

    assert failure.reason == "SHUTTING_DOWN"
    assert (await wait(caller, started.turn_id)).state == ENDED
