"""`godoty mcp`: apply, list, show, check and delete a tenant's MCP servers."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import mcp_server_pb2 as pb

from godoty_service.cli.agents.commands import run
from godoty_service.cli.agents.mcp_files import read_servers, to_yaml
from godoty_service.cli.context import out, print_table

if TYPE_CHECKING:
    from godoty_service.cli.agents.client import Connection

mcp_app = typer.Typer(
    help="Manage a tenant's MCP servers by way of a running server: GODOTY_LISTEN, and an API key of the scope agents"
    " in GODOTY_API_KEY; by default those of `godoty dev` in this directory.",
    no_args_is_help=True,
)

Files = Annotated[
    list[Path], typer.Option("-f", "--file", help="A YAML file with one or more MCP servers; repeatable.")
]
Name = Annotated[str, typer.Argument(help="The MCP server's name.")]


@mcp_app.command("apply")
def apply(files: Files) -> None:
    """Create or change MCP servers. `${NAME}` in a secret is an environment variable of this command."""
    servers = [each for path in files for each in read_servers(path)]

    async def work(server: "Connection") -> None:
        for each in servers:
            response = await server.call(server.agents.ApplyMcpServer, pb.ApplyMcpServerRequest(server=each))
            out.print(f"{each.name} {'applied' if response.changed else 'unchanged'}", markup=False)

    run(work)


@mcp_app.command("list")
def list_all() -> None:
    """Print the MCP servers."""

    async def work(server: "Connection") -> None:
        rows = [
            (
                each.name,
                each.url,
                each.prefix,
                " ".join(each.allow),
                " ".join(each.deny),
                each.update_time.ToJsonString(),
            )
            async for each in _servers(server)
        ]
        print_table(("server", "url", "prefix", "allow", "deny", "changed"), rows)

    run(work)


@mcp_app.command("show")
def show(name: Name) -> None:
    """Print an MCP server as YAML, which `apply` reads: without its secrets, which remain stored."""

    async def work(server: "Connection") -> None:
        response = await server.call(server.agents.GetMcpServer, pb.GetMcpServerRequest(mcp_server=name))
        out.print(to_yaml(response.server), markup=False, end="")

    run(work)


@mcp_app.command("check")
def check(name: Name) -> None:
    """Connect to an MCP server and print its tools. Exit status 1: it cannot be used."""
    failed: list[str] = []

    async def work(server: "Connection") -> None:
        found = await server.call(server.agents.CheckMcpServer, pb.CheckMcpServerRequest(mcp_server=name))
        if found.HasField("connect_duration"):
            connect, listed = (each.ToMilliseconds() for each in (found.connect_duration, found.list_duration))
            software = f" ({found.software})" if found.software else ""
            out.print(
                f"MCP {found.protocol_version}{software}: connected in {connect} ms, listed in {listed} ms",
                markup=False,
            )
        if found.problem:
            failed.append(found.problem)
            out.print(found.problem, markup=False)
            return
        print_table(
            ("tool", "offered as", "left out because", "description"),
            [
                (
                    each.name,
                    "" if each.problem else each.offered_name,
                    each.problem,
                    each.description.partition("\n")[0][:80],
                )
                for each in found.tools
            ],
        )
        if found.tools_left_out:
            out.print(f"{found.tools_left_out} more tools are left out.")

    run(work)
    if failed:
        raise typer.Exit(1)


@mcp_app.command("delete")
def delete(name: Name) -> None:
    """Delete an MCP server with its secrets. Agents that name it go on without its tools."""

    async def work(server: "Connection") -> None:
        await server.call(server.agents.DeleteMcpServer, pb.DeleteMcpServerRequest(mcp_server=name))
        out.print("deleted")

    run(work)


async def _servers(server: "Connection") -> AsyncGenerator[pb.McpServer, None]:
    """Yield the MCP servers, by name; pages are requested as needed."""
    request = pb.ListMcpServersRequest()
    while True:
        page = await server.call(server.agents.ListMcpServers, request)
        for each in page.servers:
            yield each
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
