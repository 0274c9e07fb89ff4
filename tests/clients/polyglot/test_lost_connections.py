"""The clients in other languages resume a turn whose connection is lost, and cancel one that is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.ids import new_id
from tests.clients.polyglot.conformance import Conformance, Result
from tests.clients.polyglot.cutting_proxy import CuttingProxy
from tests.clients.polyglot.programs import LANGUAGES, READERS, Language, Line
from tests.conftest import StartProcess
from tests.e2e.turns.streams import SLOW, free
from tests.support.caller import Caller
from tests.support.leases import SHORT_LEASE_ENVIRONMENT
from tests.support.service import Service, format_amount, soon

_CUTS = 30
_TOKENS = 1500
_FIND = {"name": "look_up", "description": "Finds an order.", "returns": "two pens"}


@pytest.fixture(params=READERS)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language, and Java's reactive stream."""
    return READERS[request.param]


async def _until(lines: Any, text: str) -> Result:
    """Read the events of a turn until its text contains `text`."""
    result = Result()
    while text not in result.text:
        line: Line = await anext(lines)
        assert "event" in line, line
        result.events.append(line)
    return result


async def _rest(lines: Any, result: Result) -> Result:
    async for line in lines:
        result.done |= line.get("done", {})
        result.error |= line.get("error", {})
        if "event" in line:
            result.events.append(line)
    return result


async def test_turn_survives_connections_cut_at_random(language: Language, caller: Caller) -> None:
    """Thirty times, anywhere in a connection: the text is exact, events come once, and each call is charged once."""
    rng, hold = random.Random(language.folder), new_id("hold")
    script = f"@sandbox tool-loop calls=2 tool=look_up tokens={_TOKENS} hold_after=1 hold={hold}"
    async with (
        CuttingProxy(caller.service.target) as proxy,
        Conformance.of(language, caller.service.at(proxy.address)) as program,
    ):
        reading = asyncio.create_task(program.ask("converse", session_id="talk", text=script, tools=[_FIND]))
        for number in range(_CUTS):
            proxy.cut_after(rng.choice((rng.randint(1, 100), rng.randint(1, 2000))))
            while proxy.cuts == number:
                before = proxy.forwarded
                caller.service.backends.allow(hold, 2)
                await soon(lambda: proxy.forwarded > before or proxy.cuts > number or reading.done())  # noqa: B023
                assert not reading.done(), reading.result()
        caller.service.backends.allow(hold)
        result = await reading

    assert result.error == {}
    assert result.text == result.done["text"] == "".join(f"t{number} " for number in range(_TOKENS))
    assert [each["event"] for each in result.events].count("tool_ran") == 1
    ran = [each["event"] for each in result.events].index("tool_ran")
    for events in (result.events[:ran], result.events[ran + 1 :]):  # of each turn
        assert all(first["sequence"] < second["sequence"] for first, second in pairwise(events))
    assert result.done["reconnects"] > _CUTS / 3  # gRPC itself repeats calls that no server has seen
    entries = caller.service.entries("talk")
    cost = sum((each.cost or Decimal() for each in entries), Decimal())
    assert (len(entries), caller.service.invoiced("talk")) == (2, cost)
    assert result.done["cost_usd"] == format_amount(cost)


async def test_turn_of_a_killed_server_ends_interrupted(
    serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """Killed in mid-answer and restarted, each client sees the end of its turn, and its next turn works."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    async with AsyncExitStack() as stack:
        programs = {
            name: await stack.enter_async_context(Conformance.of(each, service)) for name, each in LANGUAGES.items()
        }
        turns = {name: program.lines("converse", session_id=name, text=SLOW) for name, program in programs.items()}
        seen = {name: await _until(lines, "t3 ") for name, lines in turns.items()}
        await process.kill()
        await process.start()
        ends = dict(zip(turns, await asyncio.gather(*(_rest(turns[each], seen[each]) for each in turns)), strict=True))
        next_turns = {name: await each.ask("converse", session_id=name, text="hi") for name, each in programs.items()}

    for name, result in ends.items():
        assert (name, result.error) == (name, {})
        assert result.done["stop_reason"] == "STOP_REASON_INTERRUPTED"
        assert result.done["text"] == result.text
        assert "".join(f"t{number} " for number in range(200)).startswith(result.text)
        assert result.done["reconnects"] > 0
    for name, result in next_turns.items():
        assert (name, result.done.get("stop_reason")) == (name, "STOP_REASON_END_TURN"), result


async def test_left_turn_is_cancelled_at_once(language: Language, caller: Caller) -> None:
    """By a break in mid-answer, or by its deadline: not after the disconnect grace, which is ten minutes here."""
    script = f"@sandbox plain tokens=12 hold_after=4 hold={new_id('hold')} record_ms=-1"
    async with Conformance.of(language, caller.service) as program:
        for session_id, leave in (("broken", {"leave_at": "t3 "}), ("late", {"timeout_ms": 1500})):
            result = await program.ask("converse", session_id=session_id, text=script, grace_ms=600_000, **leave)
            await free(caller.service, session_id)
            (turn,) = (await caller.call("ListTurns", pb.ListTurnsRequest(session_id=session_id))).turns
            assert turn.error_reason == "TURN_CANCELLED"
            if session_id == "broken":
                assert result.text == "t0 t1 t2 t3 "
                assert (result.done["turn_id"], result.done["stop_reason"]) == (turn.turn_id, None)
            else:
                assert (result.error["code"], result.error["reason"]) == (4, "")
