"""Turns of agents that call other agents: one tree, on one meter, under the limits of the turn."""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as service_pb
from godoty.v1 import metering_pb2, session_pb2, turn_pb2

from godoty_service.agents.definitions import AgentDefinition, AgentReference, SubAgent
from godoty_service.bootstrap import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.entries import CallPurpose, ModelCall
from godoty_service.ledger.states import CallState
from tests.e2e.agents.conftest import INVALID, NOT_FOUND, Definer
from tests.e2e.turns.streams import cancel
from tests.support.caller import Caller, Turn, failure_of, read
from tests.support.service import Service, soon

CHEAP, OTHER = "openai/gpt-4o-mini", "openai/gpt-4o"


def asks(agent: str, task: str, *, calls: int = 2, parallel: int = 1) -> str:
    """Return a text by which the model asks a sub-agent, once in each of its answers but the last."""
    arguments = json.dumps({"task": task}).replace("@", "\\u0040").replace("'", "\\u0027")
    return f"@sandbox tool-loop calls={calls} parallel={parallel} tool=agent_{agent} input='{arguments}'"


def tools(*agents: str) -> list[dict[str, Any]]:
    """Return the tools by which an agent calls others."""
    return [{"agent": {"agent": each, "description": f"Knows what {each} knows."}} for each in agents]


async def tree(definer: Definer, *, model: str = CHEAP, **top: Any) -> None:
    """Apply three agents, each of which calls the next one."""
    await definer.apply("checker", system_prompt="You check.", tools=[{"builtin": "calculator"}])
    await definer.apply("researcher", system_prompt="You research.", model=model, tools=tools("checker"))
    await definer.apply("coordinator", system_prompt="You coordinate.", tools=tools("researcher"), **top)


def paths(turn: Turn, kind: str) -> list[str]:
    """Return the paths of a turn's events of a kind."""
    return [each.agent_path for each in turn.responses if each.HasField(kind)]


def results(turn: Turn, path: str = "") -> list[tuple[bool, str]]:
    """Return whether each tool call of an agent succeeded, and its output."""
    found = [each for each in turn.responses if each.HasField("tool_call_finished") and each.agent_path == path]
    done = session_pb2.TOOL_CALL_STATUS_SUCCESS
    return [(each.tool_call_finished.status == done, each.tool_call_finished.output) for each in found]


def total(entries: Sequence[ModelCall]) -> Decimal:
    """Return the sum of what entries cost."""
    return sum((each.cost or Decimal(0) for each in entries), Decimal(0))


async def test_tree_of_three_levels_is_one_turn(definer: Definer, caller: Caller) -> None:
    """Entries, events, metrics and the invoice say who did what; nothing of a sub-agent is in the answer."""
    await tree(definer, model=OTHER)
    deepest = "@sandbox tool-loop calls=2 tool=calculator"
    turn = await caller.converse(asks("researcher", asks("checker", deepest)), agent="coordinator")

    entries = caller.service.entries("talk")
    researcher, checker = "researcher#1", "researcher#1/checker#2"
    own, sub = CallPurpose.AGENT, CallPurpose.SUB_AGENT
    assert [(each.agent, each.agent_version, each.purpose, each.agent_path) for each in entries] == [
        ("coordinator", 1, own, None),
        ("researcher", 1, sub, researcher),
        ("checker", 1, sub, checker),
        ("checker", 1, sub, checker),
        ("researcher", 1, sub, researcher),
        ("coordinator", 1, own, None),
    ]
    assert [each.number for each in entries] == [1, 2, 3, 4, 5, 6]
    assert [each.requested_model for each in entries] == [CHEAP, OTHER, CHEAP, CHEAP, OTHER, CHEAP]
    spent = turn.finished.turn_totals
    assert Decimal(spent.cost_usd) == total(entries) == caller.service.invoiced("talk")
    assert spent.model_calls == 6

    assert paths(turn, "model_call_finished") == ["", researcher, checker, checker, researcher, ""]
    assert [each.agent_path for each in turn.calls] == ["", researcher, checker, checker, researcher, ""]
    assert turn.calls[1].purpose == metering_pb2.CALL_PURPOSE_SUB_AGENT
    assert paths(turn, "tool_call_started") == ["", researcher, checker]
    assert paths(turn, "tool_call_finished") == [checker, researcher, ""]
    assert set(paths(turn, "text_delta")) == {""}
    started = [each.tool_call_started for each in turn.responses if each.HasField("tool_call_started")]
    assert [(each.name, each.sub_agent_path) for each in started] == [
        ("agent_researcher", researcher),
        ("agent_checker", checker),
        ("calculator", ""),
    ]
    ((succeeded, output),) = results(turn)
    assert succeeded
    assert output
    used = {each.name: each.calls for each in turn.finished.tools}
    assert used == {"calculator": 1, "agent_checker": 1, "agent_researcher": 1}

    metrics = await caller.metrics()
    assert {each.agent: each.totals.model_calls for each in metrics.by_agent} == {
        "coordinator": 2,
        "researcher": 2,
        "checker": 2,
    }
    assert metrics.totals.cost_usd == spent.cost_usd
    shown = (await caller.call("GetTurn", service_pb.GetTurnRequest(turn_id=turn.responses[0].turn_id))).turn
    assert shown.agent == "coordinator"


async def test_sub_agent_sees_its_prompt_and_task_alone(definer: Definer, caller: Caller) -> None:
    """Its history begins empty, also at its second call; it is offered its own tools."""
    await tree(definer)
    await caller.converse(asks("researcher", "Find it.", calls=3), agent="coordinator")

    requests = [each for each in caller.service.requests("talk") if "You research." in str(each["messages"][0])]
    assert [[each["role"] for each in request["messages"]] for request in requests] == [["system", "user"]] * 2
    assert "Find it." in str(requests[1]["messages"][1]["content"])
    assert [each["function"]["name"] for each in requests[0]["tools"]] == ["agent_checker"]


async def test_two_calls_of_one_sub_agent_run_side_by_side(definer: Definer, caller: Caller) -> None:
    """Both wait at once; the events of each have its own path, and every entry has its own number."""
    await tree(definer)
    task = "@sandbox plain tokens=4 hold_after=2 hold=both"
    stream = caller.start(asks("researcher", task, parallel=2), agent="coordinator")
    await soon(lambda: [each for each in caller.service.entries("talk") if each.generation_id][2:])
    caller.service.backends.allow("both")
    turn = await read(stream)

    entries = caller.service.entries("talk")
    assert [each.agent_path for each in entries] == [None, "researcher#1", "researcher#2", None]
    assert [each.number for each in entries] == [1, 2, 3, 4]
    assert sorted(paths(turn, "model_call_finished")) == ["", "", "researcher#1", "researcher#2"]
    assert [succeeded for succeeded, _ in results(turn)] == [True, True]
    assert Decimal(turn.finished.turn_totals.cost_usd) == total(entries) == caller.service.invoiced("talk")


def stop_of(turn: Turn) -> str:
    """Return the name of the reason why a turn ended."""
    return turn_pb2.StopReason.Name(turn.finished.stop_reason)


async def settled(service: Service, calls: int) -> list[ModelCall]:
    """Wait until all calls of the session have their cost; return the entries."""

    def found() -> list[ModelCall]:
        entries = service.entries("talk")
        open_calls = [each for each in entries if each.state is CallState.PENDING]
        return [] if open_calls or len(entries) < calls else entries

    return await soon(found)


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
    for call in service.entries("talk"):  # what was spent or reserved before it, and what it may cost, are within it
        before = [each for each in service.entries("talk") if each.number < call.number]
        held = [
            each.cost if each.settle_time is not None and each.settle_time <= call.start_time else each.upper_bound
            for each in before
        ]
        assert sum((each or Decimal(0) for each in [*held, call.upper_bound]), Decimal(0)) <= Decimal("0.002")


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


@pytest.mark.parametrize(
    "fault", ["@sandbox error-before status=400", "@sandbox error-mid n=3 code=502", "@sandbox reset n=900"]
)
async def test_sub_agent_that_fails_is_an_error_that_the_model_sees(
    definer: Definer, caller: Caller, fault: str
) -> None:
    """Its calls are in the ledger; the turn goes on to its end."""
    await tree(definer)
    turn = await caller.converse(asks("researcher", fault), agent="coordinator")

    ((succeeded, output),) = results(turn)
    assert not succeeded
    assert output.startswith("The agent researcher failed: ")
    assert stop_of(turn) == "STOP_REASON_END_TURN"
    entries = await settled(caller.service, 3)
    assert {each.agent_path for each in entries} == {None, "researcher#1"}
    assert total(entries) == caller.service.invoiced("talk")


async def test_agent_that_is_gone_or_would_call_itself_is_an_error_at_the_turn(
    definer: Definer, caller: Caller
) -> None:
    """Definitions change after they were checked; the model sees why it got no answer."""
    await tree(definer)
    await definer.apply("other", tools=tools("checker"))
    await definer.call("DeleteAgent", agent="checker")
    turn = await caller.converse(asks("checker", "Check."), agent="other", session_id="gone")
    assert results(turn) == [(False, "The agent checker failed: There is no agent checker.")]

    service, back = caller.service, SubAgent(agent=AgentReference("coordinator"), description="All.")

    async def record(*_: object) -> None:
        """Record nothing."""

    async with open_components(service.backends.settings(service.database.name)) as components:
        circle = AgentDefinition(name="researcher", tools=(back,))  # as two definitions that are applied at once
        await components.conversations.agents.apply(service.tenant_id, circle, etag="", by="", record=record)
    turn = await caller.converse(asks("researcher", asks("coordinator", "You!")), agent="coordinator")
    text = "The agent coordinator would call itself: coordinator -> researcher -> coordinator."
    assert results(turn, "researcher#1") == [(False, text)]
    assert stop_of(turn) == "STOP_REASON_END_TURN"


async def test_definition_that_calls_itself_is_refused(definer: Definer) -> None:
    """Through others, too, and with any version."""
    failure = await failure_of(definer.apply("loop", tools=tools("loop")))
    assert failure.code == NOT_FOUND  # it is not there yet
    await definer.apply("loop")
    await definer.apply("middle", tools=tools("loop"))
    for named in ("loop", "loop@1", "middle", "middle@1"):
        failure = await failure_of(definer.apply("loop", tools=tools(named)))
        assert failure.code == INVALID
        assert list(failure.fields) == ["definition.tools[0].agent.agent"]
        assert "would call itself: loop -> " in failure.text


async def test_definition_that_is_too_deep_is_refused(definer: Definer) -> None:
    """Three agents below the turn's are possible, a fourth is not."""
    await definer.apply("a0")
    for number in range(1, 4):
        await definer.apply(f"a{number}", tools=tools(f"a{number - 1}"))
    failure = await failure_of(definer.apply("a4", tools=tools("a3")))
    assert failure.code == INVALID
    assert "at most 3 deep" in failure.text


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"agent": "No name", "description": "x"}, "agent"),
        ({"agent": "a" * 59, "description": "x"}, "agent"),
        ({"agent": "checker@x", "description": "x"}, "agent"),
        ({"agent": "checker"}, "description"),
        ({"agent": "checker", "description": "a\nb"}, "description"),
        ({"agent": "checker", "description": "x" * 1001}, "description"),
    ],
)
async def test_tool_that_can_be_no_agent_is_refused(definer: Definer, tool: dict[str, str], field: str) -> None:
    """The violation names the field."""
    failure = await failure_of(definer.apply(tools=[{"agent": tool}]))
    assert failure.code == INVALID
    assert [each.rpartition(".")[2] for each in failure.fields] == [field]


async def test_agent_is_there_once(definer: Definer) -> None:
    """Two versions of an agent would be two tools of one name."""
    await definer.apply("checker")
    failure = await failure_of(definer.apply(tools=tools("checker", "checker@1")))
    assert list(failure.fields) == ["definition.tools[1]"]


async def test_agent_of_another_tenant_is_not_found(
    definer: Definer, define: Callable[[Caller], Definer], connect: Callable[[Service], Caller]
) -> None:
    """Like an agent that no tenant has."""
    await define(connect(definer.service.another_tenant())).apply("theirs")
    failure = await failure_of(definer.apply(tools=tools("theirs")))
    assert (failure.code, failure.reason, failure.metadata) == (NOT_FOUND, "AGENT_NOT_FOUND", {"agent": "theirs"})


async def test_policy_holds_for_sub_agents(restricted: Any, define: Any) -> None:
    """As a tool it is allowed by `agent:NAME`; the agent itself must be allowed, too."""
    caller: Caller = await restricted(allowed_tools=("agent:re*",), allowed_agents=("coordinator",))
    definer: Definer = define(caller)
    for name in ("researcher", "sales"):
        await definer.apply(name)
    failure = await failure_of(definer.apply(tools=tools("sales")))
    assert (failure.code, failure.metadata["tool"]) == (grpc.StatusCode.PERMISSION_DENIED, "agent:sales")
    await definer.apply("coordinator", tools=tools("researcher"))

    turn = await caller.converse(asks("researcher", "Hi."), agent="coordinator")
    text = "The agent researcher failed: The tenant's policy does not allow the agent researcher."
    assert results(turn) == [(False, text)]


async def test_turn_takes_one_version_of_a_sub_agent(definer: Definer, caller: Caller) -> None:
    """A version that is applied between two calls of it is for the next turn; a pinned one for no turn."""
    await definer.apply("researcher", system_prompt="First.")
    await definer.apply("coordinator", tools=tools("researcher"))
    await definer.apply("pinned", tools=tools("researcher@1"))
    task = "@sandbox plain tokens=3 hold_after=1 hold=version"
    stream = caller.start(asks("researcher", task, calls=3), agent="coordinator")
    await soon(lambda: [each for each in caller.service.entries("talk") if each.generation_id][1:])
    await definer.apply("researcher", system_prompt="Second.")
    caller.service.backends.allow("version")
    await read(stream)

    def versions(session_id: str) -> list[int | None]:
        return [each.agent_version for each in caller.service.entries(session_id) if each.agent == "researcher"]

    assert versions("talk") == [1, 1]
    await caller.converse(asks("researcher", "Hi."), agent="pinned", session_id="pinned")
    await caller.converse(asks("researcher", "Hi."), agent="coordinator", session_id="next")
    assert (versions("pinned"), versions("next")) == ([1], [2])


async def test_sub_agent_knows_what_the_session_has_cost(definer: Definer, caller: Caller) -> None:
    """`session_cost` counts the calls of the whole tree until then."""
    await definer.apply("clerk", tools=[{"builtin": "session_cost"}])
    await definer.apply("coordinator", tools=tools("clerk"))
    turn = await caller.converse(asks("clerk", "@sandbox tool-loop calls=2 tool=session_cost"), agent="coordinator")

    ((succeeded, report),) = results(turn, "clerk#1")
    assert succeeded
    known = sorted(caller.service.entries("talk"), key=lambda each: each.number)[:2]  # the coordinator's, the clerk's
    assert Decimal(json.loads(report)["total_cost"]) == total(known) > 0
