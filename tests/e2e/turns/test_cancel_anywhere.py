"""A cancel at any await of a turn leaves no open call, no partial history and no unpaid cost."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from godoty.v1 import turn_pb2 as turn_pb
from strands import tool

from godoty_service import server as composition
from godoty_service.agents.tools.registry import built_in_tools
from godoty_service.server import Running, running
from tests.e2e.turns.cancel_injector import CancelInjector
from tests.e2e.turns.conftest import LONG
from tests.e2e.turns.streams import chunks
from tests.support.backends import Backends
from tests.support.caller import Caller, Turn
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import Service, soon

# A database write, a streaming model, a tool that waits, and the same again.
CLOSED = 10.0  # seconds
SCRIPT = "@sandbox tool-loop calls=2 tool=current_time input={} reasoning=2 delay_ms=3 record_ms=-1"


@tool(name="current_time")
async def nap() -> str:
    """Sleep for a moment."""
    for _ in range(3):
        await asyncio.sleep(0.005)
    return "rested"


def napping(**wishes: Any) -> dict[str, Any]:
    """Return the tools of the server, with a slow one."""
    return {**built_in_tools(**wishes), "current_time": nap}


def tasks() -> set[Any]:
    """Return the running tasks, without gRPC's own for the next request and those of the driver's monitors."""
    return {each for each in asyncio.all_tasks() if not _is_of_a_library(each.get_coro())}


def _is_of_a_library(coroutine: Any) -> bool:
    code = getattr(coroutine, "cr_code", None)
    driver = code is not None and "pymongo" in code.co_filename
    return driver or getattr(coroutine, "__qualname__", "").startswith("AioServer")


async def wait_for_no_other_tasks(before: set[Any]) -> None:
    """Wait until no tasks run except those of before."""
    try:
        await soon(lambda: not tasks() - before)
    except AssertionError as error:
        raise AssertionError(f"left: {tasks() - before}") from error


async def assert_nothing_left(
    caller: Caller, server: Running, turn: Turn, *, session_id: str, before: set[Any], struck: float
) -> None:
    """Check that a cancelled turn has left no resource behind."""
    service = caller.service
    await soon(lambda: server.turns.running == 0)
    await wait_for_no_other_tasks(before)
    sandbox = service.backends.sandbox
    await soon(lambda: service.backends.ask(lambda: sandbox.connections.open) == 0)
    aborted = service.backends.ask(sandbox.connections.as_dict)["aborted"]
    assert all(each["noticed_at"] - struck < CLOSED for each in aborted if each["noticed_at"] > struck)
    session = service.session(session_id)
    assert session is None or session["lease"] is None
    for entry in service.entry_documents(session_id):
        left = entry["state"] == "pending" and entry["due"] is not None
        unseen = entry["state"] == "unresolved" and not entry.get("generation_id") and entry.get("upper_bound")
        assert left or unseen or entry["state"] in ("settled", "void"), entry
    if turn.responses:
        kept = chunks(service, turn.responses[0].turn_id)
        assert [each["ended"] for each in kept] == [False] * (len(kept) - 1) + [True]
    else:  # it never began, so its request id is not used
        assert service.database["turns"].count_documents({"session_id": session_id}) == 0
    assert not server.ledger.open_calls


async def test_cancel_at_any_await_settles_turn(
    backends: Backends,
    connect: Callable[[Service], Caller],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At every await: upstream is closed, every entry is closed or due, and the next turn works."""
    monkeypatch.setattr(composition, "built_in_tools", napping)
    injector = CancelInjector(monkeypatch)
    database = backends.empty_database()
    async with running(backends.settings(database, turn_log_interval=0.01)) as server:
        caller = connect(backends.service(server.address, database))
        whole = await caller.converse(SCRIPT, session_id="whole")
        assert whole.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        awaits = injector.awaits
        await soon(lambda: server.turns.running == 0)
        await asyncio.sleep(0.05)
        before = tasks()
        cases = [(at, late) for at in range(awaits + 1) for late in (False, True) if LONG or late == at % 2]
        outcomes: dict[str, int] = {}
        for at, late in cases:
            session_id = f"at-{at}-{late}"
            injector.arm(at, late=late)
            turn = await caller.converse(SCRIPT, session_id=session_id)
            struck, injector.at = injector.fired_at, None
            outcome = turn.failure.reason if turn.failure is not None else "finished"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            assert outcome in ("TURN_CANCELLED", "finished"), (at, late, turn.failure)
            await assert_nothing_left(
                caller, server, turn, session_id=session_id, before=before, struck=struck or time.time()
            )
            again = await caller.converse("and now?", session_id=session_id)
            assert again.finished.stop_reason == turn_pb.STOP_REASON_END_TURN, (at, late)
            assert_valid_history(await caller.messages(session_id))
            assert_valid_request(caller.service.requests(session_id)[-1]["messages"])
            await soon(lambda: server.turns.running == 0)
    print(f"[injector] {awaits} awaits, {len(cases)} cancels, {outcomes}")  # noqa: T201 - shown with -s
    assert outcomes["TURN_CANCELLED"] > awaits // 3
