"""The chat's main loop: one operation at a time; Ctrl-C cancels it without ending the chat."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any, Self, TypeVar

from godoty.chat import prompt
from godoty.chat.advice import advise
from godoty.chat.commands import execute
from godoty.chat.conversation import Conversation
from godoty.client import AsyncGodoty
from godoty.errors import GodotyError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from godoty.chat.screen import Screen

_T = TypeVar("_T")

OK = 0
FAILED = 1
INTERRUPTED = 130  # the shells' exit code of a program ended by Ctrl-C
_CONNECT_TIMEOUT = 3.0  # seconds until a user is shown that no server answers


class Terminal:
    """A chat with one server.

    During an operation `asyncio.Runner` turns Ctrl-C into its cancellation; at the prompt, Ctrl-C raises
    KeyboardInterrupt.

    Raises:
        ValueError: The key is empty or cannot be sent.
    """

    def __init__(self, screen: Screen, target: str, api_key: str, *, tls: bool | None) -> None:
        self._screen = screen
        self._target = target
        self._runner = asyncio.Runner()
        self._client = self._runner.run(_connect(target, api_key, tls=tls))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not end the exit with a traceback
        with self._runner:
            self._runner.run(self._client.close())

    def send_once(self, text: str, **wanted: Any) -> int:
        """Send one message in a `Conversation` as it is wanted; return the exit code."""
        conversation = Conversation(self._client, self._screen, **wanted)
        return self._run(conversation.send(text))[0]

    def run_loop(self, *, session_id: str, **wanted: Any) -> int:
        """Open a session and execute the user's lines until the chat is closed; return the exit code."""
        conversation = Conversation(self._client, self._screen, session_id=session_id, **wanted)
        code, _ = self._run(conversation.open(session_id))
        if code != OK:
            return code
        if sys.stdin.isatty():
            self._screen.line("/help lists the commands.", style="dim")
        for line in prompt.lines(self._screen):
            line_code, keep_running = self._run(execute(line, conversation, self._screen))
            code = code or line_code
            if keep_running is False:
                break
        return OK if sys.stdin.isatty() else code

    def _run(self, work: Coroutine[Any, Any, _T]) -> tuple[int, _T | None]:
        try:
            return OK, self._runner.run(work)
        except KeyboardInterrupt:
            self._screen.line("Cancelled. /metrics shows the cost so far.", style="yellow")
            return INTERRUPTED, None
        except GodotyError as error:
            self._screen.error(advise(error, target=self._target))
            return FAILED, None


async def _connect(target: str, api_key: str, *, tls: bool | None) -> AsyncGodoty:
    return AsyncGodoty(
        target, api_key, tls=tls, connect_timeout=_CONNECT_TIMEOUT
    )  # gRPC binds the channel to the running loop
