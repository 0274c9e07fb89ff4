"""`godoty agent`, by way of a running server."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.agents.conftest import Definer
from tests.support.caller import Caller
from tests.support.command import Command

EXAMPLES = Path(__file__).parents[3] / "examples" / "agents"
SERVERS = EXAMPLES.parent / "mcp"


@dataclass(frozen=True)
class Outcome:
    """The exit status and the output of a command."""

    code: int
    out: str
    err: str


Agent = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def agent(definer: Definer, tmp_path: Path) -> Agent:
    """Returns a function that runs `godoty agent`, or another group of commands, with the tenant's key."""

    async def run(*arguments: str, group: str = "agent", **environment: str) -> Outcome:
        known = {**os.environ, "GODOTY_LISTEN": definer.service.target, "GODOTY_API_KEY": definer.key}
        out, err = tmp_path / "out", tmp_path / "err"
        for path in (out, err):
            path.unlink(missing_ok=True)
        command = Command(group, *arguments, environment={**known, **environment}, out=out, err=err)
        code = await command.wait()
        return Outcome(code, *(path.read_text() if path.exists() else "" for path in (out, err)))

    return run


async def test_example_is_applied_shown_and_used(agent: Agent, caller: Caller, tmp_path: Path) -> None:
    """Applied again it is unchanged; what `show` prints is the definition again."""
    path = str(EXAMPLES / "support.yaml")
    assert await agent("apply", "-f", path) == Outcome(0, "support@1 applied\n", "")
    assert (await agent("apply", "-f", path)).out == "support@1 unchanged\n"
    shown = tmp_path / "shown.yaml"
    shown.write_text((await agent("show", "support@1")).out)
    assert shown.read_text().startswith("# support@1\nname: support\n")
    assert (await agent("apply", "-f", str(shown))).out == "support@1 unchanged\n"

    turn = await caller.converse("@sandbox tool-loop calls=3", agent="support")
    assert turn.failure is None, turn.failure
    assert {(each.agent, each.agent_version) for each in turn.calls} == {("support", 1)}


async def test_every_example_is_applied(agent: Agent, caller: Caller) -> None:
    """All in one command; each answers."""
    for path in SERVERS.glob("*.yaml"):
        assert (await agent("apply", "-f", str(path), group="mcp")).code == 0
    paths = sorted(EXAMPLES.glob("*.yaml"))
    outcome = await agent("apply", *(each for path in paths for each in ("-f", str(path))))
    names = [line.partition("@")[0] for line in outcome.out.splitlines()]

    assert outcome.code == 0, outcome.err
    assert {path.stem for path in paths} <= set(names)
    for name in names:
        turn = await caller.converse("hello", session_id=name, agent=name, variables={"subject": "fractions"})
        assert turn.failure is None, f"{name}: {turn.failure}"


async def test_difference_is_shown_and_is_an_exit_status(agent: Agent, tmp_path: Path) -> None:
    """Nothing and 0 if there is none; a new agent differs from none."""
    path = tmp_path / "a.yaml"
    path.write_text("name: helper\ndescription: one\n")
    new = await agent("diff", "-f", str(path))
    assert (new.code, "+name: helper" in new.out) == (1, True)
    await agent("apply", "-f", str(path))
    assert await agent("diff", "-f", str(path)) == Outcome(0, "", "")
    path.write_text("name: helper\ndescription: two\n")
    changed = await agent("diff", "-f", str(path))

    assert changed.code == 1
    assert changed.out.splitlines() == [
        *("--- helper@1", "+++ helper", "@@ -1,2 +1,2 @@", " name: helper"),
        *("-description: one", "+description: two"),
    ]


async def test_lists_have_names_versions_and_tools(agent: Agent, tmp_path: Path) -> None:
    """Of all agents, and of one agent's versions; a deleted agent is in neither but by name."""
    path = tmp_path / "a.yaml"
    for description in ("one", "two"):
        path.write_text(f"name: helper\ndescription: {description}\ntools: [calculator]\n")
        await agent("apply", "-f", str(path))
    listed = (await agent("list")).out
    assert [line.split()[1:3] for line in listed.splitlines() if "helper" in line] == [["helper", "│"]]
    assert "assistant" in listed
    assert "two" in listed
    assert await agent("delete", "helper") == Outcome(0, "deleted\n", "")
    assert "helper" not in (await agent("list")).out
    assert (await agent("versions", "helper")).out.count("helper") == 2


async def test_errors_are_one_line(agent: Agent, tmp_path: Path) -> None:
    """Of the server, of the file, and of a key that is missing or wrong; none has a traceback or the key."""
    path = tmp_path / "a.yaml"
    path.write_text("name: helper\nmodel: openai/gpt-99\n")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: helper\nweb_search: true\n")
    outcomes = {
        "UNKNOWN_MODEL": await agent("apply", "-f", str(path)),
        "AGENT_NOT_FOUND": await agent("show", "unknown"),
        "web_search": await agent("apply", "-f", str(wrong)),
        "No such file": await agent("apply", "-f", str(tmp_path / "none.yaml")),
        "INVALID_API_KEY": await agent("list", GODOTY_API_KEY=f"gdt_{'0' * 16}_{'A' * 43}"),
        "GODOTY_API_KEY is not set": await agent("list", GODOTY_API_KEY=""),
    }

    for words, outcome in outcomes.items():
        assert outcome.code == 1, words
        assert words in outcome.err
        assert len(outcome.err.splitlines()) == 1, outcome.err
        assert "A" * 43 not in outcome.err
