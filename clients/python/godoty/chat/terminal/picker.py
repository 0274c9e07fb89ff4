"""A list from which the user picks a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from godoty.chat.formatting import printable
from godoty.chat.terminal.view import aligned, column_widths

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_FIRST = 0.5  # of the width, for the first column


class Picker:
    """The rows that match what was typed, of which one is selected.

    Args:
        title: What is picked.
        columns: The names of the columns, the most important ones first.
        rows: The rows.
    """

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title = printable(title)
        self._columns = columns
        self._rows = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
        self._widths = column_widths(columns, self._rows)
        self._matching = list(range(len(rows)))
        self._selected = 0

    @property
    def selected(self) -> int | None:
        """The index of the selected row. None: no row matches."""
        return self._matching[self._selected] if self._matching else None

    def filter(self, text: str) -> None:
        """Show the rows that contain each of the words."""
        words = text.lower().split()
        self._matching = [
            index for index, row in enumerate(self._rows) if all(word in " ".join(row).lower() for word in words)
        ]
        self._selected = 0

    def move(self, steps: int) -> None:
        """Select another row; the ends stop it."""
        self._selected = min(max(self._selected + steps, 0), max(len(self._matching) - 1, 0))

    def lines(self, width: int, height: int) -> list[tuple[bool, str]]:
        """Return the lines, the head first, each with whether it is the selected row."""
        widths = [min(self._widths[0], max(int(width * _MAX_FIRST), 8)), *self._widths[1:]]
        head = f"{self.title} ({len(self._matching)} of {len(self._rows)})"
        shown = max(height - 2, 1)
        first = min(max(self._selected - shown // 2, 0), max(len(self._matching) - shown, 0))
        lines = [
            (False, aligned([head], [len(head)], width)),
            (False, "  " + aligned(self._columns, widths, width - 2)),
        ]
        for place in range(first, min(first + shown, len(self._matching))):
            chosen = place == self._selected
            row = aligned(self._rows[self._matching[place]], widths, width - 2)
            lines.append((chosen, f"{'>' if chosen else ' '} {row}"))
        return lines
