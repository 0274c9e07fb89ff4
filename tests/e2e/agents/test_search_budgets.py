"""Searches under a hard budget, in turns of every kind: nothing is overspent, and the ledger equals the invoice."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from tests.e2e.agents.conftest import Definer
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller, Turn, read
from tests.support.waiting import settled

MODEL, FALLBACK = "openai/gpt-4o-mini", "anthropic/claude-haiku-4.5"
SEARCH_FEE = Decimal("0.007")  # of Exa, in the sandbox's list
SEARCH = {"max_uses": 2, "max_results": 3, "max_characters": 400}
GREEDY = "uses=9 together=1 result_tokens=400 tokens=20"
LIMITS = {"max_output_tokens": 400}
KINDS = {
    "cancelled": f"@sandbox plain {GREEDY} hold_after=1",
    "vanished": f"@sandbox plain {GREEDY} hold_after=1",
    "retried": f"@sandbox error-before status=503 times=1 {GREEDY}",
    "broken": f"@sandbox error-mid n=3 code=502 {GREEDY}",
    "cut off": f"@sandbox reset n=900 rst=1 {GREEDY}",
    "without a cost": f"@sandbox no-cost {GREEDY}",
    "by the fallback": f"@sandbox fallback {GREEDY}",
    "without the fees": f"@sandbox plain tool_cost=0 {GREEDY}",
    "whole": f"@sandbox plain {GREEDY}",
}


HELD = ("cancelled", "vanished")


async def run(caller: Caller, kind: str, name: str) -> Turn:
    """Run a turn of a kind to its end."""
    return await caller.converse(KINDS[kind], session_id=name, agent="support", limits=LIMITS)


async def hold(caller: Caller, kind: str, name: str) -> tuple[Any, str]:
    """Start a turn whose answer is held after its first token; return its stream and its id."""
    text = f"{KINDS[kind]} hold={caller.service.tenant_id}-{name}"
    stream = caller.start(text, session_id=name, agent="support", limits=LIMITS)
    return stream, (await until_text(stream, "t0"))[0].turn_id


async def abandon(caller: Caller, kind: str, stream: Any, turn_id: str) -> None:
    """Cancel a held turn, or lose its caller."""
    if kind == "vanished":
        stream.cancel()
        return
    await caller.call("CancelTurn", pb.CancelTurnRequest(turn_id=turn_id))
    await read(stream)


@pytest.mark.parametrize("calls", [4, 40], ids=["most are refused", "all fit"])
async def test_turns_that_end_in_every_way_do_not_overspend(
    caller: Caller, other_tenant: Caller, restricted: Any, define: Callable[[Caller], Definer], *, calls: int
) -> None:
    """Cancels, lost callers, retries, broken streams, fallbacks, costs that the record alone states: side by side."""
    definition: dict[str, Any] = {"model": MODEL, "fallback_models": [FALLBACK], "web_search": SEARCH}
    await define(other_tenant).apply(**definition)
    first = await other_tenant.converse(KINDS["whole"], agent="support", limits={**LIMITS, "max_cost_usd": "1"})
    assert first.failure is None
    bound = other_tenant.service.entries("talk")[0].upper_bound
    assert bound is not None
    limit = calls * bound * Decimal("1.1")  # texts differ in length, and bounds with them
    budget = Budget(window=BudgetWindow.TOTAL, limit=limit, hard=True)
    await restricted(budgets=(budget,))
    await define(caller).apply(**definition)

    names = {f"s{number}": kind for number, kind in enumerate([*KINDS] * 2)}
    others = {name: kind for name, kind in names.items() if kind not in HELD}
    held = {name: await hold(caller, kind, name) for name, kind in names.items() if kind in HELD}
    if calls < len(names):  # the held turns have reserved all of the budget
        turns = await asyncio.gather(*(run(caller, kind, name) for name, kind in others.items()))
        assert {each.failure and each.failure.reason for each in turns} == {"BUDGET_RESERVED"}
    await asyncio.gather(
        *(abandon(caller, names[name], *each) for name, each in held.items()),
        *(run(caller, kind, name) for name, kind in others.items()),
    )
    begun = [name for name in names if caller.service.session(name) is not None]
    entries: list[ModelCall] = []
    for name in begun:
        await settled(caller, name)
        entries += caller.service.entries(name)

    charged = {each.generation_id: each.cost for each in entries if each.cost}
    lines = {each.generation_id: each.cost for name in begun for each in caller.service.invoice(name) if each.cost}
    assert charged == lines
    assert sum(lines.values()) <= budget.limit
    assert all((each.cost or Decimal(0)) <= (each.upper_bound or 0) for each in entries)
    assert {each.state for each in entries} <= {CallState.SETTLED, CallState.VOID}
    assert all(cost >= 2 * SEARCH_FEE for cost in lines.values())
    assert len(begun) == len(names) if calls > len(names) else len(charged) >= len(held)
