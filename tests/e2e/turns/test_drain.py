"""A server that stops: running turns may finish, new ones are refused, and nothing is left open."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.entries import CallState
from godoty_service.server import running
from godoty_service.settings import Settings
from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, SLOW, free, joined, resume, until, until_text
from tests.support.caller import Caller, Turn, read
from tests.support.environment import Surroundings
from tests.support.history import assert_whole
from tests.support.service import Service

SHORT = "@sandbox slow tokens=16 first_delay_ms=0 delay_ms=50"
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
    process, service = await serve_process(GODOTY_DRAIN_GRACE="1.2")
    other = await serve(database=service.database.name)
    caller, survivor = connect(service), connect(service.at(other.target))
    short = caller.start(SHORT, session_id="short")
    long = caller.start(SLOW, session_id="long")
    long_id = (await until_text(long, "t2 "))[0].turn_id
    waiting = asyncio.create_task(caller.converse("hi", session_id="long", on_busy=turn_pb.ON_BUSY_WAIT))
    await until_text(short, "t0 ")
    assert process.process is not None
    process.process.send_signal(signal.SIGTERM)

    assert (await read(short)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    for turn in (await read(long), await waiting):
        assert_shutting_down(turn)
    assert await asyncio.wait_for(process.process.wait(), 5) == 0
    for session_id in ("short", "long"):
        session = service.session(session_id)
        assert session is not None
        assert (session["lease"], session["message_count"]) == (None, 2)
        assert_whole(await survivor.messages(session_id))
    (entry,) = service.entries("long")
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    assert_shutting_down(await resume(survivor, long_id))
    assert (await survivor.converse("hi", session_id="long")).finished.session_totals.turns == 2


@asynccontextmanager
async def stopping(settings: Settings) -> AsyncIterator[tuple[str, Callable[[], asyncio.Task[None]]]]:
    """Run a server; yield its address and a function that stops it as SIGTERM does."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running(settings))
        yield server.address, lambda: asyncio.create_task(stack.aclose())


async def test_new_turn_is_refused_during_drain(
    surroundings: Surroundings, new_database: str, connect: Connect
) -> None:
    """While the running turns finish, a new one is refused as SHUTTING_DOWN with a retry time, and leaves no record."""
    async with stopping(surroundings.settings(new_database)) as (address, stop):
        service = surroundings.service(address, new_database)
        caller = connect(service)
        call = caller.start(SHORT)
        await until_text(call, "t0 ")
        stopped = stop()
        await asyncio.sleep(0.1)
        assert_shutting_down(await caller.converse("hi", session_id="new"))
        assert (await read(call)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        await stopped
    assert service.session("new") is None


async def test_turn_without_readers_may_finish_during_drain(
    surroundings: Surroundings, new_database: str, serve: Start, connect: Connect
) -> None:
    """Under CONTINUE a turn without readers has the grace time as well; another server shows its end."""
    other = await serve(database=new_database)
    async with stopping(surroundings.settings(new_database)) as (address, stop):
        call = connect(other.at(address)).start(SHORT, on_disconnect=CONTINUE)
        seen = await until_text(call, "t2 ")
        call.cancel()
        await stop()

    whole = await resume(connect(other), seen[0].turn_id)
    assert whole.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert whole.text == "".join(f"t{number} " for number in range(16))
    assert joined(seen)[:-1] == joined(whole.responses)[: len(joined(seen)) - 1]


async def test_drain_at_any_moment_of_turn_reports_shutdown(
    surroundings: Surroundings, new_database: str, connect: Connect
) -> None:
    """A drain without grace, at any moment of a turn: its reader gets the error, and the session is free."""
    async with running(surroundings.settings(new_database)) as server:
        service = surroundings.service(server.address, new_database)
        caller = connect(service)
        await caller.converse("hi")
        for pause in (0.0, 0.001, 0.003, 0.01, 0.03):
            server.turns._draining = False
            call = caller.start(SLOW)
            await asyncio.sleep(pause)
            await until(lambda: server.turns.running == 1)
            await server.turns.drain(0.0)
            turn = await read(call)
            assert_shutting_down(turn)
            await free(service)
        await until(lambda: server.turns.running == 0)
        assert_whole(await caller.messages())


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one server", "two servers"])
async def test_drain_refuses_queued_turns(
    surroundings: Surroundings, new_database: str, serve: Start, connect: Connect, *, elsewhere: bool
) -> None:
    """A turn that waits in line here or for another server's turn is refused at once, and never starts."""
    async with running(surroundings.settings(new_database)) as server:
        service = surroundings.service(server.address, new_database)
        caller = connect(service)
        holder = connect(service.at((await serve(database=new_database)).target)) if elsewhere else caller
        call = holder.start(SHORT)
        await until_text(call, "t0 ")
        waiting = [
            asyncio.create_task(caller.converse(f"waits {number}", on_busy=turn_pb.ON_BUSY_WAIT)) for number in range(3)
        ]
        await until(lambda: service.database["turns"].count_documents({"tenant_id": service.tenant_id}) == 4)
        draining = asyncio.create_task(server.turns.drain(10.0))
        refused = await asyncio.wait_for(asyncio.gather(*waiting), 0.5)  # while the turn before them still runs
        assert service.session("talk")["lease"] is not None  # type: ignore[index] # there is one
        for turn in refused:
            assert_shutting_down(turn)
        assert (await read(call)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        await draining
        texts = [each.content[0].text for each in await caller.messages() if each.role == session_pb.ROLE_USER]
        assert texts == [SHORT]
        assert len(service.entries("talk")) == 1
