"""The chat's commands: lines that begin with a slash."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from godoty.chat.conversation import Conversation
    from godoty.chat.screen import Screen

HELP = (
    ("/sessions", "list the most recent sessions"),
    ("/open ID", "open a session"),
    ("/new", "start a new session"),
    ("/metrics", "show the cost and latency of this session"),
    ("/model NAME", "use this model from now on; without NAME, show the current one"),
    ("/attach FILE", "upload an image or a PDF, which the next message carries"),
    ("/retry", "answer the last message again, in a fork of the session"),
    ("/edit TEXT", "send TEXT in place of the last message, in a fork of the session"),
    ("/help", "show the commands"),
    ("/quit", "exit; also Ctrl-D, or Ctrl-C at the prompt"),
    ("//text", "send a message that begins with a slash"),
)


async def execute(line: str, conversation: Conversation, screen: Screen) -> bool:
    """Execute a command, or send the line as a message.

    Returns:
        False if the chat should exit.
    """
    if not line.startswith("/") or line.startswith("//"):
        await conversation.send(line.removeprefix("/") if line.startswith("//") else line)
        return True
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    match command:
        case "/quit" | "/exit":
            return False
        case "/sessions" | "/metrics":
            await {"/sessions": conversation.show_sessions, "/metrics": conversation.show_metrics}[command]()
        case "/new":
            await conversation.open("")
        case "/open" if argument:
            await conversation.open(argument)
        case "/attach" if argument:
            await conversation.attach(argument)
        case "/retry" | "/edit" if bool(argument) == (command == "/edit"):
            await conversation.retry(argument)
        case "/model":
            conversation.model = argument or conversation.model
            screen.line(f"model: {conversation.model or 'the last model of the session, else the default'}")
        case "/help":
            screen.table("", ("command", "effect"), HELP)
        case _:
            screen.error(f"unknown command {line}: /help lists the commands")
    return True
