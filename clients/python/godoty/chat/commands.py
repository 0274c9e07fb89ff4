"""What can be typed beside a text: lines that begin with a slash."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from godoty.chat.conversation import Conversation
    from godoty.chat.screen import Screen

HELP = (
    ("/sessions", "list the sessions used last"),
    ("/open ID", "go to a session"),
    ("/new", "begin a new session"),
    ("/metrics", "show what this session has cost"),
    ("/model NAME", "ask this model from now on; without NAME, say which one is asked"),
    ("/help", "show this"),
    ("/quit", "leave; so do Ctrl-D, and Ctrl-C at the prompt"),
    ("//text", "say a text that begins with a slash"),
)


async def execute(line: str, conversation: Conversation, screen: Screen) -> bool:
    """Does what a line asks for.

    Returns:
        Whether the conversation goes on.
    """
    if not line.startswith("/") or line.startswith("//"):
        await conversation.say(line.removeprefix("/") if line.startswith("//") else line)
        return True
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    match command:
        case "/quit" | "/exit":
            return False
        case "/sessions":
            await conversation.show_sessions()
        case "/metrics":
            await conversation.show_metrics()
        case "/new":
            await conversation.open("")
        case "/open" if argument:
            await conversation.open(argument)
        case "/model":
            conversation.model = argument or conversation.model
            screen.line(f"model: {conversation.model or 'the one that the session used last, else the default'}")
        case "/help":
            screen.table("", ("type", "to"), HELP)
        case _:
            screen.error(f"there is no {line}: /help lists what there is")
    return True
