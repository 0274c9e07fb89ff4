"""Actions inside sub-agents: they go on where they waited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from godoty_service.sessions.history_repair import UNKNOWN_OUTCOME
from tests.conftest import Start
from tests.e2e.actions.conftest import ACTION_REQUIRED, ALWAYS, APPROVE, END_TURN, Asker, Mcp, asked, not_busy, outputs
from tests.e2e.agents.trees import asks, summing, tools
from tests.e2e.mcp.conftest import PREFIX
from tests.e2e.turns.streams import CONTINUE
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import Service, soon

RESEARCHER, CHECKER = "researcher#1", "researcher#1/checker#2"


async def tree(asker: Asker, *tool: Any) -> None:
    """Apply three agents that call one another; the deepest has a tool that asks."""
    await asker.agent(*(tool or ({"builtin": "calculator", **ALWAYS},)), name="checker")
    await asker.agent(*tools("checker"), name="researcher")
    await asker.agent(*tools("researcher"), name="support")


async def test_approval_two_levels_down_goes_on_there(asker: Asker) -> None:
    """The answering turn makes the calls that are left: of the deepest agent, of the one above, and of its own."""
    await tree(asker)
    first = await asker.ask(asks("researcher", asks("checker", summing(calls=2))))

    assert first.finished.stop_reason == ACTION_REQUIRED
    (action,) = asked(first)
    assert action.agent_path == CHECKER
    assert [each.agent_path for each in first.responses if each.HasField("action_required")] == [CHECKER]
    assert first.finished.turn_totals.model_calls == 3
    second = await asker.answer((action, APPROVE))
    assert second.finished.stop_reason == END_TURN
    assert outputs(second, CHECKER) == {"calculator": "42"}
    assert [each.agent_path for each in second.calls] == [CHECKER, RESEARCHER, ""]
    entries = asker.service.entries("talk")
    assert [each.agent_path for each in entries] == [None, RESEARCHER, CHECKER, CHECKER, RESEARCHER, None]
    assert_valid_history(await asker.caller.messages())
    for request in asker.requests():
        assert_valid_request(request["messages"])


async def test_approval_of_a_sub_agent_goes_on_at_another_server(
    serve: Start, asker: Asker, become: Callable[[Service], Asker]
) -> None:
    """Its conversation is stored."""
    service = asker.service
    await tree(asker)
    (action,) = asked(await asker.ask(asks("researcher", asks("checker", summing(calls=2)))))
    other = become(service.at((await serve(database=service.database.name)).target))
    turn = await other.answer((action, APPROVE))

    assert turn.finished.stop_reason == END_TURN
    assert outputs(turn, CHECKER) == {"calculator": "42"}
    assert len(other.service.entries("talk")) == 6


async def test_agents_that_wait_side_by_side_are_answered_one_by_one(asker: Asker) -> None:
    """Each has its own action; what has finished does not run again."""
    await asker.agent({"builtin": "calculator", **ALWAYS}, name="checker")
    await asker.agent(*tools("checker"), name="support")
    first = await asker.ask(asks("checker", summing(calls=2), parallel=2))
    one, other = asked(first)
    assert {one.agent_path, other.agent_path} == {"checker#1", "checker#2"}
    second = await asker.answer((one, APPROVE))

    assert second.finished.stop_reason == ACTION_REQUIRED
    assert [each.action_id for each in asked(second)] == [other.action_id]
    assert [each.agent_path for each in second.calls] == [one.agent_path]
    third = await asker.answer((other, {"deny": {"why": "no"}}))
    assert third.finished.stop_reason == END_TURN
    assert [each.agent_path for each in third.calls] == [other.agent_path, ""]


async def test_sub_agent_that_asks_again_is_answered_again(asker: Asker) -> None:
    """Its second step waits as the first one did."""
    await tree(asker)
    (first,) = asked(await asker.ask(asks("researcher", asks("checker", summing(calls=3)))))
    again = await asker.answer((first, APPROVE))
    (second,) = asked(again)

    assert again.finished.stop_reason == ACTION_REQUIRED
    assert second.action_id != first.action_id
    turn = await asker.answer((second, APPROVE))
    assert turn.finished.stop_reason == END_TURN
    assert_valid_history(await asker.caller.messages())


async def test_call_of_an_agent_may_need_approval_itself(asker: Asker) -> None:
    """The agent runs once it is approved."""
    await asker.agent("calculator", name="checker")
    (entry,) = tools("checker")
    await asker.agent({**entry, **ALWAYS}, name="support")
    first = await asker.ask(asks("checker", summing(calls=2)))
    (action,) = asked(first)
    assert action.name == "agent_checker"
    assert first.finished.turn_totals.model_calls == 1
    turn = await asker.answer((action, APPROVE))
    assert turn.finished.stop_reason == END_TURN
    assert outputs(turn, "checker#1") == {"calculator": "42"}


async def test_new_message_closes_what_a_sub_agent_asked(asker: Asker) -> None:
    """The call that runs it was not carried out."""
    await tree(asker)
    await asker.ask(asks("researcher", asks("checker", summing(calls=2))))
    turn = await asker.ask("never mind")

    assert turn.finished.stop_reason == END_TURN
    assert "not carried out" in str(asker.requests()[-1]["messages"])
    assert_valid_history(await asker.caller.messages())


async def test_sub_agent_that_has_gone_on_does_not_go_on_again(servers: Any, mcp: Mcp) -> None:
    """Its server dies in a tool that it called after the answer: the outcome is unknown, and nothing is done twice."""
    asker, survivor = servers
    await asker.agent(
        {"builtin": "calculator", **ALWAYS}, {"mcp": {"mcp_server": PREFIX, "allow": ["hang"]}}, name="checker"
    )
    await asker.agent(*tools("checker"), name="support")
    task = '@sandbox tool-loop calls=3 input=\'{"expression": "6 * 7", "hold": "step"}\''
    (action,) = asked(await asker.ask(asks("checker", task)))
    stream = asker.answering((action, APPROVE), on_disconnect=CONTINUE)
    await soon(lambda: mcp.calls("hang"))
    other = await survivor()
    assert stream
    mcp.release("step")
    turn = await not_busy(lambda: other.answer((action, APPROVE)))

    assert turn.finished.stop_reason == END_TURN
    assert outputs(turn) == {"agent_checker": UNKNOWN_OUTCOME}
    assert mcp.calls("hang") == 1
    assert_valid_history(await other.caller.messages())
    assert_valid_request(other.requests()[-1]["messages"])
