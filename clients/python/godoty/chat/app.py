"""The command line of the chat."""

from __future__ import annotations

import asyncio
import io
import sys
from typing import Annotated, Any

import typer

from godoty.chat.loop import INTERRUPTED, Server, TerminalChat, run_script
from godoty.chat.pipe import JsonScreen, PlainScreen
from godoty.chat.settings import DEV_ENV, read_env_file
from godoty.environment import DEFAULT_LISTEN, dial_address

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)  # its tracebacks show locals: the key


@app.command()
def chat(
    *,
    session: Annotated[str, typer.Option(help="The session to continue; it is created if it does not exist.")] = "chat",
    model: Annotated[
        str, typer.Option(help="The model; by default the agent's, the session's last model, or the server's default.")
    ] = "",
    agent: Annotated[
        str, typer.Option(help="The agent of new sessions, by name or name@version; default: assistant.")
    ] = "",
    variable: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable of the agent's prompt; repeatable.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            envvar="GODOTY_LISTEN", help=f"The server, HOST:PORT; by default from {DEV_ENV}, else {DEFAULT_LISTEN}."
        ),
    ] = "",
    api_key: Annotated[
        str, typer.Option(envvar="GODOTY_API_KEY", help=f"The API key; prefer the variable. By default from {DEV_ENV}.")
    ] = "",
    plaintext: Annotated[
        bool,
        typer.Option("--plaintext", help="Use plain text for another machine too; the key can be read on the network."),
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            max=600,
            metavar="SECONDS",
            help="How long a lost connection is made again, and a turn runs on without the chat.",
        ),
    ] = 60.0,
    history: Annotated[int, typer.Option(min=0, help="Number of earlier messages to show.")] = 40,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Show the model's reasoning as it arrives.")] = False,
    once: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Send this message, print the answer and exit; - is standard input."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each turn; each line of a pipe is a message.")
    ] = False,
) -> None:
    """Chat with an agent, with the cost of each turn.

    By default the session "chat" is continued on each start; /sessions, /open and /new switch sessions. With a pipe
    as input each line is a turn or a command.
    """
    server = _server(target, api_key, tls=False if plaintext else None, grace=grace)
    wanted: dict[str, Any] = {
        "session_id": session,
        "model": model,
        "agent": agent,
        "variables": {name: value for name, _, value in (each.partition("=") for each in variable or ())},
        "history": history,
        "show_reasoning": reasoning,
    }
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        if once is None and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
            code = asyncio.run(TerminalChat(server, **wanted).run())
        else:
            screen = JsonScreen() if as_json else PlainScreen()
            text = sys.stdin.read() if once == "-" else once
            code = asyncio.run(run_script(server, screen, text, **wanted))
    except ValueError as error:
        PlainScreen().error(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        code = INTERRUPTED
    raise typer.Exit(code)


def _server(target: str, api_key: str, *, tls: bool | None, grace: float) -> Server:
    """Return the server; complete the settings from the development environment file."""
    dev_env = read_env_file(DEV_ENV)
    target = dial_address(target or dev_env.get("GODOTY_LISTEN") or DEFAULT_LISTEN)
    api_key = api_key or dev_env.get("GODOTY_API_KEY", "")
    if not api_key:
        PlainScreen().error(f"no API key: set GODOTY_API_KEY, or start `make run`, which writes {DEV_ENV}")
        raise typer.Exit(2)
    return Server(target, api_key, tls, grace)
