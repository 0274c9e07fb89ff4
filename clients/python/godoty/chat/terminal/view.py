"""What the chat shows, as renderables, and the text with escape sequences that a terminal gets of them.

All that is shown passes `Painter.paint`: no control character of a model, a tool or a user reaches the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from godoty.chat.formatting import format_duration, printable, short
from godoty.chat.terminal.markdown import BlockText

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from rich.color import ColorSystem

    from godoty.chat.terminal.blocks import Block
    from godoty.types import ActionResult

_PROSE_WIDTH = 100  # columns: longer lines are hard to read
_MESSAGE_LINES = 30  # of a user's message that are shown
_MESSAGE_SIZE = 4000  # characters of it
_INPUT_SHARE = 0.5  # of the line of a tool call
COLUMN_GAP = 2
_THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.block_quote": "italic",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.h5": "bold",
        "markdown.h6": "bold",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.hr": "dim",
        "markdown.link": "bold",
        "markdown.link_url": "blue",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)


class Painter:
    """Renders to text with escape sequences, of styles alone.

    Args:
        console: Decides on colours.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(force_terminal=True)
        self._console.push_theme(_THEME)

    def paint(self, renderable: RenderableType, width: int) -> str:
        """Return the lines of a renderable, at most `width` columns wide, without empty ones around them."""
        width = max(width, 1)
        options = self._console.options.update(width=width, height=None)
        lines = [self._line(line) for line in Segment.split_lines(self._console.render(renderable, options))]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            del lines[0]
        return "\n".join(lines)

    def _line(self, segments: Iterable[Segment]) -> str:
        pieces = [(printable(each.text), each.style or Style.null()) for each in segments if not each.control]
        while pieces and not _is_visible(pieces[-1][1]):
            text, style = pieces.pop()
            if text := text.rstrip():
                pieces.append((text, style))
                break
        return "".join(self._styled(text, style) for text, style in pieces)

    def _styled(self, text: str, style: Style) -> str:
        if self._console.no_color:
            style = style.without_color
        if style.link:
            style = style.update_link(None)
        return style.render(text, color_system=self._color_system)

    @property
    def _color_system(self) -> ColorSystem | None:
        return self._console._color_system  # noqa: SLF001 - its public name is a text, which Style does not take


def answer(block: Block) -> RenderableType:
    """Return a block of an answer."""
    text = BlockText(block.text)
    wide = any(token.type in {"fence", "table_open"} for token in text.parsed)
    return text if wide else Constrain(text, _PROSE_WIDTH)


def reasoning(block: Block) -> RenderableType:
    """Return a block of the model's reasoning."""
    return Padding(Constrain(Text(block.text, style="dim italic"), _PROSE_WIDTH), (0, 0, 0, 2), expand=False)


def message(text: str) -> RenderableType:
    """Return a message of the user; a long one is cut."""
    lines = printable(text).split("\n")
    begin = "\n".join(lines[:_MESSAGE_LINES])
    shown = Text(begin[:_MESSAGE_SIZE], style="bold", overflow="fold")
    if len(begin) > _MESSAGE_SIZE:
        shown.append(f"… {len(text):,} characters in all", style="not bold dim")
    elif len(lines) > _MESSAGE_LINES:
        shown.append(f"\n… {len(lines) - _MESSAGE_LINES} more lines", style="not bold dim")
    grid = Table.grid()
    grid.add_column(width=2)
    grid.add_column(overflow="fold")
    grid.add_row(Text("> ", style="bold green"), shown)
    return grid


def line(text: str, style: str) -> RenderableType:
    """Return a line, which is wrapped."""
    return Text(printable(text), style=style, overflow="fold")


def action(title: str, input_json: str) -> RenderableType:
    """Return what the user is asked to approve."""
    shown = Text(printable(input_json), overflow="fold")
    return Group(line(title, "bold yellow"), Padding(shown, (0, 0, 0, 2), expand=False))


def decision(result: ActionResult) -> str:
    """Return what the user has decided."""
    if result.approve is not None:
        return f"approved with another input: {result.approve.input_json}" if result.approve.input_json else "approved"
    if result.deny is not None:
        return f"denied: {result.deny.why}" if result.deny.why else "denied"
    return "answered"


class ToolLine:
    """A tool call on one line."""

    def __init__(
        self, name: str, arguments: str, output: str, *, failed: bool, duration: timedelta | None = None
    ) -> None:
        self._name = short(name, 64)
        self._arguments = arguments
        self._output = output
        self._time = "" if duration is None else f", {format_duration(duration)}"
        self._failed = failed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the line, in as many columns as there are."""
        width = options.max_width
        mark, arrow = ("✗ ", " → ") if self._failed else ("✓ ", " → ")
        left = max(width - cell_len(mark + self._name + " " + arrow + self._time), 2)
        arguments = short(self._arguments, max(int(left * _INPUT_SHARE), left - cell_len(short(self._output, left))))
        output = short(self._output, max(left - cell_len(arguments), 1))
        text = Text(mark, style="red" if self._failed else "green")
        text.append(self._name, style="bold")
        text.append(f" {arguments}", style="dim")
        text.append(f"{arrow}{output}")
        text.append(self._time, style="dim")
        text.truncate(width, overflow="ellipsis")
        text.no_wrap = True
        yield text


class Rows:
    """A table, or a list of its rows where it does not fit."""

    def __init__(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self._title = printable(title)
        self._columns = columns
        self._rows = [[printable(cell) for cell in row] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title and the rows."""
        width = options.max_width
        if self._title:
            yield Text(self._title, style="bold")
        widths = column_widths(self._columns, self._rows)
        if sum(widths) + COLUMN_GAP * len(widths) <= width:
            yield self._table()
        else:
            yield from (self._stacked(row) for row in self._rows)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, COLUMN_GAP, 0, 0), header_style="dim")
        for column in self._columns:
            table.add_column(Text(column))
        for row in self._rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def _stacked(self, row: Sequence[str]) -> RenderableType:
        first, *others = row
        rest = ", ".join(f"{column}: {cell}" for column, cell in zip(self._columns[1:], others, strict=False) if cell)
        return Group(
            Text(first, style="bold", overflow="fold"), Padding(Text(rest, overflow="fold"), (0, 0, 0, 2), expand=False)
        )


def column_widths(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[int]:
    """Return the columns' widths on a terminal."""
    widths = [cell_len(column) for column in columns]
    for row in rows:
        widths = [max(width, cell_len(cell)) for width, cell in zip(widths, row, strict=False)]
    return widths


def aligned(row: Sequence[str], widths: Sequence[int], width: int) -> str:
    """Return a row as one line of at most `width` columns."""
    cells = [set_cell_size(short_line(cell, size), size) for cell, size in zip(row, widths, strict=False)]
    return short_line((" " * COLUMN_GAP).join(cells).rstrip(), width)


def short_line(text: str, width: int) -> str:
    """Return a line cut to a width, with its spaces."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"


def _is_visible(style: Style) -> bool:
    """Return whether spaces of a style can be seen."""
    colored = style.bgcolor is not None and not style.bgcolor.is_default
    return colored or bool(style.underline or style.reverse)
