"""An agent with the tools of a published MCP server, from its file to its bill."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Command
from tests.support.service import Service, format_amount

if TYPE_CHECKING:
    from tests.e2e.mcp.conftest import Become

ROOT = Path(__file__).parents[3]
SERVERS = ROOT / ".local" / "mcp-servers" / "bin"  # the Makefile installs them
QUESTIONS = (("repo_git_status", "{}"), ("repo_git_log", '{"max_count": 5}'), ("repo_git_show", '{"revision": "HEAD"}'))
CALLS = 4  # of the model for each question: three with a tool call, then the answer


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit."""
    path = tmp_path / "repository"
    path.mkdir()
    (path / "greeting.txt").write_text("good morning\n")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    for arguments in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "Greet in the morning")):
        environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
        subprocess.run(["git", *arguments], cwd=path, check=True, env=environment)  # noqa: S603, S607 - the system's git
    return path


@pytest.fixture
async def url(repository: Path, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of mcp-server-git behind mcp-proxy, both as they were published."""
    assert (SERVERS / "mcp-proxy").exists(), "`make .local/mcp-servers/ready` installs the published MCP servers"
    log = tmp_path / "proxy.log"
    command = (SERVERS / "mcp-server-git", "--repository", repository)
    with log.open("wb") as file:
        proxy = await asyncio.create_subprocess_exec(
            SERVERS / "mcp-proxy", "--port", "0", "--", *command, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        while (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text())) is None:
            assert proxy.returncode is None, log.read_text()
            await asyncio.sleep(0.05)
        yield f"{found[1]}/mcp"
    finally:
        proxy.terminate()
        await proxy.wait()


async def test_conversation_with_a_published_server_is_billed_to_the_last_digit(
    service: Service, become: Become, url: str, repository: Path, tmp_path: Path
) -> None:
    """Three of its tools, nine calls of them, twelve model calls; agent and version are on every ledger entry."""
    tenant = become(service)
    out = tmp_path / "out"

    async def godoty(*arguments: str) -> str:
        out.unlink(missing_ok=True)
        known = {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": tenant.key}
        command = Command(*arguments, environment={**os.environ, **known}, out=out)
        assert await command.wait() == 0, out.read_text()
        return out.read_text()

    server = tmp_path / "git.yaml"
    example = (ROOT / "examples" / "mcp" / "git.yaml").read_text()
    server.write_text(re.sub(r"(?m)^url: .*$", f"url: {url}", example))
    agent = str(ROOT / "examples" / "agents" / "maintainer.yaml")
    assert await godoty("mcp", "apply", "-f", str(server)) == "git applied\n"
    assert "repo_git_log" in await godoty("mcp", "check", "git")
    assert await godoty("agent", "apply", "-f", agent) == "maintainer@1 applied\n"

    outputs: dict[str, set[str]] = {}
    turns = []
    for tool, arguments in QUESTIONS:
        given = arguments.replace("{", f'{{"repo_path": "{repository}", ').replace(", }", "}")
        text = f"@sandbox tool-loop calls={CALLS} tool={tool} input='{given}'"
        turns.append(await tenant.caller.converse(text, agent="maintainer"))
        ended = [each.tool_call_finished for each in turns[-1].responses if each.HasField("tool_call_finished")]
        assert [each.status for each in ended] == [1] * (CALLS - 1), ended
        outputs[tool] = {each.output for each in ended}

    for (tool, _), part in zip(QUESTIONS, ("nothing to commit", "Greet in the morning", "+good morning"), strict=True):
        assert all(part in each for each in outputs[tool]), outputs[tool]
    entries = service.entries("talk")
    assert [(each.agent, each.agent_version) for each in entries] == [("maintainer", 1)] * 12
    assert len(service.invoice("talk")) == 12
    known = [each.cost for each in entries if each.cost is not None]
    assert len(known) == 12
    costs = {
        format_amount(sum((Decimal(each.finished.turn_totals.cost_usd) for each in turns), Decimal())),
        turns[-1].finished.session_totals.cost_usd,
        (await tenant.caller.metrics()).totals.cost_usd,
        format_amount(sum(known, Decimal())),
        format_amount(service.invoiced("talk")),
    }
    assert len(costs) == 1, costs
    assert costs != {"0"}
