"""Cancels of turns whose agents call others: they reach all agents, and nothing is charged that was not asked for."""

from decimal import Decimal

import pytest

from godoty_service.ledger.entries import CallPurpose
from tests.e2e.agents.conftest import Definer
from tests.e2e.agents.trees import CHAIN, DEPTHS, HOLD, SUMMARY, asks, chain, reaching, settled, summing, total, tree
from tests.e2e.turns.streams import cancel
from tests.support.caller import Caller, read
from tests.support.service import soon


async def test_cancel_reaches_all_agents(definer: Definer, caller: Caller) -> None:
    """Two branches wait for their models, three deep; both connections are closed, and both are charged."""
    await tree(definer)
    waiting = "@sandbox plain tokens=50 hold_after=2 hold=never"
    stream = caller.start(asks("researcher", asks("checker", waiting), parallel=2), agent="coordinator")
    service = caller.service
    await soon(lambda: [each for each in service.entries("talk") if each.agent == "checker" and each.generation_id][1:])
    first = await anext(aiter(stream))
    await cancel(caller, first.turn_id)
    turn = await read(stream)

    assert turn.failure is not None
    assert turn.failure.reason == "TURN_CANCELLED"
    connections = service.backends.sandbox.connections
    waited = {each.generation_id for each in service.entries("talk") if each.agent == "checker"}

    def closed() -> bool:
        aborted = service.backends.ask(connections.as_dict)["aborted"]
        return waited <= {each["generation_id"] for each in aborted}

    await soon(closed)
    entries = await settled(service, 5)
    assert [each.number for each in entries] == [1, 2, 3, 4, 5]
    assert total(entries) == service.invoiced("talk")
    again = await caller.converse("and now?")
    assert again.failure is None
    assert Decimal(again.finished.session_totals.cost_usd) == service.invoiced("talk")


@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize("depth", DEPTHS)
async def test_cancel_holds_at_each_depth(definer: Definer, caller: Caller, depth: int, *, summary: bool) -> None:
    """While the agent there answers or summarizes: no further call is made, and the session goes on."""
    await chain(definer, history=SUMMARY)
    service, first = caller.service, CallPurpose.SUB_AGENT if depth else CallPurpose.AGENT
    purpose, calls = (CallPurpose.SUMMARY, depth + 3) if summary else (first, depth + 1)
    stream = caller.start(reaching(depth, summing(HOLD) if summary else HOLD), agent="coordinator")

    def waits() -> bool:
        wanted = (CHAIN[depth], purpose)
        return any((each.agent, each.purpose) == wanted and each.generation_id for each in service.entries("talk"))

    await soon(waits)
    await cancel(caller, (await anext(aiter(stream))).turn_id)
    turn = await read(stream)

    assert turn.failure is not None
    assert turn.failure.reason == "TURN_CANCELLED"
    entries = await settled(service, calls)
    assert [each.number for each in entries] == list(range(1, calls + 1))
    assert entries[-1].agent == CHAIN[depth]
    connections = service.backends.sandbox.connections
    await soon(
        lambda: (
            entries[-1].generation_id
            in {each["generation_id"] for each in service.backends.ask(connections.as_dict)["aborted"]}
        )
    )
    assert total(entries) == service.invoiced("talk")
    service.backends.allow("never")  # the next turn summarizes what has the directive
    again = await caller.converse("and now?")
    assert Decimal(again.finished.session_totals.cost_usd) == service.invoiced("talk")
