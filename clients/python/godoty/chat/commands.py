"""The chat's commands: lines that begin with a slash."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from godoty.chat import history, listings
from godoty.chat.formatting import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from godoty.chat.conversation import Conversation

_Run = Callable[["Conversation", str], Awaitable[None]]


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: Its name, with the slash.
        argument: What follows it; in brackets: it may be left out. Empty: nothing.
        effect: What it does.
        run: Does it.
    """

    name: str
    argument: str
    effect: str
    run: _Run

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"{self.name} {self.argument}".strip()

    def takes(self, argument: str) -> bool:
        """Return whether it takes such an argument."""
        if not argument:
            return not self.argument or self.argument.startswith("[")
        return bool(self.argument)


async def execute(line: str, conversation: Conversation) -> bool:
    """Execute a command, or send the line as a message.

    Returns:
        False if the chat should exit.
    """
    conversation.screen.message(line)
    if not is_command(line):
        await conversation.send(line[1:] if line.startswith("//") else line)
        return True
    name, _, argument = line.partition(" ")
    if name in {"/quit", "/exit"}:
        return False
    command = _BY_NAME.get(name)
    if command is None or not command.takes(argument.strip()):
        usage = f"it is {command.usage}" if command is not None else "/help lists the commands"
        conversation.screen.error(f"unknown command {line}: {usage}")
        return True
    await command.run(conversation, argument.strip())
    return True


def is_command(line: str) -> bool:
    """Return whether a line is no message."""
    return line.startswith("/") and not line.startswith("//")


def hints(text: str) -> Sequence[tuple[str, str]]:
    """Return the commands that begin with a text, each with what it does; of a text that is none, nothing."""
    if not is_command(text) or "\n" in text:
        return ()
    if " " in text:
        command = _BY_NAME.get(text.split(" ", maxsplit=1)[0])
        return ((command.usage, command.effect),) if command is not None else ()
    return [(each.name, each.effect) for each in COMMANDS if each.name.startswith(text)]


async def _new(conversation: Conversation, _: str) -> None:
    await conversation.open("")


async def _sessions(conversation: Conversation, _: str) -> None:
    chosen = await listings.pick_session(conversation.client, conversation.screen)
    if chosen is not None:
        await conversation.open(chosen)


async def _cost(conversation: Conversation, _: str) -> None:
    await listings.show_cost(conversation.client, conversation.screen, conversation.session_id)


async def _models(conversation: Conversation, _: str) -> None:
    chosen = await listings.pick_model(conversation.client, conversation.screen)
    if chosen is not None:
        await _model(conversation, chosen)


async def _model(conversation: Conversation, name: str) -> None:
    conversation.model = name or conversation.model
    conversation.screen.line(f"model: {conversation.model or 'the last model of the session, else the default'}")


async def _agent(conversation: Conversation, name: str) -> None:
    chosen = name or await listings.pick_agent(conversation.client, conversation.screen)
    if chosen is None:
        return
    conversation.agent = chosen
    if conversation.begun:  # a session keeps its agent
        await conversation.open("")
    else:
        conversation.screen.line(f"agent: {chosen}")


async def _retry(conversation: Conversation, _: str) -> None:
    await conversation.retry()


async def _edit(conversation: Conversation, text: str) -> None:
    if not text:
        _, last = await conversation.last_message()
        text = await conversation.screen.edit("edit", last) or ""
    if text.strip():
        await conversation.retry(text)


async def _fork(conversation: Conversation, number: str) -> None:
    if not conversation.begun or not (number or "0").isdecimal():
        conversation.screen.error("there is nothing to fork" if not conversation.begun else "/fork takes a number")
        return
    await conversation.fork(int(number or 0))


async def _attach(conversation: Conversation, path: str) -> None:
    await conversation.attach(path)


async def _export(conversation: Conversation, name: str) -> None:
    path = Path(name or f"{conversation.session_id}.md").expanduser()  # noqa: ASYNC240 - it does not block
    if not conversation.begun:
        conversation.screen.error("there is nothing to export")
        return
    try:
        count = await history.export(conversation.client, conversation.session_id, path)
    except OSError as error:
        conversation.screen.error(f"{path}: {error.strerror or error}")
        return
    conversation.screen.line(f"{count_of(count, 'message')} written to {path}")


async def _details(conversation: Conversation, _: str) -> None:
    listings.show_details(conversation.screen, conversation.last)


async def _reasoning(conversation: Conversation, _: str) -> None:
    conversation.show_reasoning = not conversation.show_reasoning
    state = "shown as it arrives" if conversation.show_reasoning else "shown by /details alone"
    conversation.screen.line(f"reasoning is {state}")


async def _approve(conversation: Conversation, _: str) -> None:
    await conversation.find_actions()


async def _help(conversation: Conversation, _: str) -> None:
    rows = [(each.usage, each.effect) for each in COMMANDS]
    conversation.screen.table("", ("command", "effect"), [*rows, *_KEYS])


async def _open(conversation: Conversation, session_id: str) -> None:
    await conversation.open(session_id)


async def _quit(_: Conversation, __: str) -> None:
    """Do nothing: the loop ends."""


COMMANDS = (
    Command("/sessions", "", "pick a session, with its cost", _sessions),
    Command("/open", "ID", "open a session", _open),
    Command("/new", "", "start a new session", _new),
    Command("/cost", "", "show the cost and latency of this session", _cost),
    Command("/models", "", "pick a model, with its prices", _models),
    Command("/model", "[NAME]", "use this model from now on; without NAME, show the present one", _model),
    Command("/agent", "[NAME]", "pick an agent, for a new session", _agent),
    Command("/attach", "FILE", "upload an image or a PDF, which the next message carries", _attach),
    Command("/retry", "", "answer the last message again, in a fork of the session", _retry),
    Command("/edit", "[TEXT]", "send another text in place of the last message, in a fork of the session", _edit),
    Command("/fork", "[NUMBER]", "go on in a fork: of all messages, or of those before one of yours", _fork),
    Command("/details", "", "show the reasoning, the tool calls and the model calls of the last turn", _details),
    Command("/reasoning", "", "show reasoning as it arrives, or not", _reasoning),
    Command("/approve", "", "ask for the approvals that the session waits for", _approve),
    Command("/export", "[FILE]", "write the session to a Markdown file", _export),
    Command("/help", "", "show the commands", _help),
    Command("/quit", "", "exit; also Ctrl-D, or Ctrl-C twice", _quit),
)

_KEYS = (
    ("//text", "send a message that begins with a slash"),
    ("Alt-Enter, Ctrl-J", "begin another line"),
    ("Ctrl-C", "cancel the turn; twice: exit"),
)

_BY_NAME = {each.name: each for each in COMMANDS} | {
    "/metrics": Command("/metrics", "", "show the cost and latency of this session", _cost)
}
