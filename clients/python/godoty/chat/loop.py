"""The chat's main loop: one piece of work at a time, which Ctrl-C cancels without ending the chat."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from godoty.chat.advice import advise
from godoty.chat.commands import execute, hints
from godoty.chat.conversation import Conversation
from godoty.chat.pipe import JsonScreen
from godoty.chat.status import Status, wrapped
from godoty.client import AsyncGodoty
from godoty.errors import GodotyError

if TYPE_CHECKING:
    from godoty.chat.pipe import PlainScreen

OK = 0
FAILED = 1
INTERRUPTED = 130  # the shells' exit code of a program ended by Ctrl-C
_CONNECT_TIMEOUT = 3.0  # seconds until a user is shown that no server answers

_T = TypeVar("_T")


@dataclass(frozen=True)
class Server:
    """A server, and the key for it.

    Attributes:
        disconnect_grace: Seconds in which a lost connection is made again, and a turn runs on without the chat.
    """

    target: str
    api_key: str
    tls: bool | None
    disconnect_grace: float

    def connect(self) -> AsyncGodoty:
        """Return a client.

        Raises:
            ValueError: The key is empty or cannot be sent.
        """
        return AsyncGodoty(
            self.target,
            self.api_key,
            tls=self.tls,
            disconnect_grace=self.disconnect_grace,
            connect_timeout=_CONNECT_TIMEOUT,
        )

    def advise(self, error: GodotyError | ValueError) -> str:
        """Return one line with the error and the advice."""
        return advise(error, target=self.target) if isinstance(error, GodotyError) else str(error)


async def run_script(server: Server, screen: PlainScreen | JsonScreen, once: str | None, **wanted: Any) -> int:
    """Send one message, or each line of standard input, and return the exit code.

    Raises:
        ValueError: The key is empty or cannot be sent.
    """
    async with server.connect() as client:
        conversation = Conversation(client, screen, Status(), **wanted)
        if once is not None:
            return await _attempt(conversation.send(once), server, screen)
        if isinstance(screen, JsonScreen):
            return await _run_lines(conversation, server, screen, conversation.send)
        code = await _attempt(conversation.open(conversation.session_id), server, screen)
        if code != OK:
            return code
        return await _run_lines(conversation, server, screen, lambda line: execute(line, conversation))


async def _run_lines(
    conversation: Conversation,
    server: Server,
    screen: PlainScreen | JsonScreen,
    send: Callable[[str], Awaitable[bool | None]],
) -> int:
    code = OK
    async for line in _lines_of_input():
        ended: list[bool | None] = []

        async def work(text: str = line.strip(), ended: list[bool | None] = ended) -> None:
            ended.append(await send(text))

        code = await _attempt(work(), server, screen) or code
        if ended == [False]:
            break
    await conversation.leave()
    return code


async def _lines_of_input() -> AsyncIterator[str]:
    """Yield the lines of standard input that are not blank. Reading is left behind when the program ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()
    wanted = threading.Semaphore()  # one line is read ahead

    def read() -> None:
        with suppress(RuntimeError):  # the program has ended
            for line in itertools.chain(sys.stdin, [""]):
                wanted.acquire()
                loop.call_soon_threadsafe(lines.put_nowait, line)

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        wanted.release()
        if line.strip():
            yield line


async def _attempt(work: Awaitable[Any], server: Server, screen: PlainScreen | JsonScreen) -> int:
    try:
        await work
    except (GodotyError, ValueError) as error:  # ValueError: what cannot be sent
        if isinstance(screen, JsonScreen) and isinstance(error, GodotyError):
            screen.failure(error, server.advise(error))
        else:
            screen.error(server.advise(error))
        return FAILED
    return OK


class TerminalChat:
    """A chat with a person.

    Args:
        server: The server.
        wanted: The arguments of the conversation.
    """

    def __init__(self, server: Server, **wanted: Any) -> None:
        from godoty.chat.terminal.input import Input  # noqa: PLC0415 - scripts need no prompt_toolkit
        from godoty.chat.terminal.screen import TerminalScreen  # noqa: PLC0415 - the same

        self._server = server
        self._wanted = wanted
        self._status = Status()
        self._input = Input(
            status=lambda width: wrapped(self._status.parts(), width),
            interrupt=self.interrupt,
            leave=self.leave,
            hints=hints,
        )
        self._screen = TerminalScreen(self._input, self._status)
        self._work: asyncio.Task[Any] | None = None
        self._interrupted = False
        self._left = asyncio.Event()

    def interrupt(self) -> None:
        """Cancel what runs; the second time, end the chat."""
        if self._interrupted:
            self.leave()
        elif self._work is not None:
            self._interrupted = True
            self._work.cancel()

    def leave(self) -> None:
        """End the chat."""
        self._left.set()
        if self._work is not None:
            self._work.cancel()

    async def run(self) -> int:
        """Chat until the user leaves; return the exit code.

        Raises:
            ValueError: The key is empty or cannot be sent.
        """
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP"):
            with suppress(NotImplementedError, AttributeError):  # Windows
                loop.add_signal_handler(getattr(signal, name), self.leave)
        async with self._server.connect() as client, self._shown() as ended:
            conversation = Conversation(client, self._screen, self._status, **self._wanted)
            talking = asyncio.create_task(self._talk(conversation))
            leaving = asyncio.create_task(self._left.wait())
            await asyncio.wait({talking, leaving, *ended}, return_when=asyncio.FIRST_COMPLETED)
            talking.cancel()
            leaving.cancel()
            await asyncio.wait({talking, leaving})
            await conversation.leave()
            for task in ended:
                if task.done():
                    with suppress(EOFError):  # the terminal has gone
                        task.result()
            return OK if talking.cancelled() else talking.result()

    @asynccontextmanager
    async def _shown(self) -> AsyncIterator[set[asyncio.Task[None]]]:
        """Show the screen; yield the tasks that show it."""
        reading = asyncio.create_task(self._input.run())
        writing = asyncio.create_task(self._screen.run())
        try:
            yield {reading, writing}
        finally:
            writing.cancel()
            await asyncio.wait({writing})
            self._screen.flush()
            self._input.close()
            await asyncio.wait({reading})

    async def _talk(self, conversation: Conversation) -> int:
        code, _ = await self._attempt(conversation, conversation.open(conversation.session_id))
        self._interrupted = False
        if code == FAILED:
            return code
        self._input.remember(conversation.messages)
        self._screen.line("/help lists the commands.", style="dim")
        while not self._left.is_set():
            await self._screen.drain()
            line = await self._input.message(leaves=self._interrupted)
            self._interrupted = False
            if line is None:
                break
            _, keep_running = await self._attempt(conversation, execute(line.strip(), conversation))
            if keep_running is False:
                break
        return OK

    async def _attempt(self, conversation: Conversation, work: Awaitable[_T]) -> tuple[int, _T | None]:
        """Do a piece of work; show its failure, and that it was cancelled."""
        self._work = asyncio.ensure_future(work)
        try:
            await asyncio.wait({self._work})
            return OK, self._work.result()
        except asyncio.CancelledError:
            if not self._work.cancelled():  # the chat itself is left
                raise
        except (GodotyError, ValueError) as error:  # ValueError: what cannot be sent
            self._screen.error(self._server.advise(error))
            return FAILED, None
        finally:
            self._work = None
        if not self._left.is_set():
            await self._attempt(conversation, conversation.show_cancelled())
        return INTERRUPTED, None
