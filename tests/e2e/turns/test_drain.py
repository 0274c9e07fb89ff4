"""A server that stops: running turns may finish, new ones are refused, and nothing is left open."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.states import CallState
from godoty_service.server import Running, running
from godoty_service.settings.settings import Settings
from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, SLOW, free, joined, resume, until_text
from tests.support.backends import Backends
from tests.support.caller import Caller, Turn, read
from tests.support.history import assert_valid_history
from tests.support.service import Service, soon

SHORT = "@sandbox plain tokens=16 hold_after=3 hold="  # it waits until its test lets it end
GRACE = 60.0  # seconds
Connect = Callable[[Service], Caller]


def assert_shutting_down(turn: Turn) -> None:
    """Check that a turn's reader was referred to another server."""
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert turn.failure.retry_after


async def test_sigterm_lets_turns_finish_within_grace(
    serve: Start, serve_process: StartProcess, connect: Connect
) -> None:
    """A short turn ends well; a long one and its successor end as SHUTTING_DOWN after the grace, and are settled."""
    process, service = await serve_process(GODOTY_DRAIN_GRACE="6")
    other = await serve(database=service.database.name)
    caller, survivor = connect(service), connect(service.at(other.target))
    short = caller.start(f"{SHORT}sigterm", session_id="short")
    long = caller.start(SLOW, session_id="long")
    long_id = (await until_text(long, "t2 "))[0].turn_id
    waiting = asyncio.create_task(caller.converse("hi", session_id="long", on_busy=turn_pb.ON_BUSY_WAIT))
    await until_text(short, "t0 ")
    await soon(lambda: service.database["turns"].count_documents({}) == 3)
    assert process.process is not None
    process.process.send_signal(signal.SIGTERM)
    service.backends.allow("sigterm")

    assert (await read(short)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    for turn in (await read(long), await waiting):
        assert_shutting_down(turn)
    assert await asyncio.wait_for(process.process.wait(), 180) == 0
    for session_id in ("short", "long"):
        session = service.session(session_id)
        assert session is not None
        assert (session["lease"], session["message_count"]) == (None, 2)
        assert_valid_history(await survivor.messages(session_id))
    (entry,) = service.entries("long")
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    assert_shutting_down(await resume(survivor, long_id))
    assert (await survivor.converse("hi", session_id="long")).finished.session_totals.turns == 2


@asynccontextmanager
async def stopping(settings: Settings) -> AsyncIterator[tuple[Running, Callable[[], asyncio.Task[None]]]]:
    """Run a server; yield it and a function that stops it as SIGTERM does."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running(settings))
        yield server, lambda: asyncio.create_task(stack.aclose())


async def test_new_turn_is_refused_during_drain(backends: Backends, connect: Connect) -> None:
    """While the running turns finish, a new one is refused as SHUTTING_DOWN with a retry time, and leaves no record."""
    database = backends.empty_database()
    async with stopping(backends.settings(database, drain_grace=GRACE)) as (server, stop):
        service = backends.service(server.address, database)
        caller = connect(service)
        call = caller.start(f"{SHORT}refused")
        await until_text(call, "t0 ")
        stopped = stop()
        await soon(lambda: server.turns._draining)
        assert_shutting_down(await caller.converse("hi", session_id="new"))
        backends.allow("refused")
        assert (await read(call)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        await stopped
    assert service.session("new") is None


async def test_turn_without_readers_may_finish_during_drain(backends: Backends, serve: Start, connect: Connect) -> None:
    """Under CONTINUE a turn without readers has the grace time as well; another server shows its end."""
    database = backends.empty_database()
    other = await serve(database=database)
    async with stopping(backends.settings(database, drain_grace=GRACE)) as (server, stop):
        call = connect(other.at(server.address)).start(f"{SHORT}alone", on_disconnect=CONTINUE)
        seen = await until_text(call, "t2 ")
        call.cancel()
        stopped = stop()
        await soon(lambda: server.turns._draining)
        backends.allow("alone")
        await stopped

    whole = await resume(connect(other), seen[0].turn_id)
    assert whole.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert whole.text == "".join(f"t{number} " for number in range(16))
    assert joined(seen)[:-1] == joined(whole.responses)[: len(joined(seen)) - 1]


async def test_drain_at_any_moment_of_turn_reports_shutdown(backends: Backends, connect: Connect) -> None:
    """A drain without grace, at any moment of a turn: its reader gets the error, and the session is free."""
    database = backends.empty_database()
    async with running(backends.settings(database)) as server:
        service = backends.service(server.address, database)
        caller = connect(service)
        await caller.converse("hi")
        for pause in (0.0, 0.001, 0.003, 0.01, 0.03):
            server.turns._draining = False
            call = caller.start(SLOW)
            await asyncio.sleep(pause)
            await soon(lambda: server.turns.running == 1)
            await server.turns.drain(0.0)
            turn = await read(call)
            assert_shutting_down(turn)
            await free(service)
        await soon(lambda: server.turns.running == 0)
        assert_valid_history(await caller.messages())


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one server", "two servers"])
async def test_drain_refuses_queued_turns(
    backends: Backends, serve: Start, connect: Connect, *, elsewhere: bool
) -> None:
    """A turn that waits in line here or for another server's turn is refused at once, and never starts."""
    database = backends.empty_database()
    async with running(backends.settings(database)) as server:
        service = backends.service(server.address, database)
        caller = connect(service)
        holder = connect(service.at((await serve(database=database)).target)) if elsewhere else caller
        script = f"{SHORT}queued-{elsewhere}"
        call = holder.start(script)
        await until_text(call, "t0 ")
        waiting = [
            asyncio.create_task(caller.converse(f"waits {number}", on_busy=turn_pb.ON_BUSY_WAIT)) for number in range(3)
        ]
        await soon(lambda: service.database["turns"].count_documents({"tenant_id": service.tenant_id}) == 4)
        draining = asyncio.create_task(server.turns.drain(GRACE))
        refused = await asyncio.wait_for(asyncio.gather(*waiting), 180)  # while the turn before them still runs
        assert service.session("talk")["lease"] is not None  # type: ignore[index] # there is one
        for turn in refused:
            assert_shutting_down(turn)
        backends.allow(f"queued-{elsewhere}")
        assert (await read(call)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        await draining
        texts = [each.content[0].text for each in await caller.messages() if each.role == session_pb.ROLE_USER]
        assert texts == [script]
        assert len(service.entries("talk")) == 1
