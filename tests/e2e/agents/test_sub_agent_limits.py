"""Limits of turns whose agents call others: of the turn and the tenant for all agents, of a sub-agent for each call."""

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from godoty.v1 import session_pb2

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.entries import CallPurpose
from godoty_service.turns.agents import sub_agents
from tests.conftest import Start
from tests.e2e.agents.conftest import Definer
from tests.e2e.agents.trees import (
    CHAIN,
    DEPTHS,
    HOLD,
    SUMMARY,
    asks,
    assert_never_above,
    chain,
    path_at,
    paths,
    reaching,
    results,
    settled,
    stop_of,
    summing,
    tools,
    total,
    tree,
)
from tests.support.caller import Caller, read
from tests.support.service import soon

LIMIT = Decimal("0.003")


@pytest.mark.parametrize("parallel", [1, 3])
async def test_cost_limit_of_the_turn_holds_for_the_tree(definer: Definer, caller: Caller, parallel: int) -> None:
    """Side by side, too: a call waits for what another one has reserved and does not use."""
    await tree(definer)
    limits = {"max_cost_usd": "0.002"}
    task = asks("checker", "@sandbox plain tokens=150")
    turn = await caller.converse(
        asks("researcher", task, calls=3, parallel=parallel), agent="coordinator", limits=limits
    )

    service = caller.service
    assert Decimal(turn.finished.turn_totals.cost_usd) == service.invoiced("talk") <= Decimal("0.002")
    assert len({each.number for each in service.entries("talk")}) == len(service.entries("talk"))
    assert [each for each in service.entries("talk") if each.agent == "checker"][parallel - 1 :]
    assert_never_above(Decimal("0.002"), service.entries("talk"))


async def test_hard_budget_holds_for_the_tree(restricted: Any, define: Any) -> None:
    """The model sees that a sub-agent has nothing left; the turn ends at the budget, and no cent above it."""
    limit = Decimal("0.002")
    caller: Caller = await restricted(budgets=(Budget(window=BudgetWindow.DAY, limit=limit, hard=True),))
    definer: Definer = define(caller)
    await tree(definer)
    await definer.apply("researcher", system_prompt="Read. " * 1000, tools=tools("checker"))  # the dearest calls
    task = asks("checker", "@sandbox plain tokens=150")
    turn = await caller.converse(asks("researcher", task, calls=9, parallel=2), agent="coordinator")

    entries = caller.service.entries("talk")
    assert stop_of(turn) == "STOP_REASON_BUDGET"
    assert total(entries) == caller.service.invoiced("talk") <= limit
    assert {each.agent for each in entries} == {"coordinator", "researcher", "checker"}
    shown = [output for path in {"", *paths(turn, "tool_call_finished")} for _, output in results(turn, path)]
    assert any("budget" in each for each in shown), shown


async def test_model_calls_of_the_turn_are_those_of_all_agents(definer: Definer, caller: Caller) -> None:
    """The fourth call is the checker's; the researcher gets no call to answer, and neither does the coordinator."""
    await tree(definer)
    deepest = "@sandbox tool-loop calls=2 tool=calculator"
    turn = await caller.converse(
        asks("researcher", asks("checker", deepest)), agent="coordinator", limits={"max_model_calls": 4}
    )

    assert stop_of(turn) == "STOP_REASON_MAX_MODEL_CALLS"
    agents = [each.agent for each in caller.service.entries("talk")]
    assert agents == ["coordinator", "researcher", "checker", "checker"]
    assert results(turn) == [(False, "The agent researcher gave no answer: The turn has no model calls left.")]
    assert [each.role for each in await caller.messages()][-1] == session_pb2.ROLE_ASSISTANT


async def test_output_tokens_of_the_turn_are_those_of_all_agents(definer: Definer, caller: Caller) -> None:
    """Two researchers side by side share what is left: one waits for the other."""
    await tree(definer)
    turn = await caller.converse(
        asks("researcher", "@sandbox plain tokens=30", parallel=2),
        agent="coordinator",
        limits={"max_output_tokens": 120},
    )

    entries = caller.service.entries("talk")
    outputs = [each.usage.output_tokens or 0 for each in entries if each.usage is not None]
    assert sum(outputs) <= 120
    assert [each.agent for each in entries][:3] == ["coordinator", "researcher", "researcher"]
    assert [succeeded for succeeded, _ in results(turn)] == [True, True]


async def test_limits_of_a_sub_agent_hold_for_each_of_its_calls(definer: Definer, caller: Caller) -> None:
    """With the agents that it calls; the turn goes on."""
    await definer.apply("checker", limits={"max_cost_usd": "0.00000001"})
    await definer.apply("researcher", tools=tools("checker"), limits={"max_model_calls": 1})
    await definer.apply("coordinator", tools=tools("researcher", "checker"))
    turn = await caller.converse(asks("checker", "@sandbox plain"), agent="coordinator")

    ((succeeded, output),) = results(turn)
    assert not succeeded
    assert "max_cost_usd" in output
    assert stop_of(turn) == "STOP_REASON_END_TURN"
    turn = await caller.converse(asks("researcher", asks("checker", "@sandbox plain")), agent="coordinator")
    ((_, output),) = results(turn)
    assert "the limit of model calls was reached" in output
    assert [each.agent for each in caller.service.entries("talk")] == ["coordinator"] * 2 + [
        "coordinator",
        "researcher",
        "coordinator",
    ]


@pytest.mark.parametrize("depth", DEPTHS)
async def test_cost_limit_of_the_turn_holds_at_each_depth(definer: Definer, caller: Caller, depth: int) -> None:
    """The agent there spends what is left, its summaries included: its caller sees why it has no answer."""
    await chain(definer, dearest=CHAIN[depth], history=SUMMARY)
    limits = {"max_cost_usd": str(LIMIT)}
    turn = await caller.converse(reaching(depth, summing()), agent="coordinator", limits=limits)

    entries = caller.service.entries("talk")
    assert Decimal(turn.finished.turn_totals.cost_usd) == total(entries) == caller.service.invoiced("talk") <= LIMIT
    assert_never_above(LIMIT, entries)
    answers = CallPurpose.SUB_AGENT if depth else CallPurpose.AGENT
    assert {each.purpose for each in entries if each.agent == CHAIN[depth]} == {answers, CallPurpose.SUMMARY}
    assert depth or stop_of(turn) == "STOP_REASON_BUDGET"
    if depth:
        ((succeeded, output),) = results(turn, path_at(depth - 1))
        assert not succeeded
        assert "max_cost_usd does not cover the next model call" in output


@pytest.mark.parametrize("depth", DEPTHS)
async def test_hard_budget_holds_at_each_depth(restricted: Any, define: Any, depth: int) -> None:
    """As the turn's own limit does."""
    caller: Caller = await restricted(budgets=(Budget(window=BudgetWindow.DAY, limit=LIMIT, hard=True),))
    await chain(define(caller), dearest=CHAIN[depth], history=SUMMARY)
    turn = await caller.converse(reaching(depth, summing()), agent="coordinator")

    entries = caller.service.entries("talk")
    assert Decimal(turn.finished.turn_totals.cost_usd) == total(entries) == caller.service.invoiced("talk") <= LIMIT
    assert_never_above(LIMIT, entries)
    assert CallPurpose.SUMMARY in {each.purpose for each in entries if each.agent == CHAIN[depth]}
    assert depth or stop_of(turn) == "STOP_REASON_BUDGET"
    if depth:
        ((succeeded, output),) = results(turn, path_at(depth - 1))
        assert not succeeded
        assert "The day budget does not cover the next model call" in output


async def test_hard_budget_holds_for_two_trees_at_once(restricted: Any, define: Any) -> None:
    """In two sessions of the tenant, whose agents spend side by side."""
    caller: Caller = await restricted(budgets=(Budget(window=BudgetWindow.DAY, limit=LIMIT, hard=True),))
    await chain(define(caller), dearest="checker", history=SUMMARY, parameters={"max_output_tokens": 500})
    names = ("one", "two")
    await asyncio.gather(
        *(caller.converse(reaching(2, summing()), agent="coordinator", session_id=name) for name in names)
    )

    entries = [each for name in names for each in caller.service.entries(name)]
    assert {each.session_id for each in entries if each.agent == "checker"} == {"one", "two"}
    assert total(entries) == sum(caller.service.invoiced(name) for name in names) <= LIMIT


async def test_cost_limit_of_a_sub_agent_covers_those_below(definer: Definer, caller: Caller) -> None:
    """What the checker spends counts for the researcher's own limit, which is lower than that of the turn."""
    limit = Decimal("0.002")
    await chain(definer, dearest="checker")
    offered = [{"builtin": "calculator"}, *tools("checker")]
    await definer.apply("researcher", tools=offered, limits={"max_cost_usd": str(limit)})
    turn = await caller.converse(reaching(2, summing(calls=20)), agent="coordinator", limits={"max_cost_usd": "1"})

    below = [each for each in caller.service.entries("talk") if each.agent_path]
    assert {each.agent for each in below} == {"researcher", "checker"}
    assert total(below) <= limit
    assert_never_above(limit, below)
    ((succeeded, output),) = results(turn, path_at(1))
    assert not succeeded
    assert "max_cost_usd does not cover the next model call" in output


async def test_turn_calls_agents_fifty_times_at_most(definer: Definer, caller: Caller) -> None:
    """All of its agents together; the next turn begins anew."""
    for name, below in (("gone", ()), ("researcher", ("gone",)), ("coordinator", ("researcher",))):
        await definer.apply(name, tools=tools(*below))
    await definer.call("DeleteAgent", agent="gone")
    many = asks("researcher", asks("gone", "Hi.", parallel=26), parallel=2)
    turn = await caller.converse(many, agent="coordinator")

    outputs = [output for path in ("researcher#1", "researcher#2") for _, output in results(turn, path)]
    limit = "The turn has called agents 50 times, which is the limit."
    assert sorted(outputs) == ["The agent gone failed: There is no agent gone."] * 48 + [limit] * 4
    assert stop_of(turn) == "STOP_REASON_END_TURN"
    turn = await caller.converse(asks("researcher", "Hi."), agent="coordinator")
    assert [succeeded for succeeded, _ in results(turn)] == [True]


@pytest.mark.parametrize("expired", [1, 2])
async def test_sub_agent_has_fifteen_minutes_for_a_call(
    serve: Start, connect: Any, define: Any, monkeypatch: pytest.MonkeyPatch, expired: int
) -> None:
    """Then it ends, with the agents that it has called: its caller sees that, and what they have used is charged."""
    clocks: list[asyncio.Timeout] = []

    def timeout(seconds: float) -> asyncio.Timeout:
        assert seconds == 900.0
        clocks.append(asyncio.timeout(seconds))
        return clocks[-1]

    monkeypatch.setattr(sub_agents, "asyncio", SimpleNamespace(**{**vars(asyncio), "timeout": timeout}))
    caller: Caller = connect(await serve())
    await chain(define(caller))
    stream = caller.start(reaching(2, HOLD), agent="coordinator")
    service = caller.service
    await soon(lambda: [each for each in service.entries("talk") if each.agent == "checker" and each.generation_id])
    clocks[expired - 1].reschedule(asyncio.get_running_loop().time())  # as if the time of this call were over
    turn = await read(stream)

    ((succeeded, output),) = results(turn, path_at(expired - 1))
    assert (succeeded, output) == (False, "The agent did not answer within 900 s.")
    assert stop_of(turn) == "STOP_REASON_END_TURN"
    entries = await settled(service, 4)
    assert [each.agent for each in entries] == ["coordinator", "researcher", "checker", *CHAIN[:expired][::-1]]
    assert entries[2].duration is not None
    assert entries[2].start_time + entries[2].duration <= entries[3].start_time  # it reserves nothing for the rest
    assert total(entries) == service.invoiced("talk")
