"""Calls of tools by the protocol: results, progress, cancellation, sessions."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from godoty_service.agents.mcp.server import McpServer
from godoty_service.agents.mcp.tool_list import ListedTool
from godoty_service.agents.mcp.tools import MCP, McpTool
from openrouter_sandbox.mcp.server import McpSandbox
from tests.support.service import soon
from tests.unit.agents.mcp.conftest import Client, call

At = Callable[..., McpServer]
GENERATIONS = ("/mcp", "/legacy")  # the protocol without sessions, and that with


@pytest.mark.parametrize("path", GENERATIONS)
async def test_result_is_what_the_tool_says(client: Client, at: At, path: str) -> None:
    """Texts, structured values and errors; the calls of a turn share one connection."""
    turn, crm = client.turn(), at(path)

    assert repr(await call(turn, crm, "echo", text="hello")) == "success: hello"
    assert repr(await call(turn, crm, "add", a=2, b=3)) == 'success: {"sum": 5}'
    assert repr(await call(turn, crm, "measure")) == 'success: {"degrees": [20.5, 21]}'
    assert repr(await call(turn, crm, "fail")) == "error: the order does not exist"
    assert (await call(turn, crm, "refuse")).status == "error"
    assert (await call(turn, crm, "no_such_tool")).status == "error"
    assert "image/png" in (await call(turn, crm, "picture")).text


@pytest.mark.parametrize("path", GENERATIONS)
async def test_later_connections_need_no_negotiation(client: Client, at: At, sandbox: McpSandbox, path: str) -> None:
    """The second turn sends its call with what the first one has learned."""
    await call(client.turn(), at(path), "echo", text="a")
    before = len(sandbox.state.requests)

    await call(client.turn(), at(path), "echo", text="b")

    sent = [each for each in sandbox.state.requests[before:] if each["method"] == "POST"]
    assert len(sent) == (1 if path == "/mcp" else 3)  # initialize, initialized, the call


@pytest.mark.parametrize("path", GENERATIONS)
async def test_progress_is_reported_before_the_result(client: Client, at: At, path: str) -> None:
    """All of the first reports, in order."""
    outcome = await call(client.turn(), at(path), "progress", steps=3)

    assert [(each.progress, each.total, each.message) for each in outcome.reports] == [
        (1.0, 3.0, "step 1"),
        (2.0, 3.0, "step 2"),
        (3.0, 3.0, "step 3"),
    ]
    assert outcome.text == "3 steps done"


async def test_flood_of_progress_is_bounded(client: Client, at: At) -> None:
    """A tool cannot fill the log of its turn."""
    outcome = await call(client.turn(), at(), "progress", steps=500)

    assert 20 <= len(outcome.reports) < 60
    assert outcome.text == "500 steps done"


@pytest.mark.parametrize("path", GENERATIONS)
async def test_call_that_takes_too_long_is_cancelled_at_the_server(
    client: Client, at: At, sandbox: McpSandbox, path: str
) -> None:
    """The model sees an error; the next call works."""
    turn, crm = client.turn(), at(path, timeout=timedelta(seconds=2))

    hung = await call(turn, crm, "hang", hold="never")

    assert repr(hung) == "error: The tool did not answer within 2 s; the call was cancelled."
    await soon(lambda: sandbox.state.cancelled["hang"] == 1)
    assert (await call(turn, at(path), "echo", text="on")).text == "on"


@pytest.mark.parametrize("path", GENERATIONS)
async def test_cancelled_turn_cancels_its_call_at_once(client: Client, at: At, sandbox: McpSandbox, path: str) -> None:
    """Also at the server; the turn does not wait for it."""
    running = asyncio.create_task(call(client.turn(), at(path), "hang", hold="never"))
    await soon(lambda: sandbox.state.calls["hang"] == 1)

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    await soon(lambda: sandbox.state.cancelled["hang"] == 1)


async def test_end_of_the_turn_ends_its_sessions(client: Client, at: At, sandbox: McpSandbox) -> None:
    """At the server, too; nothing of the turn is left over."""
    turn = client.turn()
    await call(turn, at("/legacy"), "echo", text="a")

    turn.close()

    await soon(lambda: sandbox.state.requests[-1]["method"] == "DELETE")
    await soon(lambda: not any(link.tasks for link in client.links._links.values()))
    assert repr(await call(turn, at(), "echo", text="b")) == "error: The turn has ended."


async def test_session_that_the_server_has_lost_is_opened_anew(client: Client, at: At, sandbox: McpSandbox) -> None:
    """The call was not made: it is sent again, once."""
    turn = client.turn()
    await call(turn, at("/legacy"), "echo", text="a")

    await sandbox.forget_sessions()

    assert repr(await call(turn, at("/legacy"), "echo", text="b")) == "success: b"
    assert sandbox.state.calls["echo"] == 2


@pytest.mark.parametrize("path", GENERATIONS)
async def test_restarted_server_is_connected_to_anew(client: Client, at: At, sandbox: McpSandbox, path: str) -> None:
    """While it is down its tools fail; then they work again, in the same turn."""
    turn, crm = client.turn(), at(path)
    await call(turn, crm, "echo", text="a")

    await sandbox.stop()
    assert repr(await call(turn, crm, "echo", text="b")) == "error: The server cannot be reached."
    await sandbox.start()

    assert repr(await call(turn, crm, "echo", text="c")) == "success: c"


async def test_server_that_speaks_another_version_now_is_negotiated_with_anew(
    client: Client, at: At, sandbox: McpSandbox
) -> None:
    """As after an upgrade, or its reversal: what earlier connections learned is no longer true."""
    crm, other = at("/legacy"), at("/mcp")
    await call(client.turn(), crm, "echo", text="a")
    await call(client.turn(), other, "echo", text="a")
    learned, modern = client.links.get(crm).protocol, client.links.get(other).protocol
    client.links.get(crm).protocol = modern
    client.links.get(other).protocol = learned

    assert repr(await call(client.turn(), crm, "echo", text="b")) == "success: b"
    assert repr(await call(client.turn(), other, "echo", text="b")) == "success: b"


async def test_turns_at_one_server_do_not_wait_for_each_other(client: Client, at: At, sandbox: McpSandbox) -> None:
    """50 turns whose calls all hang, and one more whose call does not; no thread for any of them."""
    threads = threading.active_count()
    hung = [asyncio.create_task(call(client.turn(), at(), "hang", hold="later")) for _ in range(50)]
    await soon(lambda: sandbox.state.calls["hang"] == 50)

    assert (await call(client.turn(), at(), "echo", text="a")).text == "a"
    assert threading.active_count() <= threads + 8  # the look-ups of names, by all turns together

    sandbox.state.release("later")
    assert {repr(each) for each in await asyncio.gather(*hung)} == {"success: released"}


async def test_calls_of_one_turn_run_side_by_side(client: Client, at: At, sandbox: McpSandbox) -> None:
    """One that hangs holds up no other."""
    turn = client.turn()
    hung = asyncio.create_task(call(turn, at(), "hang", hold="later"))
    await soon(lambda: sandbox.state.calls["hang"] == 1)

    assert (await call(turn, at(), "echo", text="a")).text == "a"

    sandbox.state.release("later")
    assert (await hung).text == "released"


async def test_input_that_is_no_object_is_an_error(client: Client, at: At) -> None:
    """Models send what they like."""
    listed = ListedTool(name="echo", offered_name="crm_echo", description="", schema={}, schema_bytes=0)
    use: dict[str, object] = {"toolUseId": "t1", "name": "crm_echo", "input": "text"}

    events = [each async for each in McpTool(at(), listed).stream(use, {MCP: client.turn()})]  # type: ignore[arg-type]

    assert events[-1]["tool_result"]["status"] == "error"
