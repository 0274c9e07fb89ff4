"""Steps without actions that end before all of their tools: the history says of each call what is known."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from godoty.v1 import turn_pb2

from godoty_service.bootstrap.components import open_components
from godoty_service.bootstrap.turns import build_log_retention
from godoty_service.sessions.history_repair import NOT_RUN, UNKNOWN_OUTCOME
from tests.e2e.actions.conftest import END_TURN, Asker, Mcp, not_busy
from tests.e2e.mcp.conftest import PREFIX
from tests.e2e.turns.streams import CONTINUE, cancel, free, until
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import soon

ARGUMENTS = '{"expression": "6 * 7", "hold": "step"}'
TWO = f"@sandbox tool-loop calls=2 parallel=2 input='{ARGUMENTS}'"


async def agent(asker: Asker, **rules: Any) -> None:
    """Apply an agent with a tool that answers at once, and one that waits."""
    await asker.agent("calculator", {"mcp": {"mcp_server": PREFIX, "allow": ["hang"]}, **rules})


async def results(asker: Asker) -> list[str]:
    """Return the results of the tools in the session's history, and check that the history is one for any provider."""
    messages = await asker.caller.messages()
    assert_valid_history(messages)
    assert_valid_request(asker.requests()[-1]["messages"])
    blocks = [block for each in messages for block in each.content if block.HasField("tool_result")]
    return [block.tool_result.output for block in blocks]


def in_log(asker: Asker, kind: str) -> int:
    """Return the number of events of a kind that are stored in the logs of the tenant."""
    logs = asker.service.database["turn_logs"].find({"tenant_id": asker.service.tenant_id})
    return sum(kind in event for each in logs for event in each["events"] if isinstance(event, dict))


@pytest.mark.parametrize("rules", [{}, {"idempotent": True}], ids=["plain", "idempotent"])
async def test_killed_server_leaves_what_is_known_of_each_call(servers: Any, mcp: Mcp, rules: dict[str, Any]) -> None:
    """The result of the one that has ended is kept; the one that ran has an unknown outcome, and runs once."""
    asker, survivor = servers
    await agent(asker, **rules)
    stream = asker.caller.start(TWO, agent="support", on_disconnect=turn_pb2.ON_DISCONNECT_CONTINUE)
    await soon(lambda: mcp.calls("hang"))
    await soon(lambda: in_log(asker, "result"))
    other = await survivor()
    assert stream
    mcp.release("step")
    turn = await not_busy(lambda: other.ask("and now?"))

    assert turn.finished.stop_reason == END_TURN
    assert await results(other) == ["42", UNKNOWN_OUTCOME]
    assert mcp.calls("hang") == 1


async def test_starts_are_stored_before_tools_begin(local: Asker, mcp: Mcp) -> None:
    """When a tool of a step of several runs, the log has the starts of all, and the history their calls."""
    await local.serve(mcp)
    await agent(local)
    stream = local.caller.start(TWO, agent="support", on_disconnect=CONTINUE)
    await soon(lambda: mcp.calls("hang"))

    assert in_log(local, "tool") == 2
    assert [
        each["role"] for each in local.service.database["messages"].find({"tenant_id": local.service.tenant_id})
    ] == [
        "user",
        "assistant",
    ]
    mcp.release("step")
    assert await until(stream, "turn_finished")


async def test_cancelled_turn_keeps_the_results_that_there_are(local: Asker, mcp: Mcp) -> None:
    """As after the death of a server."""
    await local.serve(mcp)
    await agent(local)
    stream = local.caller.start(TWO, agent="support", on_disconnect=CONTINUE)
    started = await until(stream, "tool_call_finished")
    await soon(lambda: mcp.calls("hang"))
    await cancel(local.caller, started[0].turn_id)
    await free(local.service)
    turn = await not_busy(lambda: local.ask("and now?"))  # a moment later it is free in the server's memory, too
    assert turn.finished.stop_reason == END_TURN

    assert await results(local) == ["42", UNKNOWN_OUTCOME]
    assert NOT_RUN not in str(local.requests()[-1]["messages"])


async def test_one_tool_has_an_unknown_outcome(servers: Any, mcp: Mcp) -> None:
    """A step of one call stores no more than before: what its log lacks may have been."""
    asker, survivor = servers
    await agent(asker)
    text = f"@sandbox tool-loop calls=2 tool={PREFIX}_hang input='{ARGUMENTS}'"
    stream = asker.caller.start(text, agent="support", on_disconnect=CONTINUE)
    await soon(lambda: mcp.calls("hang"))
    other = await survivor()
    assert stream
    mcp.release("step")
    assert (await not_busy(lambda: other.ask("and now?"))).finished.stop_reason == END_TURN

    assert await results(other) == [UNKNOWN_OUTCOME]
    assert mcp.calls("hang") == 1


async def test_log_of_an_interrupted_turn_is_retained_until_its_session_goes_on(servers: Any, mcp: Mcp) -> None:
    """However late that is, up to the time for which actions wait. Logs of other turns expire."""
    asker, survivor = servers
    await agent(asker)
    ended = (await asker.ask("hello", session_id="else")).responses[0].turn_id
    stream = asker.caller.start(TWO, agent="support", on_disconnect=CONTINUE)
    interrupted = (await until(stream, "tool_call_finished"))[0].turn_id
    await soon(lambda: mcp.calls("hang"))
    await soon(lambda: in_log(asker, "result"))
    other = await survivor()
    mcp.release("step")
    database, settings = asker.service.database, asker.service.backends.settings(asker.service.database.name)
    async with open_components(settings) as components:
        now = await components.database.now()

        async def extend(longest: float = settings.action_retention) -> set[str]:
            """Let all logs expire soon, and extend them; return which of the two turns have a log for longer."""
            for name in ("turns", "turn_logs"):
                database[name].update_many({}, {"$set": {"expire_time": now + timedelta(minutes=10)}})
            limited = settings.model_copy(update={"action_retention": longest})
            await build_log_retention(limited, components).extend()
            later: dict[str, Any] = {"expire_time": {"$gt": now + timedelta(hours=20)}}
            turns = {"$in": [ended, interrupted]}
            records = {each["_id"] for each in database["turns"].find({"_id": turns, **later})}
            logs = {each["turn_id"] for each in database["turn_logs"].find({"turn_id": turns, **later})}
            early = {"turn_id": {"$in": [*records]}, "expire_time": {"$lt": now + timedelta(hours=20)}}
            assert (records, database["turn_logs"].count_documents(early)) == (logs, 0)
            return records

        too_old, retained = await extend(0.0), await extend()
        turn = await not_busy(lambda: other.ask("and now?"))
        afterwards = await extend()

    assert turn.finished.stop_reason == END_TURN
    assert await results(other) == ["42", UNKNOWN_OUTCOME]
    assert (too_old, retained, afterwards) == (set(), {interrupted}, set())
