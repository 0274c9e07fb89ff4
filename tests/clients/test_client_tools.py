"""Client tools by both kinds of clients, against the real service: the loop of calls and results is closed."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from godoty import (
    Action,
    AgentDefinition,
    AgentTool,
    AsyncGodoty,
    ClientTool,
    DeadlineExceeded,
    StopReason,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallStatus,
    TurnFinished,
    TurnStarted,
)

from godoty_service.tenancy.auth import Scope
from tests.clients.conftest import GRACE
from tests.clients.cutting_proxy import CuttingProxy
from tests.support.media import png

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients.kinds import Driver
    from tests.support.service import Service

VISION = "anthropic/claude-haiku-4.5"  # a model that takes images
LOOK = '@sandbox tool-loop calls={calls} tool=look_up input=\'{{"number": "7"}}\''


def outputs(events: list[Any]) -> dict[str, tuple[ToolCallStatus, str]]:
    """Return the outcomes of tool calls by the names of the tools."""
    names = {each.tool_call_id: each.name for each in events if isinstance(each, ToolCallStarted)}
    finished = [each for each in events if isinstance(each, ToolCallFinished)]
    return {names[each.tool_call_id]: (each.status, each.output) for each in finished}


@pytest.fixture
async def support(service: Service, connect_to: Callable[..., Driver], issue: Callable[..., str]) -> Callable[..., Any]:
    """Applies the agent "support" with tools."""

    async def apply(*tools: AgentTool) -> None:
        editor = connect_to(service.target, issue(service, scopes=frozenset({Scope.AGENTS})))
        await editor.do(editor.client.agents.apply, AgentDefinition(name="support", system_prompt="Hi.", tools=tools))

    return apply


async def test_one_turn_runs_its_tools_and_goes_on(driver: Driver, service: Service, session_id: str) -> None:
    """As often as the model calls them: the text is that of all answers, the cost the sum of all calls."""
    numbers: list[int] = []

    @driver.registry.tool
    def look_up(number: int) -> dict[str, int]:
        """Find an order."""
        numbers.append(number)
        return {"pens": len(numbers)}

    turn = driver.client.converse(LOOK.format(calls=3), session=session_id)
    events = await driver.all(turn)

    assert numbers == [7, 7]
    assert look_up(1) == {"pens": 3}  # it is a function still
    assert [type(each) for each in events if isinstance(each, TurnStarted | TurnFinished)] == [
        *(TurnStarted, TurnFinished) * 3
    ]
    assert len(set(turn.turn_ids)) == 3
    assert {each.turn_id for each in events} == set(turn.turn_ids)
    assert turn.text == "".join(each.text for each in events if isinstance(each, TextDelta))
    assert '{"pens": 2}' in turn.text
    assert turn.cost == turn.session_totals.cost_usd == service.invoiced(session_id) > 0
    assert turn.totals == turn.session_totals
    assert (turn.stop_reason, turn.actions) == (StopReason.END_TURN, ())
    assert (turn.started, turn.finished) == (events[0], events[-1])
    assert len(service.requests(session_id)) == 3


async def test_results_of_all_kinds_reach_the_model(
    driver: Driver, service: Service, support: Callable[..., Any], session_id: str
) -> None:
    """In one step: an image, a failure, a wrong input, a tool that is too slow, one that there is not."""
    never, tool = threading.Event(), driver.registry.tool
    await support(
        AgentTool(client=ClientTool(tool_name="refund", description="Refunds.", input_schema='{"type": "object"}')),
        AgentTool(client=ClientTool(tool_name="defined", description="Is defined.")),
    )

    @tool(declare=False)
    def defined() -> str:
        return "by the agent"

    @tool
    def photo() -> bytes:
        return png(12, 10)

    @tool
    async def later() -> str:
        await asyncio.sleep(0)
        return "in a loop"

    @tool
    def fails() -> None:
        raise RuntimeError("the shop is closed")

    @tool(name="no-image")
    def no_image() -> bytes:
        return b"no image"

    @tool(timeout=0.01)
    def slow() -> None:
        never.wait()

    @tool(timeout=0.01)
    async def slow_too() -> None:
        await asyncio.sleep(60)

    turn = driver.client.converse(
        "@sandbox tool-loop calls=2 parallel=8", session=session_id, agent="support", model=VISION
    )
    events = await driver.all(turn)
    never.set()
    found = outputs(events)

    assert turn.stop_reason is StopReason.END_TURN
    assert len(turn.turn_ids) == 2
    assert found.keys() == {"refund", "defined", "photo", "later", "fails", "no-image", "slow", "slow_too"}
    errors = {name: output for name, (status, output) in found.items() if status is ToolCallStatus.ERROR}
    assert errors.keys() == {"refund", "fails", "no-image", "slow", "slow_too"}
    assert errors["refund"] == "UnknownTool: there is no tool refund"
    assert errors["fails"] == "RuntimeError: the shop is closed"
    assert errors["no-image"].startswith("AttachmentRejected: ATTACHMENT_REJECTED: ")
    assert errors["slow"] == errors["slow_too"] == "TimeoutError: it took longer than 0.01 seconds"
    assert (found["defined"][1], found["later"][1]) == ("by the agent", "in a loop")
    assert "image_url" in str(service.requests(session_id)[-1]["messages"])


async def test_wrong_arguments_are_an_error_for_the_model(driver: Driver, session_id: str) -> None:
    """The function is not called."""

    @driver.registry.tool
    def look_up(order: int) -> None:
        raise AssertionError(order)

    events = await driver.all(driver.client.converse(LOOK.format(calls=2), session=session_id))

    assert outputs(events) == {"look_up": (ToolCallStatus.ERROR, "InvalidValue: number: there is no such member")}


async def test_functions_do_not_hold_up_an_event_loop(driver: Driver, session_id: str) -> None:
    """A blocking client calls them where it is read; in an event loop they run beside it."""
    threads: list[threading.Thread] = []

    def look_up(number: int) -> str:
        threads.append(threading.current_thread())
        return "two pens"

    turn = driver.client.converse(LOOK.format(calls=2), session=session_id, tools=[look_up])
    if driver.blocking:
        turn.wait()
    else:
        await turn.wait()

    assert (threads == [threading.main_thread()]) is driver.blocking


async def test_async_tools_of_a_step_run_at_once(client: AsyncGodoty, session_id: str) -> None:
    """In an event loop: each waits for the other one."""
    both = asyncio.Barrier(2)

    @client.tool
    async def look_up(number: int) -> str:
        await both.wait()
        return "here"

    turn = await client.converse(LOOK.format(calls=2) + " parallel=2", session=session_id).wait()

    assert turn.stop_reason is StopReason.END_TURN


async def test_caller_answers_what_is_left_open(
    driver: Driver, service: Service, support: Callable[..., Any], session_id: str
) -> None:
    """A turn without tools: what its caller gives is what a tool may return, and goes on in a turn of its own."""
    await support(AgentTool(client=ClientTool(tool_name="look_up", description="Finds an order.")))

    @driver.registry.tool(declare=False)
    def look_up(number: int) -> None:
        raise AssertionError(number)

    asked = await driver.turn(LOOK.format(calls=3), session=session_id, agent="support", model=VISION, tools=())
    (action,) = asked.actions
    with pytest.raises(ValueError, match="there is no open action 'act_0'"):
        asked.answer({"act_0": "two pens"})
    with pytest.raises(ValueError, match="no answer"):
        asked.answer({})
    failed = await driver.do(asked.answer({action.action_id: LookupError("no such order")}).wait)
    (again,) = failed.actions
    done = await driver.do(failed.answer({again.action_id: png(12, 10)}).wait)

    assert asked.stop_reason is failed.stop_reason is StopReason.ACTION_REQUIRED
    assert (action.name, action.input_json) == ("look_up", '{"number": "7"}')
    assert (done.stop_reason, done.actions) == (StopReason.END_TURN, ())
    messages = str(service.requests(session_id)[-1]["messages"])
    assert "LookupError: no such order" in messages
    assert "image_url" in messages
    assert asked.cost + failed.cost + done.cost == service.invoiced(session_id)


async def test_many_results_are_sent_in_several_requests(driver: Driver, service: Service, session_id: str) -> None:
    """More than a request takes; the model is asked once more, with all of them."""
    calls: list[str] = []

    @driver.registry.tool
    def look_up(action: Action, number: int) -> str:
        calls.append(action.action_id)
        return "x" * 20_000

    turn = await driver.turn(LOOK.format(calls=2) + " parallel=18", session=session_id)

    assert len(set(calls)) == len(calls) == 18
    assert turn.stop_reason is StopReason.END_TURN
    assert len(turn.turn_ids) == 1 + 4
    assert len(service.requests(session_id)) == 2


async def test_lost_connections_run_no_tool_twice(
    service: Service, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """The connection is cut while a tool runs, and before and within each answer."""
    async with CuttingProxy(service.target) as proxy:
        driver = connect_to(proxy.address, service.api_key, disconnect_grace=GRACE, connect_timeout=GRACE)
        loop, numbers = asyncio.get_running_loop(), list[int]()

        @driver.registry.tool
        def look_up(number: int) -> str:
            numbers.append(number)
            cut = asyncio.run_coroutine_threadsafe(cut_now(), loop)
            cut.result()
            return f"{len(numbers)} pens"

        async def cut_now() -> None:
            proxy.cut()
            proxy.cut_after(len(numbers) * 100)

        turn = await driver.turn(LOOK.format(calls=4), session=session_id)

    assert numbers == [7, 7, 7]
    assert "3 pens" in turn.text
    assert proxy.cuts > 3
    assert turn.cost == service.invoiced(session_id)
    assert len(service.entries(session_id)) == len(service.invoice(session_id)) == 4


async def test_same_request_id_is_charged_once_with_its_tools(
    driver: Driver, service: Service, session_id: str
) -> None:
    """A program that begins again reads the same turns, if its tools give the same results."""

    @driver.registry.tool
    def look_up(number: int) -> str:
        return "two pens"

    options = {"session": session_id, "request_id": f"order-{session_id}"}
    first = await driver.turn(LOOK.format(calls=3), **options)
    again = await driver.turn(LOOK.format(calls=3), **options)

    assert (again.turn_ids, again.text, again.cost) == (first.turn_ids, first.text, first.cost)
    assert len(service.invoice(session_id)) == 3


async def test_deadline_is_of_the_turn_with_its_tools(driver: Driver, session_id: str) -> None:
    """A tool that takes too long ends it; the action waits."""
    never = threading.Event()

    @driver.registry.tool
    def look_up(number: int) -> None:
        never.wait()

    turn = driver.client.converse(LOOK.format(calls=2), session=session_id, timeout=3.0)
    with pytest.raises(DeadlineExceeded):
        await driver.do(turn.wait)
    never.set()

    assert await driver.next(turn) is None


async def test_leaving_within_a_tool_leaves_its_action_open(client: AsyncGodoty, session_id: str) -> None:
    """There is no turn to be cancelled; the session goes on with an answer."""
    started, never = asyncio.Event(), asyncio.Event()

    @client.tool
    async def look_up(number: int) -> None:
        started.set()
        await never.wait()

    turn = client.converse(LOOK.format(calls=2), session=session_id)
    reading = asyncio.create_task(turn.wait())
    await started.wait()
    reading.cancel()
    await asyncio.wait([reading])
    (action,) = turn.actions
    done = await turn.answer({action.action_id: "two pens"}).wait()

    assert reading.cancelled()
    assert done.stop_reason is StopReason.END_TURN
    assert "two pens" in done.text
