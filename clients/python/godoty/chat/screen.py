"""Output to the terminal: streamed text, lines, tables and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from godoty.chat.formatting import printable, short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.status import Status

_INPUT_WIDTH = 80
_OUTPUT_WIDTH = 120
_PIPE_WIDTH = 400  # a pipe has no width: nothing should be wrapped or truncated


class Screen:
    """Writes streams, lines and tables, each starting on a new line."""

    def __init__(self, console: Console | None = None, errors: Console | None = None) -> None:
        self._console = console or Console()
        self._errors = errors or Console(stderr=True)
        if not self._console.is_terminal:
            self._console.width = _PIPE_WIDTH
        self._midline = False
        self._streaming = ""
        self._status: Status | None = None

    def stream(self, text: str, *, style: str = "") -> None:
        """Write a part of a continuing text; a change of style starts a new line."""
        if not text:
            return
        if style != self._streaming:
            self.end_line()
        else:
            self._stop_status()
        self._console.print(Text(printable(text), style=style), end="", soft_wrap=True)
        self._streaming = style
        self._midline = not text.endswith("\n")

    def wait(self, activity: str) -> None:
        """Show an activity on a terminal until the next output."""
        self.end_line()
        if self._console.is_terminal:
            self._status = self._console.status(Text(activity, style="dim"))
            self._status.start()

    def end_line(self) -> None:
        """End the current line, if it is not empty."""
        self._stop_status()
        if self._midline:
            self._console.print()
        self._midline = False
        self._streaming = ""

    def line(self, text: str, *, style: str = "") -> None:
        """Write a separate line."""
        self.end_line()
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    def tool(self, name: str, arguments: str, outcome: str, *, failed: bool) -> None:
        """Write a tool call as one line."""
        text = f"[{name}] {short(arguments, _INPUT_WIDTH)} → {short(outcome, _OUTPUT_WIDTH)}"
        self.line(short(text, self._console.width), style="red" if failed else "cyan")

    def table(self, title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """Write a table; on a pipe its width is not limited."""
        self.end_line()
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._console.print(table)

    def error(self, text: str) -> None:
        """Write an error as one line to standard error."""
        self.end_line()
        self._errors.print(Text(f"Error: {printable(text)}", style="bold red"), soft_wrap=True)

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
