"""`godoty agent`: apply, list, show, compare and delete a tenant's agents."""

import difflib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import agent_definition_service_pb2 as pb
from godoty.v1 import agent_pb2

from godoty_service.cli.agents.files import read_definitions, to_yaml
from godoty_service.cli.context import out, print_table

if TYPE_CHECKING:
    from godoty_service.cli.agents.client import Connection

agent_app = typer.Typer(
    help="Manage a tenant's agents by way of a running server: GODOTY_LISTEN, and an API key of the scope agents in"
    " GODOTY_API_KEY; by default those of `godoty dev` in this directory.",
    no_args_is_help=True,
)

Files = Annotated[
    list[Path], typer.Option("-f", "--file", help="A YAML file with one or more definitions; repeatable.")
]
Name = Annotated[str, typer.Argument(help="The agent's name.")]
Reference = Annotated[str, typer.Argument(help="The agent's name, or name@version.")]


@agent_app.command("apply")
def apply(files: Files) -> None:
    """Make definitions the newest versions of their agents; one that is the newest already changes nothing."""
    definitions = [each for path in files for each in read_definitions(path)]

    async def work(server: "Connection") -> None:
        for each in definitions:
            response = await server.call(server.agents.ApplyAgent, pb.ApplyAgentRequest(definition=each))
            done = "applied" if response.changed else "unchanged"
            out.print(f"{each.name}@{response.agent_version.version} {done}", markup=False)

    run(work)


@agent_app.command("list")
def list_all() -> None:
    """Print the newest version of each agent."""

    async def work(server: "Connection") -> None:
        rows = [_row(each) async for each in _agents(server)]
        print_table(("agent", "version", "applied", "by", "model", "tools", "description"), rows)

    run(work)


@agent_app.command("versions")
def versions(agent: Name) -> None:
    """Print the versions of an agent, newest first; also of a deleted agent."""

    async def work(server: "Connection") -> None:
        rows = [_row(each) async for each in _versions(server, agent)]
        print_table(("agent", "version", "applied", "by", "model", "tools", "description"), rows)

    run(work)


@agent_app.command("show")
def show(agent: Reference) -> None:
    """Print a definition as YAML, which `apply` reads."""

    async def work(server: "Connection") -> None:
        response = await server.call(server.agents.GetAgent, pb.GetAgentRequest(agent=agent))
        version = response.agent_version
        out.print(f"# {version.definition.name}@{version.version}", markup=False)
        out.print(to_yaml(version.definition), markup=False, end="")

    run(work)


@agent_app.command("diff")
def diff(files: Files) -> None:
    """Print how definitions differ from the newest versions of their agents. Exit status 1: one differs."""
    definitions = [each for path in files for each in read_definitions(path)]
    differing: list[str] = []

    async def work(server: "Connection") -> None:
        newest = {each.definition.name: each async for each in _agents(server)}
        for each in definitions:
            old = newest.get(each.name)
            before = to_yaml(old.definition).splitlines() if old is not None else []
            lines = list(
                difflib.unified_diff(
                    before,
                    to_yaml(each).splitlines(),
                    fromfile=f"{each.name}@{old.version}" if old is not None else "none",
                    tofile=each.name,
                    lineterm="",
                )
            )
            if lines:
                differing.append(each.name)
                out.print("\n".join(lines), markup=False)

    run(work)
    if differing:
        raise typer.Exit(1)


@agent_app.command("delete")
def delete(agent: Name) -> None:
    """Hide an agent: no further session begins with it, and those that have it go on. Its versions remain readable."""

    async def work(server: "Connection") -> None:
        await server.call(server.agents.DeleteAgent, pb.DeleteAgentRequest(agent=agent))
        out.print("deleted")

    run(work)


def run(work: "Callable[[Connection], Awaitable[None]]") -> None:
    """Run `work` with a connection to the server."""
    from godoty_service.cli.agents.client import with_connection  # noqa: PLC0415 - the other commands do not need grpc

    with_connection(work)


async def _agents(server: "Connection") -> AsyncGenerator[agent_pb2.AgentVersion, None]:
    """Yield the newest version of each agent; pages are requested as needed."""
    request = pb.ListAgentDefinitionsRequest()
    while True:
        page = await server.call(server.agents.ListAgentDefinitions, request)
        for each in page.agent_versions:
            yield each
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def _versions(server: "Connection", agent: str) -> AsyncGenerator[agent_pb2.AgentVersion, None]:
    """Yield the versions of an agent, newest first; pages are requested as needed."""
    request = pb.ListAgentVersionsRequest(agent=agent)
    while True:
        page = await server.call(server.agents.ListAgentVersions, request)
        for each in page.agent_versions:
            yield each
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _tool_name(tool: agent_pb2.AgentTool) -> str:
    """Return the short name of a tool: the one by which policies allow it, with the version of an agent."""
    match tool.WhichOneof("tool"):
        case "mcp":
            return f"mcp:{tool.mcp.mcp_server}"
        case "agent":
            return f"agent:{tool.agent.agent}"
    return tool.builtin


def _row(version: agent_pb2.AgentVersion) -> tuple[str, int, str, str, str, str, str]:
    definition = version.definition
    applied = version.create_time.ToJsonString() if version.HasField("create_time") else ""
    tools = " ".join(_tool_name(each) for each in definition.tools)
    return (
        *(definition.name, version.version, applied, version.api_key_id, definition.model, tools),
        definition.description,
    )
