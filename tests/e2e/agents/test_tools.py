"""The server's tools in turns of agents."""

import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from tests.conftest import Start
from tests.e2e.agents.conftest import INVALID, Definer
from tests.e2e.mcp.conftest import output
from tests.support.caller import Caller, Turn, failure_of
from tests.support.service import Service, soon
from tests.support.web import Web, page

Define = Callable[[Caller], Definer]


async def use(caller: Caller, tool: str, *, session_id: str = "talk", scenario: str = "", **given: Any) -> Turn:
    """Run a turn of the agent `support` in which the model calls a tool once."""
    text = f"@sandbox tool-loop calls=2 tool={tool} input='{json.dumps(given)}' {scenario}"
    return await caller.converse(text, session_id=session_id, agent="support")


async def equip(definer: Definer, *tools: str) -> None:
    """Apply the agent `support` with tools."""
    await definer.apply(tools=[{"builtin": each} for each in tools])


def state(service: Service, session_id: str = "talk") -> dict[str, Any]:
    """Return the stored state of a session's agent."""
    session = service.session(session_id)
    assert session is not None
    found: dict[str, Any] = json.loads(session["state"])
    return found


async def test_tools_take_generated_input(definer: Definer, caller: Caller) -> None:
    """The model is offered all of them, and their schemas are valid for the input that it makes."""
    await equip(definer, "calculator", "current_time", "notebook", "session_cost")

    for tool in ("calculator", "current_time", "notebook", "session_cost"):
        turn = await caller.converse(f"@sandbox tool-loop calls=2 tool={tool}", agent="support")

        assert output(turn)[0], tool
        assert [(each.name, each.calls, each.errors) for each in turn.finished.tools] == [(tool, 1, 0)]


async def test_notes_last_as_long_as_their_session(
    caller: Caller, serve: Start, define: Define, connect: Callable[[Service], Caller]
) -> None:
    """On every server; another session and another tenant have none of them, and the metrics are not touched."""
    first = caller.service
    await equip(define(caller), "notebook")

    assert output(await use(caller, "notebook", action="write", name="godoty_metrics", text="buy milk"))[0]
    metrics = state(first)["godoty_metrics"]
    assert Decimal(metrics["total_cost"]) == first.invoiced("talk") > 0

    second = await serve(database=first.database.name)
    later = connect(first.at(second.target))
    assert output(await use(later, "notebook", action="read", name="godoty_metrics")) == (True, "buy milk")
    assert output(await use(later, "notebook", session_id="other", action="list")) == (True, "[]")
    stranger = connect(first.another_tenant())
    await equip(define(stranger), "notebook")
    assert output(await use(stranger, "notebook", action="list")) == (True, "[]")
    assert state(first)["godoty_notebook"] == {"godoty_metrics": "buy milk"}


async def test_notes_of_a_cancelled_turn_are_stored(definer: Definer, caller: Caller) -> None:
    """As all of its history is."""
    await equip(definer, "notebook")
    note = json.dumps({"action": "write", "name": "plan", "text": "rest"})
    stream = caller.start(
        f"@sandbox tool-loop calls=2 tool=notebook input='{note}' hold_after=0 hold=notes at=2 record_ms=-1",
        agent="support",
    )
    async for event in stream:
        if event.HasField("tool_call_finished"):
            await caller.call("CancelTurn", pb.CancelTurnRequest(turn_id=event.turn_id))
            break

    await soon(lambda: state(caller.service).get("godoty_notebook") == {"plan": "rest"})


async def test_cost_of_the_session_is_exact(definer: Definer, caller: Caller, other_tenant: Caller) -> None:
    """It is the sum of the calls until then: those of earlier turns and the one that called the tool; no one else's."""
    await other_tenant.converse("hello")
    await caller.converse("hello", session_id="another")
    await equip(definer, "session_cost")

    for calls in (1, 3):
        succeeded, shown = output(await use(caller, "session_cost"))

        entries = caller.service.entries("talk")
        counted = entries[:calls]
        assert succeeded
        report = json.loads(shown)
        assert Decimal(report["total_cost"]) == sum((each.cost or Decimal(0)) for each in counted) > 0
        assert report["total_tokens"] == sum((each.usage and each.usage.total_tokens) or 0 for each in counted)
        assert (report["model_calls"], report["turns"], report["pending_calls"]) == (calls, (calls + 1) // 2, 0)
        assert "E" not in report["total_cost"]
    assert len(entries) == 4


async def test_cost_names_pending_calls(definer: Definer, caller: Caller) -> None:
    """A call without a cost is not in the total until its record comes."""
    await equip(definer, "session_cost")
    await caller.converse("@sandbox no-cost record_ms=-1", agent="support")

    report = json.loads(output(await use(caller, "session_cost"))[1])

    assert report["pending_calls"] == 1
    assert report["notes"] == ["The cost of 1 model call is pending: it is not in the total yet."]
    assert Decimal(report["total_cost"]) == caller.service.entries("talk")[1].cost


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A web server on this machine."""
    async with Web() as started:
        yield started


@pytest.fixture
async def fetcher(serve: Start, define: Define, connect: Callable[[Service], Caller], web: Web) -> Caller:
    """A tenant of a server that lets agents fetch from the web server, whose agent does."""
    hosts = f"127.0.0.1:{web.port}"
    caller = connect(await serve(fetch_hosts=hosts, fetch_networks="127.0.0.1/32", fetch_bytes=1024))
    await equip(define(caller), "http_fetch")
    return caller


async def test_http_fetch_needs_hosts_of_the_operator(definer: Definer) -> None:
    """Without them no agent can have it; the error names the setting."""
    definition = {"name": "support", "tools": [{"builtin": "http_fetch"}]}

    failure = await failure_of(definer.call("ApplyAgent", definition=definition))

    assert (failure.code, failure.reason) == (INVALID, "INVALID_FIELD")
    assert "GODOTY_FETCH_HOSTS" in failure.fields["definition.tools[0].builtin"]


async def test_document_reaches_the_model(fetcher: Caller, web: Web) -> None:
    """The next model call has its text; one that is too large says that it is cut."""
    web.answers["/"] = page(b"The answer is 42.")
    web.answers["/large"] = page(b"0" * 100_000)

    assert output(await use(fetcher, "http_fetch", url=web.url("/")))[0]
    (message,) = [each for each in fetcher.service.requests("talk")[-1]["messages"] if each["role"] == "tool"]
    assert "The answer is 42." in str(message["content"])

    succeeded, shown = output(await use(fetcher, "http_fetch", session_id="other", url=web.url("/large")))
    assert succeeded
    assert shown.endswith("\n[The document is cut: only its first 1,024 bytes are shown.]")


async def test_failed_fetch_is_an_error_that_the_model_sees(fetcher: Caller, web: Web) -> None:
    """The turn goes on to its end."""
    turn = await use(fetcher, "http_fetch", url=web.url("/missing"))

    assert output(turn) == (False, "Error: The server answered HTTP 404.")
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    refused = await use(fetcher, "http_fetch", url="https://example.com/")
    assert not output(refused)[0]
    assert web.paths == ["/missing"]


async def test_cancelled_turn_ends_its_fetch(fetcher: Caller, web: Web) -> None:
    """The connection is closed, and the session is free."""
    web.answers["/"] = web.hang
    stream = fetcher.start(
        f"@sandbox tool-loop calls=2 tool=http_fetch input='{json.dumps({'url': web.url('/')})}'", agent="support"
    )
    async for event in stream:
        if event.HasField("tool_call_started"):
            break
    await soon(lambda: web.waiting == 1)

    await fetcher.call("CancelTurn", pb.CancelTurnRequest(turn_id=event.turn_id))

    await soon(lambda: web.waiting == 0)
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in stream:
            pass
    assert (await fetcher.converse("on", agent="support")).failure is None
