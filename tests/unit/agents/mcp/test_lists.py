"""The tool lists of servers: read once, kept current, bounded."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from godoty_service.agents.mcp.errors import McpFailure
from godoty_service.agents.mcp.lists import ToolLists
from godoty_service.agents.mcp.server import Credentials, McpServer
from godoty_service.agents.mcp.tool_list import MAX_TOOLS, ToolList
from openrouter_sandbox.mcp.server import McpSandbox
from openrouter_sandbox.mcp.tools import announce
from tests.support.service import eventually, soon
from tests.unit.agents.mcp.conftest import MAX_BYTES, Client, call

At = Callable[..., McpServer]


class Lists:
    """The lists of a client, with a clock that the test turns."""

    def __init__(self, client: Client) -> None:
        self.now = 0.0
        self.lists = ToolLists(client.links, max_bytes=MAX_BYTES, tick=lambda: self.now)

    async def names(self, server: McpServer) -> list[str]:
        """Return the names of a server's tools."""
        return [each.name for each in (await self.lists.get(server)).tools]


@pytest.fixture
async def lists(client: Client) -> AsyncIterator[Lists]:
    """The lists of a client."""
    made = Lists(client)
    yield made
    made.lists.close()


def reads(sandbox: McpSandbox) -> int:
    """Return the number of connections that have listed the tools."""
    return len([each for each in sandbox.state.requests if each["headers"].get("mcp-method") == "tools/list"])


async def test_list_is_read_once_for_all_turns(lists: Lists, at: At, sandbox: McpSandbox) -> None:
    """Also for those that ask while it is read."""
    found = await asyncio.gather(*(lists.names(at()) for _ in range(20)))

    assert found[0][:3] == ["echo", "add", "measure"]
    assert all(each == found[0] for each in found)
    assert reads(sandbox) == 1


@pytest.mark.parametrize("path", ["/mcp", "/legacy"])
async def test_changed_list_is_read_when_the_server_says_so(
    lists: Lists, at: At, sandbox: McpSandbox, path: str
) -> None:
    """By a subscription, or by the stream of a session; not more often than once a second."""
    await lists.names(at(path))
    await soon(lambda: sandbox.state.sessions if path == "/legacy" else sandbox.state.changes._listeners)
    lists.now += 2

    async def announced() -> bool:  # a client of an older version listens a moment after it has opened its session
        await announce_new_tool(sandbox)
        return "new" in await lists.names(at(path))

    await eventually(announced)


async def announce_new_tool(sandbox: McpSandbox) -> None:
    """Add a tool to the server, and notify its clients."""
    sandbox.state.learned[:] = ["new"]
    await announce(sandbox.state)


async def test_list_is_read_again_after_a_minute_while_turns_get_the_old_one(
    lists: Lists, at: At, sandbox: McpSandbox
) -> None:
    """For servers that say nothing."""
    await lists.names(at())
    sandbox.state.learned.append("new")
    lists.now += 61

    assert "new" not in await lists.names(at())
    await eventually(lambda: _has(lists, at(), "new"))


async def _has(lists: Lists, server: McpServer, name: str) -> bool:
    return name in await lists.names(server)


async def test_server_that_fails_keeps_its_last_list(lists: Lists, at: At, sandbox: McpSandbox) -> None:
    """Its tools are still offered; they fail when they are called."""
    crm = at()
    before = await lists.names(crm)
    await sandbox.stop()
    lists.now += 61

    await lists.names(crm)
    await soon(lambda: lists.lists._entries[crm.key].failure)

    assert await lists.names(crm) == before


async def test_server_that_never_answered_has_no_list(lists: Lists, at: At, sandbox: McpSandbox) -> None:
    """It is asked again after 10 seconds, not for each turn."""
    crm = at()
    await sandbox.stop()
    for _ in range(3):
        with pytest.raises(McpFailure, match="cannot be reached"):
            await lists.names(crm)
    await sandbox.start()
    with pytest.raises(McpFailure):
        await lists.names(crm)
    lists.now += 11

    assert "echo" in await lists.names(crm)


async def test_list_that_is_not_used_is_forgotten(lists: Lists, at: At, sandbox: McpSandbox) -> None:
    """Its connection is closed; the server has no client any more."""
    await lists.names(at())
    lists.now += 301

    await lists.lists.maintain()

    assert len(lists.lists) == 0
    await soon(lambda: not sandbox.state.changes._listeners)


async def test_changed_server_has_a_list_of_its_own(lists: Lists, at: At) -> None:
    """That of the version before is forgotten."""
    await lists.names(at())

    assert await lists.names(at(revision=2, deny=("echo",)))
    assert len(lists.lists) == 1


async def test_lists_are_bounded_by_their_bytes(lists: Lists, at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones used least recently are forgotten."""
    monkeypatch.setattr("godoty_service.agents.mcp.lists._MAX_BYTES", 10_000)
    for number in range(5):
        await lists.names(at(name=f"server-{number}"))

    sizes = [each.size for each in lists.lists._entries.values()]
    assert sum(sizes) <= 10_000 or len(sizes) == 1
    assert list(lists.lists._entries)[-1][1] == "server-4"


async def test_server_that_ends_each_stream_is_not_listened_to_without_a_pause(
    lists: Lists, client: Client, at: At, sandbox: McpSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks to be listened to again at once, and would be, without end."""
    monkeypatch.setattr("godoty_service.agents.mcp.transport._SHORTEST_PAUSE", 3_600.0)
    restless = at("/restless")
    await lists.names(restless)
    await soon(lambda: listened(sandbox))

    turn = client.turn()
    for _ in range(20):
        await call(turn, restless, "echo", text="a")

    assert listened(sandbox) == 1


def listened(sandbox: McpSandbox) -> int:
    """Return the number of requests to listen."""
    return len([each for each in sandbox.state.requests if each["method"] == "GET"])


async def test_crowded_list_is_read_in_part(lists: Lists, at: At, sandbox: McpSandbox) -> None:
    """Its first page has more tools than anyone can use: no further one is read."""
    found = await lists.lists.get(at("/crowded"))

    assert len(found.tools) == MAX_TOOLS
    assert found.left_out > 0
    assert reads(sandbox) == 1


async def test_secret_in_a_list_is_masked(lists: Lists, client: Client, at: At) -> None:
    """A server may repeat it, in what models and people see of its tools."""
    client.credentials["crm"] = Credentials(headers=(("X-Key", "integer"),))

    found = await lists.lists.get(at("/legacy"))

    many = next(each for each in found.tools if each.name == "many")
    assert many.schema["properties"]["number"]["type"] == "[secret]"


async def test_list_that_is_put_is_used(lists: Lists, at: At, sandbox: McpSandbox) -> None:
    """A check of a server saves the first turn its read."""
    lists.lists.put(at(), ToolList(tools=()))

    assert await lists.names(at()) == []
    assert reads(sandbox) == 0
