"""A turn under CANCEL runs on for its `disconnect_grace`: a client whose connection broke can come back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

import pytest
from godoty.v1 import turn_pb2 as turn_pb
from google.protobuf.duration_pb2 import Duration

from godoty_service.ledger.states import CallState
from godoty_service.server import Running, running
from godoty_service.turns import cancellation, resumption, turn_store
from godoty_service.turns.turn import Turn as RunningTurn
from tests.e2e.turns.silent_proxy import SilentProxy
from tests.e2e.turns.streams import CONTINUE, assert_increasing, cancel, free, joined, resume, until_text
from tests.support.backends import Backends
from tests.support.caller import Caller, EventStream, read
from tests.support.history import assert_valid_history
from tests.support.service import Service, soon

LONG, SHORT = Duration(seconds=600), Duration(nanos=700_000_000)
WHOLE = "".join(f"t{number} " for number in range(12))


@dataclass
class Pair:
    """Two servers on one database, each behind a proxy that can cut its connections.

    Attributes:
        servers: The servers in this process.
        callers: A caller of each server, through its proxy.
        proxies: The proxies.
        hold: The name of the hold at which an answer waits after four of its twelve tokens.
        connect: Connects callers.
    """

    service: Service
    servers: list[Running]
    callers: list[Caller]
    proxies: list[SilentProxy]
    hold: str
    connect: Callable[[Service], Caller]

    def another(self, hold: str) -> Self:
        """Return the pair for another tenant, with another hold."""
        service = self.service.another_tenant()
        callers = [self.connect(service.at(each.address)) for each in self.proxies]
        return replace(self, service=service, callers=callers, hold=f"{self.hold}-{hold}")

    @property
    def script(self) -> str:
        """The text of a turn whose answer waits at the hold."""
        return f"@sandbox plain tokens=12 hold_after=4 hold={self.hold} record_ms=-1"

    def allow(self, tokens: int | None = None) -> None:
        """Let the answers continue, by a number of tokens or to their end."""
        self.service.backends.allow(self.hold, tokens)

    def turn(self, turn_id: str) -> RunningTurn:
        """Return a turn that the first server runs."""
        (found,) = [each for each in self.servers[0].turns.all() if each.turn_id == turn_id]
        return found

    async def lose(self, which: int, turn_id: str) -> RunningTurn:
        """Cut the connections of a server's clients, and wait until the turn has no reader."""
        turn = self.turn(turn_id)
        self.proxies[which].cut()
        await soon(lambda: turn.log.readers == 0)
        return turn


@pytest.fixture
async def pair(
    backends: Backends,
    connect: Callable[[Service], Caller],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Pair]:
    """Two servers that see each other's readers also on a busy machine."""
    monkeypatch.setattr(turn_store, "_MARK_VALID", 10_000)
    monkeypatch.setattr(resumption, "_MARK", 0.2)
    monkeypatch.setattr(cancellation, "_READER_TIMEOUT", 10.0)
    database = backends.empty_database()
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(running(backends.settings(database, turn_watch_interval=0.05)))
            for _ in range(2)
        ]
        proxies = [await stack.enter_async_context(SilentProxy(each.address)) for each in servers]
        service = backends.service(servers[0].address, database)
        callers = [connect(service.at(each.address)) for each in proxies]
        yield Pair(service, servers, callers, proxies, hold=database, connect=connect)


def start(pair: Pair, grace: Duration, **fields: Any) -> EventStream:
    """Start a turn on the first server."""
    return pair.callers[0].start(pair.script, disconnect_grace=grace, request_id="one", timeout=None, **fields)


def come_back(pair: Pair, which: int, how: str, seen: list[turn_pb.TurnEvent]) -> EventStream:
    """Read a turn again, after the events that were seen or from its beginning."""
    if how == "resume":
        return pair.callers[which].resume(seen[-1].turn_id, seen[-1].sequence)
    # The same request with another grace is the same request.
    return pair.callers[which].start(pair.script, disconnect_grace=Duration(seconds=1), request_id="one", timeout=None)


async def is_running(pair: Pair) -> None:
    """Check after some checks of the server that a turn still runs."""
    await asyncio.sleep(0.3)
    session = pair.service.session("talk")
    assert session is not None
    assert session["lease"] is not None


async def marked(pair: Pair, turn_id: str) -> None:
    """Wait until the other server has just marked that it has a reader of a turn."""
    turns = pair.service.database["turns"]
    before = turns.find_one(turn_id)
    await soon(lambda: turns.find_one(turn_id) != before)


@pytest.mark.parametrize("how", ["resume", "attach"])
async def test_reader_that_comes_back_within_grace_loses_nothing(pair: Pair, how: str) -> None:
    """Its connection is cut; the same server or another shows the rest, and there is one call and one charge."""
    for where in (0, 1):
        await _come_back_to(pair.another(str(where)), where, how)


async def _come_back_to(pair: Pair, where: int, how: str) -> None:
    call = start(pair, LONG)
    seen = await until_text(call, "t3 ")
    await pair.lose(0, seen[0].turn_id)
    assert (await read(call)).failure is not None
    await is_running(pair)
    back = come_back(pair, where, how, seen)
    more = [await anext(aiter(back))] if how == "attach" else []
    pair.allow()
    rest = await read(back)

    events = (*more, *rest.responses) if how == "attach" else (*seen, *rest.responses)
    whole = await resume(pair.callers[1], seen[0].turn_id)
    assert rest.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert whole.text == WHOLE
    assert_increasing(events)
    assert joined(events) == joined(whole.responses)
    (entry,) = pair.service.entries("talk")
    assert entry.state is CallState.SETTLED
    assert pair.service.invoiced("talk") == entry.cost
    assert len(pair.service.requests("talk")) == 1


async def test_reader_may_leave_twice(pair: Pair) -> None:
    """On one server and then on the other: the grace begins anew each time, and the parts make the whole."""
    call = start(pair, LONG)
    seen = await until_text(call, "t3 ")
    turn_id = seen[0].turn_id
    for which in (0, 1):
        await pair.lose(which, turn_id)
        await is_running(pair)
        back = come_back(pair, 1 - which, "resume", seen)
        pair.allow(3)
        seen += await until_text(back, "t6 " if which == 0 else "t9 ")
    pair.allow()
    rest = await read(back)

    assert rest.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    events = [*seen, *rest.responses]
    assert "".join(each.text_delta.text for each in events) == WHOLE
    assert joined(events) == joined((await resume(pair.callers[0], turn_id)).responses)
    assert len(pair.service.entries("talk")) == 1


async def test_turn_whose_reader_stays_away_is_cancelled(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the grace has passed since the last reader left, on any server; its call is settled or reconciled."""
    for which in (0, 1):
        with monkeypatch.context() as marks:
            await _stay_away(pair.another(str(which)), marks, which)


async def _stay_away(pair: Pair, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """Lose the last reader of a turn on a server, and check that the turn ends after its grace."""
    call = start(pair, SHORT)
    seen = await until_text(call, "t3 ")
    turn_id = seen[0].turn_id
    turn = pair.turn(turn_id)
    if which == 1:
        reader = pair.callers[1].resume(turn_id)
        await until_text(reader, "t3 ")
        call.cancel()
        await soon(lambda: turn.log.readers == 0)
        await asyncio.sleep(1.0)  # longer than the grace: the other server's reader keeps the turn running
        await is_running(pair)
        await marked(pair, turn_id)
    monkeypatch.setattr(turn_store, "_MARK_VALID", 600)
    left = time.monotonic()
    pair.proxies[which].cut()
    await soon(lambda: turn.log.ended)

    assert time.monotonic() - max(left if which else turn.log.left_at, left) >= SHORT.nanos / 1e9 - 0.25
    session = await free(pair.service)
    assert session["message_count"] == 2
    again = await resume(pair.callers[which], turn_id)
    assert again.failure is not None
    assert again.failure.reason == "TURN_CANCELLED"
    (entry,) = pair.service.entries("talk")
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    assert_valid_history(await pair.callers[0].messages())


async def test_cancel_turn_does_not_wait_for_the_grace(pair: Pair) -> None:
    """Of a turn without a reader, by either server."""
    for number, client in enumerate(pair.callers):
        session_id = f"talk-{number}"
        call = pair.callers[0].start(pair.script, session_id=session_id, disconnect_grace=LONG, timeout=None)
        turn_id = (await until_text(call, "t3 "))[0].turn_id
        await pair.lose(0, turn_id)
        await cancel(client, turn_id)
        await free(pair.service, session_id)


async def test_stopping_server_gives_no_grace(pair: Pair) -> None:
    """A turn without a reader ends at once, as one without a grace; one that is read on the other server does not."""
    calls = [pair.callers[0].start(pair.script, session_id=each, disconnect_grace=LONG, timeout=None) for each in "ab"]
    alone, watched = [(await until_text(each, "t3 "))[0].turn_id for each in calls]
    reader = pair.callers[1].resume(watched)
    await until_text(reader, "t3 ")
    turn = pair.turn(watched)
    await pair.lose(0, alone)
    await soon(lambda: turn.log.readers == 0)
    draining = asyncio.create_task(pair.servers[0].turns.drain(600.0))
    await free(pair.service, "a")
    assert not draining.done()
    pair.allow()

    assert (await read(reader)).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    await draining
    failure = (await resume(pair.callers[1], alone)).failure
    assert failure is not None
    assert failure.reason == "TURN_CANCELLED"


async def test_waiting_turn_has_its_grace(pair: Pair) -> None:
    """Its reader's connection is cut while it waits in line; on the other server it is read from its beginning."""
    holder = pair.callers[0].start(pair.script, timeout=None, on_disconnect=CONTINUE)
    await until_text(holder, "t3 ")
    waiting = pair.callers[0].start(
        "and now?", disconnect_grace=LONG, on_busy=turn_pb.ON_BUSY_WAIT, request_id="next", timeout=None
    )
    reading = asyncio.create_task(read(waiting))
    await soon(lambda: pair.service.database["turns"].count_documents({"request_id": "next"}) == 1)
    (turn_id,) = pair.service.database["turns"].distinct("_id", {"request_id": "next"})
    await pair.lose(0, turn_id)
    assert (await reading).failure is not None
    await asyncio.sleep(0.3)
    back = asyncio.create_task(resume(pair.callers[1], turn_id))
    pair.allow()

    assert (await back).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
