"""The chat on a pseudo-terminal, whose screen is emulated."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from typing import TYPE_CHECKING, Self

import pyte

from tests.clients.programs import CHAT, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

_TIMEOUT = 180.0  # seconds: a busy machine is slow
_HISTORY = 5000  # lines


class PseudoTerminal:
    """Runs the chat, types into it, and waits for what its screen shows.

    Attributes:
        output: All bytes that the program has written.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, columns: int, rows: int = 40
    ) -> None:
        self._arguments = arguments
        self._environment = environment
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self._screen = pyte.HistoryScreen(columns, rows, history=_HISTORY, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = asyncio.Event()
        self._keyboard = -1
        self._program: Program | None = None
        self.output = b""

    async def __aenter__(self) -> Self:
        self._keyboard, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, self._size)
        self._program = Program(
            CHAT, *self._arguments, environment=self._environment, streams=(terminal, terminal, terminal)
        )
        os.close(terminal)
        os.set_blocking(self._keyboard, False)
        asyncio.get_running_loop().add_reader(self._keyboard, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._keyboard)
        if self._program is not None:
            self._program.process.kill()
            await self._program.wait()
        os.close(self._keyboard)

    @property
    def rows(self) -> list[str]:
        """The rows of the screen."""
        return [row.rstrip() for row in self._screen.display]

    @property
    def lines(self) -> list[str]:
        """The lines that have scrolled away, and the rows of the screen."""
        columns = self._screen.columns
        above = ["".join(row[column].data for column in range(columns)).rstrip() for row in self._screen.history.top]
        return above + self.rows

    @property
    def text(self) -> str:
        """All lines as one, each run of spaces as one."""
        return " ".join(" ".join(self.lines).split())

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._keyboard, text.encode())

    def paste(self, text: str) -> None:
        """Paste as a terminal does that was asked for marks around it."""
        assert b"\x1b[?2004h" in self.output
        self.type(f"\x1b[200~{text}\x1b[201~")

    async def sees(self, *texts: str, times: int = 1) -> None:
        """Wait until each of the texts was shown a number of times, however it is wrapped."""
        await self._until(lambda: all(self.text.count(text) >= times for text in texts), f"{texts}")

    async def shows(self, *texts: str) -> None:
        """Wait until each of the texts is on the screen now."""
        await self._until(lambda: all(text in " ".join(" ".join(self.rows).split()) for text in texts), f"{texts}")

    async def is_ready(self) -> None:
        """Wait until the user is asked for a message."""
        await self._until(lambda: any(row == ">" for row in self.rows), "the prompt")

    async def leaves(self) -> int:
        """Wait until the program has ended, and return its exit code."""
        assert self._program is not None
        return await self._program.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._keyboard, 65_536)
        except OSError:  # the program has ended
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._keyboard)
        self.output += data
        self._stream.feed(data)
        self._changed.set()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not come:\n" + "\n".join(self.lines)) from None
