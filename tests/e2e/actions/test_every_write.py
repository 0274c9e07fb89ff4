"""A server is killed after each write of a turn with tools: nothing runs twice, nothing is lost, any provider goes on.

The writes are counted in the process that is killed (`tests/support/killed_writes.py`). A survivor goes on with each
session as its caller would: with the answers if there are actions, else with a new message.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from godoty.v1 import action_pb2

from godoty_service.ids import new_id
from godoty_service.sessions.history_repair import UNKNOWN_OUTCOME
from openrouter_sandbox.mcp.results import text_result
from openrouter_sandbox.mcp.tools import TOOLS
from tests.conftest import LONG, Start, server_environment
from tests.e2e.actions.conftest import (
    ACTION_REQUIRED,
    APPROVE,
    CLIENT,
    DONE,
    END_TURN,
    Asker,
    Mcp,
    asked,
    not_busy,
    prepare,
)
from tests.e2e.mcp.conftest import PREFIX, SETTINGS
from tests.e2e.turns.conftest import differences
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Turn
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.killed_writes import KILL_AFTER
from tests.support.leases import LONG_LEASE, LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.service import PATIENCE, Service

STRIDE = 1 if LONG else 5  # of the writes: a kill takes half a second of CPU
AT_ONCE = 4  # kills
ENVIRONMENT = {**LONG_LEASE_ENVIRONMENT, "GODOTY_STORAGE_TIMEOUT": str(PATIENCE)}
ENVIRONMENT |= {"GODOTY_STORAGE_PROBE_TIMEOUT": "60"}


def step(session_id: str, *, parallel: int = 5) -> str:
    """Return a text by which the model calls all tools at once, with the session in their inputs."""
    arguments = f'{{"expression": "6 * 7", "text": "{session_id}", "hold": "{session_id}"}}'
    return f"@sandbox tool-loop calls=2 parallel={parallel} input='{arguments}'"


@dataclass
class Killing:
    """A tenant with a server that survives, and others that are killed.

    Attributes:
        survivor: The tenant at the server that survives.
        start: Starts a server that is killed after a write; returns the process and the tenant at it.
        ran: How often each tool that has effects has run, by name and session.
        kills: The kills.
    """

    survivor: Asker
    start: Callable[[int], Awaitable[tuple[ServerProcess, Asker]]]
    ran: Counter[tuple[str, str]]
    kills: int = 0

    async def each_write(self, case: Callable[[int], Awaitable[bool]]) -> None:
        """Run a case for each write, until one is not killed."""
        first = 1
        while True:
            numbers = range(first, first + AT_ONCE * STRIDE, STRIDE)
            killed = await asyncio.gather(*(case(number) for number in numbers))
            self.kills += sum(killed)
            if not all(killed):
                return
            first = numbers.stop

    async def killed(self, process: ServerProcess) -> bool:
        """Stop a server; return whether it was killed. Then its lease expires at once."""
        await process.stop()
        command = process.process
        if command is None or command.returncode != -signal.SIGKILL:
            return False
        end_leases(self.survivor.service.database, process.replica_id)
        return True

    def results(self, session_id: str) -> Mapping[str, str]:
        """Return the results that the provider got last, by the name of the tool."""
        messages = self.survivor.service.requests(session_id)[-1]["messages"]
        names = {call["id"]: call["function"]["name"] for each in messages for call in each.get("tool_calls") or ()}
        return {names[each["tool_call_id"]]: str(each["content"]) for each in messages if each["role"] == "tool"}

    async def check(self, session_id: str) -> None:
        """Check that nothing has run twice, that what has run is in the history, and that the history is valid."""
        assert_valid_history(await self.survivor.caller.messages(session_id))
        assert_valid_request(self.survivor.service.requests(session_id)[-1]["messages"])
        results = self.results(session_id)
        for name, result in (("echo", session_id), ("hang", "released")):
            times = self.ran[name, session_id]
            assert times <= 1, (name, session_id)
            known = results.get(f"{PREFIX}_{name}")
            if known is None:  # no message says that it was called, so it was not
                assert not times, (name, session_id)
            elif times:
                assert known == result or UNKNOWN_OUTCOME in known, (session_id, known)
            else:
                assert known != result, (name, session_id)

    async def goes_on(self, session_id: str) -> Turn:
        """Go on with a session as its caller would; return the turn that has ended."""
        waiting: list[action_pb2.Action] = []
        if self.survivor.service.session(session_id) is not None:
            waiting = await self.survivor.actions(session_id=session_id, state=action_pb2.ACTION_STATE_OPEN)
        if waiting:
            turn = await self.answer(self.survivor, waiting, session_id)
            if turn.failure is None or turn.failure.reason != "ACTION_CLOSED":
                return turn
        return await not_busy(lambda: self.survivor.ask("and now?", session_id=session_id))

    async def answer(self, asker: Asker, actions: list[action_pb2.Action], session_id: str) -> Turn:
        """Answer all actions."""
        results = [(each, DONE if each.name == CLIENT else APPROVE) for each in actions]
        return await not_busy(lambda: asker.answer(*results, session_id=session_id))


@pytest.fixture
def counted(mcp: Mcp, monkeypatch: pytest.MonkeyPatch) -> tuple[Mcp, Counter[tuple[str, str]]]:
    """An MCP server with two tools, and how often each of them has run, by name and session."""
    ran: Counter[tuple[str, str]] = Counter()

    async def echo(_: Any, __: Any, arguments: Mapping[str, Any]) -> Any:
        ran["echo", str(arguments["text"])] += 1
        return text_result(str(arguments["text"]))

    async def hang(_: Any, __: Any, arguments: Mapping[str, Any]) -> Any:
        ran["hang", str(arguments["hold"])] += 1
        return text_result("released")

    for name, run in (("echo", echo), ("hang", hang)):
        monkeypatch.setitem(TOOLS, name, replace(TOOLS[name], run=run))
    return mcp, ran


@pytest.fixture
async def killing(
    backends: Backends,
    serve: Start,
    become: Callable[[Service], Asker],
    counted: tuple[Mcp, Counter[tuple[str, str]]],
    tmp_path: Path,
) -> AsyncIterator[Killing]:
    """A tenant of a server that survives; the ledger is verified afterwards."""
    database = backends.new_database()
    survivor = become(
        await serve(
            database=database, lease=LONG_LEASE, storage_timeout=PATIENCE, storage_probe_timeout=60.0, **SETTINGS
        )
    )
    await prepare(survivor, counted[0])
    await survivor.agent("calculator", {"mcp": {"mcp_server": PREFIX, "allow": ["echo"]}}, name="plain")
    async with AsyncExitStack() as stack:

        async def start(number: int) -> tuple[ServerProcess, Asker]:
            environment = server_environment(backends, database) | ENVIRONMENT | {KILL_AFTER: str(number)}
            process = ServerProcess(environment=environment, log=tmp_path / f"{new_id('log')}.log")
            stack.push_async_callback(process.stop)
            await process.start()
            victim = become(survivor.service.at(process.address))
            await victim.check()
            return process, victim

        yield Killing(survivor, start, counted[1])
    assert await differences(backends.mongodb_uri, database) == []


@pytest.mark.long
async def test_kill_after_each_write_of_the_turn_that_asks(killing: Killing) -> None:
    """If its actions are there, the answers act, by one model call more in all; else a new message goes on."""

    async def case(number: int) -> bool:
        session_id = f"asks-{number}"
        process, victim = await killing.start(number)
        asking = await victim.ask(step(session_id), session_id=session_id)
        killed = await killing.killed(process)
        assert killed or asking.finished.stop_reason == ACTION_REQUIRED
        turn = await killing.goes_on(session_id)

        assert turn.finished.stop_reason == END_TURN, (session_id, turn)
        await killing.check(session_id)
        if asked(asking):  # they were shown, so they act
            assert len(killing.survivor.service.entries(session_id)) == 2
            assert killing.results(session_id)[CLIENT] == "done"
            assert killing.ran["hang", session_id] == 1
        return killed

    await killing.each_write(case)
    assert killing.kills >= (15 // STRIDE)


@pytest.mark.long
async def test_kill_after_each_write_of_the_turn_that_answers(killing: Killing) -> None:
    """The same answers go on, or they have acted: then a new message does."""

    async def case(number: int) -> bool:
        session_id = f"answers-{number}"
        process, victim = await killing.start(number)
        first = await killing.survivor.ask(step(session_id), session_id=session_id)
        actions = asked(first)
        assert len(actions) == 3
        answering = await killing.answer(victim, actions, session_id)
        killed = await killing.killed(process)
        assert killed or answering.finished.stop_reason == END_TURN
        turn = await killing.answer(killing.survivor, actions, session_id)
        if turn.failure is not None:
            assert turn.failure.reason == "ACTION_CLOSED", (session_id, turn.failure)
            turn = await not_busy(lambda: killing.survivor.ask("and now?", session_id=session_id))
        else:
            assert turn.finished.turn_totals.model_calls == 1  # a call of the dead server is an entry of its own

        assert turn.finished.stop_reason == END_TURN
        await killing.check(session_id)
        assert killing.ran["echo", session_id] == 1
        assert killing.results(session_id)[f"{PREFIX}_echo"] == session_id
        assert killing.results(session_id)[CLIENT] == "done"
        return killed

    await killing.each_write(case)
    assert killing.kills >= (15 // STRIDE)


async def test_kill_after_each_write_of_a_turn_without_actions(killing: Killing) -> None:
    """The history says of both tools what is known."""

    async def case(number: int) -> bool:
        session_id = f"plain-{number}"
        process, victim = await killing.start(number)
        await victim.ask(step(session_id, parallel=2), agent="plain", session_id=session_id)
        killed = await killing.killed(process)
        turn = await not_busy(lambda: killing.survivor.ask("and now?", agent="plain", session_id=session_id))

        assert turn.finished.stop_reason == END_TURN
        await killing.check(session_id)
        return killed

    await killing.each_write(case)
    assert killing.kills >= (10 // STRIDE)
