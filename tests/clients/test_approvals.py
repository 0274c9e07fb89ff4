"""Approvals by both kinds of clients, against the real service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from godoty import (
    Action,
    ActionApproval,
    ActionDecided,
    ActionDecider,
    ActionKind,
    ActionResult,
    AgentDefinition,
    AgentTool,
    Approve,
    ClientTool,
    Deny,
    ReviewerOnly,
    StopReason,
    ToolApproval,
)

from godoty_service.tenancy.auth import Scope
from tests.clients.conftest import GRACE
from tests.clients.test_client_tools import outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients.kinds import Driver
    from tests.support.service import Service

CALCULATE = '@sandbox tool-loop calls=2 tool=calculator input=\'{"expression": "6 * 7"}\''


@pytest.fixture
async def agent(service: Service, connect_to: Callable[..., Driver], issue: Callable[..., str]) -> Callable[..., Any]:
    """Applies the agent "support", whose calculator needs approval."""

    async def apply(decider: ActionDecider = ActionDecider.CALLER, *more: AgentTool) -> None:
        editor = connect_to(service.target, issue(service, scopes=frozenset({Scope.AGENTS})))
        approval = ToolApproval(decider=decider, why="It is costly.")
        tools = (AgentTool(builtin="calculator", approval=approval), *more)
        await editor.do(editor.client.agents.apply, AgentDefinition(name="support", system_prompt="Hi.", tools=tools))

    return apply


@pytest.mark.parametrize(
    ("decision", "output"),
    [
        (True, "42"),
        (Approve(), "42"),
        (Approve(input={"expression": "6 * 8"}), "48"),
        (Approve(input='{"expression": "6 * 9"}'), "54"),
        (False, "denied"),
        (Deny("not before\nMonday"), "not before Monday"),
    ],
    ids=str,
)
async def test_callback_decides_and_the_turn_goes_on(
    driver: Driver, agent: Callable[..., Any], session_id: str, decision: Any, output: str
) -> None:
    """It gets the tool, its input, the reason and who may decide; the model sees the decision."""
    await agent()
    asked: list[Action] = []

    def approve(action: Action) -> Any:
        asked.append(action)
        return decision

    turn = driver.client.converse(CALCULATE, session=session_id, agent="support", approve=approve)
    events = await driver.all(turn)

    (action,) = asked
    assert (action.name, action.input_json, action.reason) == (
        "calculator",
        '{"expression": "6 * 7"}',
        "It is costly.",
    )
    assert (action.kind, action.decider) == (ActionKind.APPROVAL, ActionDecider.CALLER)
    assert turn.stop_reason is StopReason.END_TURN
    assert len(turn.turn_ids) == 2
    assert output in outputs(events)["calculator"][1].lower() or output in outputs(events)["calculator"][1]


async def test_asynchronous_callback_decides(driver: Driver, agent: Callable[..., Any], session_id: str) -> None:
    """Also in a blocking program."""
    await agent()

    async def approve(action: Action) -> bool:
        return True

    turn = await driver.turn(CALCULATE, session=session_id, agent="support", approve=approve)

    assert turn.stop_reason is StopReason.END_TURN


async def test_without_a_callback_the_caller_answers(
    driver: Driver, agent: Callable[..., Any], service: Service, session_id: str
) -> None:
    """By the turn, or later by the session, after another program has listed what is open."""
    await agent()
    asked = await driver.turn(CALCULATE.replace("calls=2", "calls=3"), session=session_id, agent="support")
    (action,) = asked.actions
    again = await driver.do(asked.answer({action.action_id: Approve()}).wait)
    (listed,) = await driver.all(driver.client.actions.list(session_id=session_id, state="open"))
    results = [ActionResult(action_id=listed.action_id, approve=ActionApproval())]
    done = await driver.turn("", session=session_id, action_results=results)

    assert asked.stop_reason is again.stop_reason is StopReason.ACTION_REQUIRED
    assert (listed.action_id, listed.input_json) == (again.actions[0].action_id, again.actions[0].input_json)
    assert (done.stop_reason, done.actions) == (StopReason.END_TURN, ())
    assert asked.cost + again.cost + done.cost == service.invoiced(session_id)


async def test_answer_that_is_no_decision_is_refused(
    driver: Driver, agent: Callable[..., Any], session_id: str
) -> None:
    """Of a callback and of a caller; the action stays open."""
    await agent()
    turn = driver.client.converse(CALCULATE, session=session_id, agent="support", approve=lambda _: "yes")
    with pytest.raises(TypeError, match="'yes' is no decision"):
        await driver.do(turn.wait)
    (action,) = turn.actions
    with pytest.raises(TypeError, match="'yes' is no decision"):
        turn.answer({action.action_id: "yes"})
    done = await driver.do(turn.answer({action.action_id: True}).wait)

    assert done.stop_reason is StopReason.END_TURN


async def test_error_of_a_callback_is_the_callers(driver: Driver, agent: Callable[..., Any], session_id: str) -> None:
    """The action stays open, and reading on asks again."""
    await agent()
    asked: list[Action] = []

    def approve(action: Action) -> bool:
        asked.append(action)
        if len(asked) == 1:
            raise LookupError("there is no window")
        return True

    turn = driver.client.converse(CALCULATE, session=session_id, agent="support", approve=approve)
    with pytest.raises(LookupError):
        await driver.all(turn)
    rest = await driver.all(turn)

    assert outputs(rest)["calculator"][1] == "42"
    assert turn.stop_reason is StopReason.END_TURN


async def test_action_that_is_left_open_is_visible(driver: Driver, agent: Callable[..., Any], session_id: str) -> None:
    """A callback that returns None; what else the step needs is answered, and no model is called until all is there."""
    tool = AgentTool(client=ClientTool(tool_name="look_up", description="Finds an order."))
    await agent(ActionDecider.CALLER, tool)
    asked: list[str] = []

    @driver.registry.tool(declare=False)
    def look_up() -> str:
        return "two pens"

    def approve(action: Action) -> None:
        asked.append(action.name)

    text = "@sandbox tool-loop calls=2 parallel=2"
    turn = driver.client.converse(text, session=session_id, agent="support", approve=approve)
    events = await driver.all(turn)

    assert asked == ["calculator"]
    assert outputs(events).keys() == {"look_up"}
    assert (turn.stop_reason, [each.name for each in turn.actions]) == (StopReason.ACTION_REQUIRED, ["calculator"])
    assert turn.actions[0].input_json
    assert (len(turn.turn_ids), turn.totals.model_calls) == (2, 1)
    done = await driver.do(turn.answer({turn.actions[0].action_id: Deny("no")}).wait)
    assert done.stop_reason is StopReason.END_TURN


async def test_reviewers_action_is_left_open_for_others(
    driver: Driver, agent: Callable[..., Any], session_id: str
) -> None:
    """The answer of a key that may not review is refused once, and what else was answered goes on."""
    tool = AgentTool(client=ClientTool(tool_name="look_up", description="Finds an order."))
    await agent(ActionDecider.REVIEWER, tool)
    asked: list[ActionDecider] = []

    @driver.registry.tool(declare=False)
    def look_up() -> str:
        return "two pens"

    def approve(action: Action) -> bool:
        asked.append(action.decider)
        return True

    text = "@sandbox tool-loop calls=2 parallel=2"
    turn = driver.client.converse(text, session=session_id, agent="support", approve=approve)
    events = await driver.all(turn)

    assert asked == [ActionDecider.REVIEWER]
    assert outputs(events).keys() == {"look_up"}
    assert (turn.stop_reason, [each.name for each in turn.actions]) == (StopReason.ACTION_REQUIRED, ["calculator"])
    with pytest.raises(ReviewerOnly):
        await driver.do(turn.answer({turn.actions[0].action_id: True}).wait)


async def test_reviewers_action_alone_ends_the_turn(driver: Driver, agent: Callable[..., Any], session_id: str) -> None:
    """Without an error: it is in `actions`."""
    await agent(ActionDecider.REVIEWER)
    turn = await driver.turn(CALCULATE, session=session_id, agent="support", approve=lambda _: True)

    assert (turn.stop_reason, len(turn.actions), len(turn.turn_ids)) == (StopReason.ACTION_REQUIRED, 1, 1)
    assert turn.cost is not None


async def test_reviewer_approves_in_the_conversation(
    service: Service,
    connect_to: Callable[..., Driver],
    agent: Callable[..., Any],
    issue: Callable[..., str],
    session_id: str,
) -> None:
    """With a key of both scopes."""
    await agent(ActionDecider.REVIEWER)
    key = issue(service, scopes=frozenset({Scope.CONVERSE, Scope.APPROVE}))
    driver = connect_to(service.target, key, disconnect_grace=GRACE)
    turn = await driver.turn(CALCULATE, session=session_id, agent="support", approve=lambda _: True)

    assert (turn.stop_reason, turn.actions) == (StopReason.END_TURN, ())


async def test_back_office_decides(
    driver: Driver,
    service: Service,
    connect_to: Callable[..., Driver],
    agent: Callable[..., Any],
    issue: Callable[..., str],
) -> None:
    """Without the conversation, which goes on by itself; a second decision is refused."""
    await agent(ActionDecider.REVIEWER)
    asked = await driver.turn(CALCULATE, session="talk", agent="support")
    office = connect_to(service.target, issue(service, scopes=frozenset({Scope.APPROVE})))
    (action,) = await office.all(office.client.actions.list(state="open"))
    decided = await office.do(office.client.actions.decide, action.action_id, Approve(), user="eve")
    with pytest.raises(ActionDecided):
        await office.do(office.client.actions.decide, action.action_id, Deny("no"), user="eve")

    assert action.action_id == asked.actions[0].action_id
    assert decided.decision is not None
    assert (decided.decision.user, decided.decision.result.approve) == ("eve", ActionApproval())
