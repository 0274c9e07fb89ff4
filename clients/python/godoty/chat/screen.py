"""The terminal: what is written to it, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from godoty.chat.words import printable, short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.status import Status

_INPUT_WIDTH = 80
_OUTPUT_WIDTH = 120
_PIPE_WIDTH = 400  # a pipe has no width: nothing is to be folded or cut


class Screen:
    """Writes streams, lines and tables, and keeps them from running into each other."""

    def __init__(self, console: Console | None = None, errors: Console | None = None) -> None:
        self._console = console or Console()
        self._errors = errors or Console(stderr=True)
        if not self._console.is_terminal:
            self._console.width = _PIPE_WIDTH
        self._midline = False
        self._streaming = ""
        self._status: Status | None = None

    def stream(self, text: str, *, style: str = "") -> None:
        """Writes a piece of a text that goes on; another style begins a new line."""
        if not text:
            return
        if style != self._streaming:
            self.end_line()
        else:
            self._stop_waiting()
        self._console.print(Text(printable(text), style=style), end="", soft_wrap=True)
        self._streaming = style
        self._midline = not text.endswith("\n")

    def wait(self, what: str) -> None:
        """Shows on a terminal that something is going on, until something is written."""
        self.end_line()
        if self._console.is_terminal:
            self._status = self._console.status(Text(what, style="dim"))
            self._status.start()

    def end_line(self) -> None:
        """Begins a new line, unless one has begun."""
        self._stop_waiting()
        if self._midline:
            self._console.print()
        self._midline = False
        self._streaming = ""

    def line(self, text: str, *, style: str = "") -> None:
        """Writes a line of its own."""
        self.end_line()
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    def tool(self, name: str, given: str, outcome: str, *, failed: bool) -> None:
        """Writes a tool call: one line."""
        text = f"[{name}] {short(given, _INPUT_WIDTH)} → {short(outcome, _OUTPUT_WIDTH)}"
        self.line(short(text, self._console.width), style="red" if failed else "cyan")

    def table(self, title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """Writes a table; on a pipe it is as wide as it needs to be."""
        self.end_line()
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._console.print(table)

    def error(self, text: str) -> None:
        """Writes an error: one line, to the standard error."""
        self.end_line()
        self._errors.print(Text(f"Error: {printable(text)}", style="bold red"), soft_wrap=True)

    def _stop_waiting(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
