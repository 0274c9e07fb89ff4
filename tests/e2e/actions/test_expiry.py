"""Actions without an answer in time: denied, or closed if their tool's definition says so. Tests turn the clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from godoty.v1 import action_pb2

from godoty_service.cluster.clock_sync import SynchronizedClock
from tests.conftest import Start
from tests.e2e.actions.conftest import ALWAYS, APPROVE, END_TURN, REFUND, Asker, asked, calls, goes_on
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import Service, eventually

CALCULATE = '{"expression": "6 * 7"}'
CLOSE = "ACTION_EXPIRY_CLOSE"
ASKS = {
    "approval": ({"builtin": "calculator", **ALWAYS}, calls("calculator", arguments=CALCULATE)),
    "client": ({"client": REFUND}, calls("refund")),
}
CLOSES = {
    "approval": ({"builtin": "calculator", "approval": {"on_expiry": CLOSE}}, ASKS["approval"][1]),
    "client": ({"client": {**REFUND, "on_expiry": CLOSE}}, ASKS["client"][1]),
}


class TurnedClock:
    """The clock of the servers of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = timedelta()
        original = SynchronizedClock.__call__

        def now(clock: SynchronizedClock) -> datetime:
            return original(clock) + self.ahead

        monkeypatch.setattr(SynchronizedClock, "__call__", now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TurnedClock:
    """The clock."""
    return TurnedClock(monkeypatch)


@pytest.fixture
async def soon_due(serve: Start, become: Callable[[Service], Asker]) -> Asker:
    """A tenant of a server that looks for expired actions all the time."""
    return become(await serve(action_interval=0.05))


async def expired(asker: Asker, *, number: int = 1) -> list[action_pb2.Action]:
    """Wait until actions have expired; return them."""

    async def found() -> list[action_pb2.Action]:
        listed = await asker.actions(state=action_pb2.ACTION_STATE_EXPIRED)
        return listed if len(listed) == number else []

    return await eventually(found)


@pytest.mark.parametrize("kind", ASKS)
async def test_expired_action_counts_as_denied(soon_due: Asker, clock: TurnedClock, kind: str) -> None:
    """The session goes on by itself, and the model sees that no answer came; a day before, an answer counts."""
    tool, text = ASKS[kind]
    await soon_due.agent(tool)
    (action,) = asked(await soon_due.ask(text))
    (other,) = asked(await soon_due.ask(text, session_id="other"))
    assert action.on_expiry == action_pb2.ACTION_EXPIRY_DENY
    clock.ahead = timedelta(days=29)
    answer = APPROVE if kind == "approval" else {"output": {"output_text": "done"}}
    assert (await soon_due.answer((other, answer), session_id="other")).finished.stop_reason == END_TURN
    clock.ahead = timedelta(days=31)

    await goes_on(soon_due, action.action_id)
    assert "denied: no answer came in time" in str(soon_due.requests()[-1]["messages"])
    failure = await soon_due.refused(action, answer)
    assert failure.reason == "ACTION_EXPIRED"
    (listed,) = await expired(soon_due)
    assert listed.action_id == action.action_id


@pytest.mark.parametrize("kind", CLOSES)
async def test_definition_may_close_in_place_of_denying(soon_due: Asker, clock: TurnedClock, kind: str) -> None:
    """No model is called before the next message, which sees that the call was not carried out."""
    tool, text = CLOSES[kind]
    await soon_due.agent(tool)
    (action,) = asked(await soon_due.ask(text))
    assert action.on_expiry == action_pb2.ACTION_EXPIRY_CLOSE
    clock.ahead = timedelta(days=31)
    await expired(soon_due)
    steps = soon_due.service.database["steps"]
    closed = {"tenant_id": soon_due.service.tenant_id, "closed": True, "check_time": {"$exists": False}}
    await eventually(lambda: _found(steps.count_documents(closed)))
    late = await soon_due.answer((action, APPROVE if kind == "approval" else {"deny": {}}))

    assert late.failure is not None
    assert late.failure.reason == "ACTION_EXPIRED"
    assert len(soon_due.service.entries("talk")) == 1
    turn = await soon_due.ask("and now?")
    assert turn.finished.stop_reason == END_TURN
    sent = soon_due.requests()[-1]["messages"]
    assert "not carried out: no answer came in time" in str(sent)
    assert_valid_request(sent)
    assert_valid_history(await soon_due.caller.messages())


async def test_one_that_closes_decides_for_its_step(soon_due: Asker, clock: TurnedClock) -> None:
    """What was approved beside it is not carried out either, and a client's result is kept."""
    await soon_due.agent(
        {"builtin": "calculator", **ALWAYS}, CLOSES["client"][0], {"builtin": "current_time", **ALWAYS}
    )
    turn = await soon_due.ask("@sandbox tool-loop calls=2 parallel=3")
    by_name = {each.name: each for each in asked(turn)}
    await soon_due.decide(by_name["calculator"], APPROVE)
    clock.ahead = timedelta(days=31)
    await expired(soon_due, number=2)
    await eventually(lambda: _closed(soon_due))

    assert (await soon_due.ask("and now?")).finished.stop_reason == END_TURN
    assert len(soon_due.service.entries("talk")) == 2
    assert_valid_history(await soon_due.caller.messages())


async def test_request_s_client_tool_may_close_too(soon_due: Asker, clock: TurnedClock) -> None:
    """And a value that there is not is refused."""
    await soon_due.agent("calculator")
    tool: dict[str, Any] = {**REFUND, "on_expiry": CLOSE}
    wrong = await soon_due.ask("hi", client_tools=[{**REFUND, "on_expiry": 9}])
    assert wrong.failure is not None
    assert wrong.failure.fields.keys() == {"client_tools[0].on_expiry"}
    (action,) = asked(await soon_due.ask(calls("refund"), client_tools=[tool]))
    clock.ahead = timedelta(days=31)
    (listed,) = await expired(soon_due)
    assert (listed.action_id, listed.on_expiry) == (action.action_id, action_pb2.ACTION_EXPIRY_CLOSE)


async def _found(value: int) -> int:
    return value


async def _closed(asker: Asker) -> bool:
    return len(await asker.actions(state=action_pb2.ACTION_STATE_CLOSED)) == 1
