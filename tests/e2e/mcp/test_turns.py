"""Turns of agents that use the tools of an MCP server, well-behaved or not."""

import asyncio
from decimal import Decimal
from pathlib import Path

import grpc
import pytest
from godoty.v1 import agent_service_pb2, turn_pb2

from tests.conftest import ENCRYPTION_KEY, StartProcess
from tests.e2e.mcp.conftest import Become, Mcp, Tenant, output
from tests.support.service import LONG_PAUSE, eventually, soon


async def test_turn_calls_tools_of_a_server(tenant: Tenant, mcp: Mcp) -> None:
    """The model is offered them beside the agent's own, sees their results, and every call is in the ledger."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")

    turn = await tenant.use("add", '{"a": 2, "b": 3}')

    assert output(turn) == (True, '{"sum": 5}')
    assert turn.finished.stop_reason == turn_pb2.STOP_REASON_END_TURN
    assert [each.name for each in turn.finished.tools] == ["crm_add"]
    names = [each["function"]["name"] for each in tenant.offered()]
    assert names[:3] == ["calculator", "crm_echo", "crm_add"]
    service = tenant.caller.service
    entries = service.entries("talk")
    assert [each.agent for each in entries] == ["support", "support"]
    assert (
        Decimal(turn.finished.turn_totals.cost_usd)
        == service.invoiced("talk")
        == sum(each.cost or 0 for each in entries)
    )


async def test_schema_reaches_the_model_unchanged(tenant: Tenant, mcp: Mcp) -> None:
    """Strands' registry would give an `enum` of numbers the type string."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")

    await tenant.use("echo", '{"text": "a"}')

    (count,) = [each["function"]["parameters"] for each in tenant.offered() if each["function"]["name"] == "crm_count"]
    assert count == {
        "type": "object",
        "properties": {"number": {"enum": [1, 2, 3]}, "exact": {"const": 5}, "any": {}},
        "required": ["number", "exact", "any"],
    }


async def test_progress_reaches_readers(tenant: Tenant, mcp: Mcp) -> None:
    """Between the start and the end of the call; a reader that comes later gets the same."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")

    turn = await tenant.use("progress", '{"steps": 2}')

    reports = [each.tool_progress for each in turn.responses if each.HasField("tool_progress")]
    assert [(each.progress, each.total, each.message) for each in reports] == [(1, 2, "step 1"), (2, 2, "step 2")]
    (started,) = [each.tool_call_started for each in turn.responses if each.HasField("tool_call_started")]
    assert {each.tool_call_id for each in reports} == {started.tool_call_id}
    first, last = turn.kinds.index("tool_call_started"), turn.kinds.index("tool_call_finished")
    assert turn.kinds[first + 1 : last] == ["tool_progress", "tool_progress"]

    async def stored() -> bool:  # once the log is stored, it is read from the database
        again = [each async for each in tenant.caller.resume(turn.responses[0].turn_id)]
        return [each.tool_progress for each in again if each.HasField("tool_progress")] == reports

    await eventually(stored)


@pytest.mark.parametrize(
    ("tool", "arguments", "part"),
    [
        ("fail", "{}", "the order does not exist"),
        ("refuse", "{}", ""),
        ("die", "{}", "broke"),
        ("flood", '{"megabytes": 100}', "larger than"),
        ("nonsense", '{"kind": "html"}', ""),
        ("nonsense", '{"kind": "lists"}', "values"),
        ("nonsense", '{"kind": "items"}', ""),
        ("crumble", "{}", ""),
        ("redirect", '{"to": "https://10.0.0.1/mcp"}', "not permitted"),
        ("hang", '{"hold": "never"}', "did not answer within 3 s"),
    ],
)
async def test_tool_that_misbehaves_is_an_error_that_the_model_sees(
    tenant: Tenant, mcp: Mcp, tool: str, arguments: str, part: str
) -> None:
    """The turn goes on to its end, and the next one works."""
    await tenant.serve(mcp.url(), timeout={"seconds": 3} if tool == "hang" else None)
    await tenant.agent("crm")

    turn = await tenant.use(tool, arguments)

    succeeded, shown = output(turn)
    assert not succeeded
    assert part in shown
    assert turn.finished.stop_reason == turn_pb2.STOP_REASON_END_TURN
    assert turn.finished.tools[0].errors == 1
    (message,) = [each for each in tenant.caller.service.requests("talk")[-1]["messages"] if each["role"] == "tool"]
    assert part in str(message["content"])
    assert output(await tenant.use("echo", '{"text": "on"}')) == (True, "on")


async def test_server_that_redirects_to_a_private_address_is_not_used(tenant: Tenant, mcp: Mcp) -> None:
    """The turn goes on without its tools, and says so; the next one works, once the server is where it was."""
    await tenant.serve(mcp.url("/redirect?to=https://10.0.0.1/mcp"))
    await tenant.agent("crm")

    turn = await tenant.caller.converse("hello", agent="support")

    assert turn.finished.stop_reason == turn_pb2.STOP_REASON_END_TURN
    assert "The server's address is not permitted" in tenant.prompts()[-1]
    await tenant.serve(mcp.url())
    assert output(await tenant.use("echo", '{"text": "on"}')) == (True, "on")


async def test_server_that_restarts_is_used_again(tenant: Tenant, mcp: Mcp) -> None:
    """Its sessions are gone; the turns that come after do not notice."""
    await tenant.serve(mcp.url("/legacy"))
    await tenant.agent("crm")
    await tenant.use("echo", '{"text": "a"}')

    await mcp.later(mcp.sandbox.restart)

    assert output(await tenant.use("echo", '{"text": "b"}')) == (True, "b")


async def test_session_that_is_lost_within_a_turn_is_opened_anew(tenant: Tenant, mcp: Mcp) -> None:
    """Between two calls of the turn, as when the server restarts: both calls succeed."""
    await tenant.serve(mcp.url("/legacy"))
    await tenant.agent("crm")
    session = tenant.caller.start(
        '@sandbox tool-loop calls=3 tool=crm_echo input=\'{"text": "a"}\' hold=between hold_after=0 at=2',
        agent="support",
    )
    events = []
    forgotten = False
    async for event in session:
        events.append(event)
        if event.HasField("tool_call_finished") and not forgotten:
            forgotten = True
            await mcp.later(mcp.sandbox.forget_sessions)
            tenant.caller.service.backends.allow("between")

    finished = [each.tool_call_finished for each in events if each.HasField("tool_call_finished")]
    assert [each.output for each in finished] == ["a", "a"]


async def test_agent_goes_on_without_a_server_that_is_down(tenant: Tenant, mcp: Mcp) -> None:
    """The prompt says so, and the model is offered the other tools; once it is up, its tools are back."""
    url = mcp.url()
    await mcp.later(mcp.sandbox.stop)
    await tenant.serve(url)
    await tenant.agent("crm")

    turn = await tenant.caller.converse("hello", agent="support")

    assert turn.finished.stop_reason == turn_pb2.STOP_REASON_END_TURN
    assert "The tools of crm are not available at the moment: The server cannot be reached." in tenant.prompts()[-1]
    assert [each["function"]["name"] for each in tenant.offered()] == ["calculator"]
    assert (await tenant.caller.messages())[0].content[0].text == "hello"


async def test_changed_list_reaches_a_later_turn(tenant: Tenant, mcp: Mcp) -> None:
    """A tool that a call adds can be called soon after."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")
    assert output(await tenant.use("learn", '{"name": "dance"}')) == (True, "learned")

    async def offered() -> bool:
        await tenant.caller.converse("hello", session_id="later", agent="support")
        return "crm_dance" in [each["function"]["name"] for each in tenant.offered("later")]

    await eventually(offered, pause=LONG_PAUSE)
    assert output(await tenant.use("dance", session_id="last")) == (True, "dance was learned")


async def test_definition_and_server_limit_the_tools(tenant: Tenant, mcp: Mcp) -> None:
    """Both lists apply."""
    await tenant.serve(mcp.url(), deny=["flood"])
    tools = [{"mcp": {"mcp_server": "crm", "allow": ["echo", "f*"]}}]
    await tenant.agent(tools=tools)

    await tenant.use("echo", '{"text": "a"}')

    assert [each["function"]["name"] for each in tenant.offered()] == ["crm_echo", "crm_fail"]


async def test_deleted_server_is_missed(tenant: Tenant, mcp: Mcp) -> None:
    """Its agents go on without its tools, within 2 seconds on every server."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")
    await tenant.use("echo", '{"text": "a"}')

    await tenant.call("DeleteMcpServer", mcp_server="crm")
    await tenant.caller.converse("hello", agent="support")

    assert "The tools of crm are not available at the moment: there is no such MCP server" in tenant.prompts()[-1]
    assert [each["function"]["name"] for each in tenant.offered()] == ["calculator"]


async def test_cancelled_turn_cancels_its_tool(tenant: Tenant, mcp: Mcp) -> None:
    """Also at the server, and the session is free at once."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")
    stream = tenant.caller.start(
        '@sandbox tool-loop calls=2 tool=crm_hang input=\'{"hold": "never"}\'', agent="support"
    )
    turn_id = ""
    async for event in stream:
        turn_id = event.turn_id
        if event.HasField("tool_call_started"):
            await soon(lambda: mcp.calls("hang") == 1)
            break

    await tenant.caller.call("CancelTurn", agent_service_pb2.CancelTurnRequest(turn_id=turn_id))

    await soon(lambda: mcp.cancelled("hang") == 1)
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in stream:
            pass
    assert (await tenant.caller.converse("on", agent="support")).failure is None


async def test_forty_turns_at_a_server_that_hangs_hold_up_no_other(tenant: Tenant, mcp: Mcp) -> None:
    """Neither another turn at the same server nor one without tools."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")
    hung = [
        asyncio.create_task(tenant.use("hang", '{"hold": "later"}', session_id=f"s{number}")) for number in range(50)
    ]
    await soon(lambda: mcp.calls("hang") == 50)

    assert output(await tenant.use("echo", '{"text": "a"}')) == (True, "a")
    assert (await tenant.caller.converse("hello", session_id="plain")).failure is None

    mcp.release("later")
    assert [output(each) for each in await asyncio.gather(*hung)] == [(True, "released")] * 50


async def test_mute_server_holds_up_no_turn_of_others(tenant: Tenant, mcp: Mcp, become: Become) -> None:
    """Turns that wait for the list of a mute server do not take the places in which turns start."""
    await tenant.serve(mcp.url("/silent"))
    await tenant.agent("crm")
    other = become(tenant.caller.service.another_tenant())
    assert (await other.caller.converse("hello")).failure is None  # all that it needs has been read
    waiting = [
        asyncio.create_task(tenant.caller.converse("hello", session_id=f"s{number}", agent="support"))
        for number in range(8)
    ]
    turns = tenant.caller.service.database["turns"]
    await soon(lambda: turns.count_documents({"tenant_id": tenant.caller.service.tenant_id}) == 8)
    await soon(lambda: mcp.ask(lambda sandbox: sandbox.state.requests))

    assert (await other.caller.converse("hello again")).failure is None
    assert not any(each.done() for each in waiting)

    for turn in await asyncio.gather(*waiting):
        assert turn.finished.stop_reason == turn_pb2.STOP_REASON_END_TURN
    assert "did not list them within 5 s" in tenant.prompts("s0")[-1]


def _memory_and_threads(pid: int) -> tuple[int, int]:
    """Return the resident bytes and the threads of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values["VmRSS"].split()[0]) * 1024, int(values["Threads"])


async def test_flooding_and_many_servers_cost_no_memory_and_no_threads(
    serve_process: StartProcess, become: Become, mcp: Mcp
) -> None:
    """Twelve floods of 100 MB, and ten servers in use: less than 30 MB, and no further thread."""
    process, service = await serve_process(GODOTY_MCP_NETWORKS="127.0.0.0/8", GODOTY_ENCRYPTION_KEYS=ENCRYPTION_KEY)
    tenant = become(service)
    names = [f"crm-{number}" for number in range(10)]
    for name in names:
        await tenant.serve(mcp.url(), name=name)
    await tenant.serve(mcp.url())
    await tenant.agent("crm")
    await tenant.agent(*names, name="many")
    for _ in range(3):
        await tenant.use("echo", '{"text": "a"}')
    assert process.process is not None
    pid = process.process.pid
    memory, threads = _memory_and_threads(pid)

    await asyncio.gather(*(tenant.use("flood", '{"megabytes": 100}', session_id=f"f{number}") for number in range(12)))
    for number in range(10):
        await tenant.caller.converse("hello", session_id=f"m{number}", agent="many")

    grown, more = _memory_and_threads(pid)
    assert grown - memory < 30 * 1024 * 1024
    assert more - threads <= 4  # of the executor that looks names up, for all tenants together


async def test_image_of_a_result_reaches_the_model(tenant: Tenant, mcp: Mcp) -> None:
    """It is stored as an attachment of the session; a model that takes none sees a note, and the turn goes on."""
    await tenant.serve(mcp.url())
    await tenant.agent("crm")
    service = tenant.caller.service
    for session_id, model, images in (
        ("seeing", "anthropic/claude-haiku-4.5", 1),
        ("blind", "deepseek/deepseek-v3.2", 0),
    ):
        turn = await tenant.use("picture", "{}", session_id=session_id, model=model)
        assert turn.finished.stop_reason == turn_pb2.STOP_REASON_END_TURN
        assert output(turn)[0]
        assert "image/png" in output(turn)[1]
        *_, last = service.requests(session_id)
        sent = str(last["messages"])
        assert sent.count("data:(sha256") == images
        assert ("left out, because the model does not take it" in sent) == (not images)
        results = [block.tool_result for each in await tenant.caller.messages(session_id) for block in each.content]
        (found,) = [each for result in results for each in result.attachments]
        assert (found.media_type, found.width) == ("image/png", 1)
    assert service.database["attachments"].count_documents({"tenant_id": service.tenant_id}) == 2
    for session_id in ("seeing", "blind"):
        await tenant.caller.call("DeleteSession", agent_service_pb2.DeleteSessionRequest(session_id=session_id))

    assert service.database["attachments"].count_documents({"tenant_id": service.tenant_id}) == 0
