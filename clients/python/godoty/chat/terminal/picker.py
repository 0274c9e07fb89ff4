"""A list from which the user picks a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from godoty.chat.formatting import printable
from godoty.chat.terminal.view import COLUMN_GAP, aligned, column_widths, short_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIN_FIRST = 0.4  # of the width, which the first column has in any case


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
        head = f"{self.title} ({len(self._matching)} of {len(self._rows)})"
        count = max(height - 2, 1)
        first = min(max(self._selected - count // 2, 0), max(len(self._matching) - count, 0))
        shown = self._matching[first : first + count]
        widths = column_widths(self._columns, [self._rows[index] for index in shown])
        rest = width - 2 - sum(each + COLUMN_GAP for each in widths[1:])
        widths[0] = min(widths[0], max(rest, int(width * _MIN_FIRST)))
        lines = [(False, short_line(head, width)), (False, "  " + aligned(self._columns, widths, width - 2))]
        for place, index in enumerate(shown, first):
            chosen = place == self._selected
            row = aligned(self._rows[index], widths, width - 2)
            lines.append((chosen, f"{'>' if chosen else ' '} {row}"))
        return lines
