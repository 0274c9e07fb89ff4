"""The command line of the chat."""

from __future__ import annotations

from typing import Annotated

import typer

from godoty.chat.screen import Screen
from godoty.chat.settings import DEFAULT_LISTEN, DEV_ENV, dialled, read_env_file
from godoty.chat.terminal import Terminal

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)  # its tracebacks show locals: the key


@app.command()
def chat(
    *,
    session: Annotated[
        str,
        typer.Option(help="The session to open: it goes on where it was left, and is made when it is new."),
    ] = "chat",
    model: Annotated[
        str, typer.Option(help="The model to ask. Without it the one that the session used last, else the default.")
    ] = "",
    target: Annotated[
        str,
        typer.Option(envvar="GODOTY_LISTEN", help=f"The server, HOST:PORT. Else {DEV_ENV}, else {DEFAULT_LISTEN}."),
    ] = "",
    api_key: Annotated[
        str, typer.Option(envvar="GODOTY_API_KEY", help=f"The API key; better told by the variable. Else {DEV_ENV}.")
    ] = "",
    plaintext: Annotated[
        bool,
        typer.Option("--plaintext", help="Speak plain text to another machine, too. The key can be read on the way."),
    ] = False,
    history: Annotated[int, typer.Option(min=0, help="How many messages of an earlier session to show.")] = 40,
    once: Annotated[str | None, typer.Option(metavar="TEXT", help="Say this, show the answer and leave.")] = None,
) -> None:
    """Talk to an agent, and see what it costs.

    Without --session the session "chat" is opened, so the conversation goes on from one start to the next;
    /sessions, /open and /new go elsewhere. Each line of a pipe is a turn.
    """
    known = read_env_file(DEV_ENV)
    target = dialled(target or known.get("GODOTY_LISTEN") or DEFAULT_LISTEN)
    api_key = api_key or known.get("GODOTY_API_KEY", "")
    screen = Screen()
    if not api_key:
        screen.error(f"there is no API key: set GODOTY_API_KEY, or start `make run`, which writes {DEV_ENV}")
        raise typer.Exit(2)
    try:
        terminal = Terminal(screen, target, api_key, tls=False if plaintext else None)
    except ValueError as error:
        screen.error(str(error))
        raise typer.Exit(2) from None
    with terminal:
        if once is None:
            code = terminal.talk(session_id=session, model=model, history=history)
        else:
            code = terminal.say(once, session_id=session, model=model)
    raise typer.Exit(code)
