"""The history that a sub-agent sees of its own loop: a window of it, or a summary, which is metered to the turn."""

from decimal import Decimal
from typing import Any

from godoty.v1 import metering_pb2

from godoty_service.ledger.entries import CallPurpose
from tests.e2e.agents.conftest import Definer, prompt_of
from tests.e2e.agents.trees import (
    CHAIN,
    SUMMARY,
    asks,
    chain,
    path_at,
    paths,
    results,
    stop_of,
    summarizing,
    summing,
    tools,
    total,
)
from tests.support.caller import Caller

OWN, SUB, SUMMARIZED = CallPurpose.AGENT, CallPurpose.SUB_AGENT, CallPurpose.SUMMARY


async def test_tree_with_summaries_equals_the_invoice(definer: Definer, caller: Caller) -> None:
    """Four agents, each of which calls the next one and summarizes its own history, with its task left as it is."""
    await chain(definer, history=SUMMARY)
    text = summarizing()
    for name in reversed(CHAIN[1:]):
        text = summarizing(name, text)
    turn = await caller.converse(text, agent="coordinator")

    entries = caller.service.entries("talk")
    purposes = {name: SUB if depth else OWN for depth, name in enumerate(CHAIN)}
    asked = [(name, purpose) for name, purpose in purposes.items() for _ in range(2)]
    answered = [call for name in reversed(CHAIN) for call in ((name, SUMMARIZED), (name, purposes[name]))]
    assert [(each.agent, each.purpose) for each in entries] == asked + answered
    assert {(each.agent, each.agent_path or "") for each in entries} == {
        (name, path_at(depth)) for depth, name in enumerate(CHAIN)
    }
    spent = turn.finished.turn_totals
    assert Decimal(spent.cost_usd) == total(entries) == caller.service.invoiced("talk")
    assert spent.model_calls == len(entries) == 16
    assert stop_of(turn) == "STOP_REASON_END_TURN"

    assert paths(turn, "model_call_finished") == [each.agent_path or "" for each in entries]
    shown = [metering_pb2.CallPurpose.Name(each.purpose).removeprefix("CALL_PURPOSE_").lower() for each in turn.calls]
    assert shown == [str(each.purpose) for each in entries]
    metrics = await caller.metrics()
    assert metrics.totals.cost_usd == spent.cost_usd
    assert {each.agent: each.totals.model_calls for each in metrics.by_agent} == dict.fromkeys(CHAIN, 4)
    for depth, name in enumerate(CHAIN):
        first, *_, last = requests_of(caller, name)
        assert last["messages"][1] == first["messages"][1]  # the task, or the user's message
        assert "[Summarized: " in str(last["messages"][2])
        assert [succeeded for succeeded, _ in results(turn, path_at(depth))] == [True, True]


def requests_of(caller: Caller, name: str) -> list[dict[str, Any]]:
    """Return the requests of an agent of the chain, without those of its summaries."""
    requests = caller.service.requests("talk")
    return [each for each in requests if prompt_of(each).startswith(f"You are the {name}.")]


async def test_window_of_a_sub_agent_slides_over_its_own_loop(definer: Definer, caller: Caller) -> None:
    """Its model sees the task, and beside it the newest messages: pairs of a tool call and its result."""
    history = {"messages": 4, "mode": "HISTORY_MODE_SLIDING"}
    await definer.apply(
        "clerk",
        system_prompt="You are the clerk.",
        tools=[{"builtin": "calculator"}],
        history=history,
        limits={"max_model_calls": 5},
    )
    await definer.apply("coordinator", tools=tools("clerk"))
    turn = await caller.converse(asks("clerk", summing()), agent="coordinator")

    windows = [each["messages"][1:] for each in requests_of(caller, "clerk")]
    assert [len(each) for each in windows] == [1, 3, 5, 5, 5]
    assert all(each[0] == windows[0][0] for each in windows)
    called = [call["id"] for window in windows[1:] for call in window[-2]["tool_calls"]]
    assert len(set(called)) == 4  # each answer's own
    assert [call["id"] for message in windows[-1] for call in message.get("tool_calls", ())] == called[-2:]
    assert results(turn) == [(True, "[The answer ended here: the limit of model calls was reached.]")]


async def test_summary_that_fails_does_not_end_its_agent(definer: Definer, caller: Caller) -> None:
    """Its calls are in the ledger; the agent goes on with its whole history, and tries again before its next call."""
    offered = [{"builtin": "calculator"}]
    await definer.apply("clerk", tools=offered, history=SUMMARY, limits={"max_model_calls": 4})
    await definer.apply("coordinator", tools=tools("clerk"))
    refused = "@sandbox error-before status=400 x"  # is in what the summary is to be made of
    turn = await caller.converse(asks("clerk", summing(refused)), agent="coordinator")

    entries = caller.service.entries("talk")
    assert [each.purpose for each in entries] == [OWN, SUB, SUB, SUMMARIZED, SUB, SUMMARIZED, SUB, OWN]
    assert [each.error for each in entries if each.purpose is SUMMARIZED] == ["provider_rejected_request"] * 2
    assert [succeeded for succeeded, _ in results(turn)] == [True]
    assert Decimal(turn.finished.turn_totals.cost_usd) == total(entries) == caller.service.invoiced("talk")


async def test_summary_of_a_sub_agent_takes_none_of_its_limits(definer: Definer, caller: Caller) -> None:
    """Its calls count as the agent's own, and its summary has its own limit of tokens."""
    limits = {"max_model_calls": 3, "max_output_tokens": 200}
    await definer.apply("clerk", tools=[{"builtin": "calculator"}], history=SUMMARY, limits=limits)
    await definer.apply("coordinator", tools=tools("clerk"))
    turn = await caller.converse(asks("clerk", summing()), agent="coordinator")

    clerks = [each for each in caller.service.entries("talk") if each.agent == "clerk"]
    assert [each.purpose for each in clerks] == [SUB, SUB, SUMMARIZED, SUB]
    (request,) = [each for each in caller.service.requests("talk") if "tools" not in each]
    assert request["max_tokens"] == 1024  # the server's setting
    assert results(turn) == [(True, "[The answer ended here: the limit of model calls was reached.]")]
