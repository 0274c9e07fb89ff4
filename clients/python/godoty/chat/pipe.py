"""Output for pipes and scripts: plain text, or a line of JSON for each turn; nothing is asked."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from godoty.chat.formatting import format_duration, format_totals, printable, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from godoty.chat.turn import TurnRecord
    from godoty.errors import GodotyError
    from godoty.types import Action, ActionResult

_INPUT_WIDTH = 80
_OUTPUT_WIDTH = 120
_PIPE_WIDTH = 400  # a pipe has no width: nothing should be wrapped or cut


class _Silent:
    """Asks nothing and shows nothing."""

    interactive = False

    def stream(self, text: str, *, reasoning: bool = False) -> None:
        """Show nothing."""

    def end_answer(self) -> None:
        """Show nothing."""

    def activity(self, text: str) -> None:
        """Show nothing: there is no place for what passes."""

    def line(self, text: str, *, style: str = "") -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""

    def tool(self, name: str, arguments: str, output: str, *, failed: bool, duration: timedelta | None = None) -> None:
        """Show nothing."""

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Show nothing."""

    async def pick(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
        """Show the rows."""
        self.table(title, columns, rows)
        return None

    async def edit(self, label: str, text: str) -> str | None:
        """Return nothing."""
        del label, text
        return None

    async def decide(self, action: Action) -> ActionResult | None:
        """Leave the action open."""
        del action
        return None


class PlainScreen(_Silent):
    """Writes text: each line, table and answer starts on a new line."""

    def __init__(self, console: Console | None = None, errors: Console | None = None) -> None:
        self._console = console or Console()
        self._errors = errors or Console(stderr=True)
        if not self._console.is_terminal:
            self._console.width = _PIPE_WIDTH
        self._midline = False

    def stream(self, text: str, *, reasoning: bool = False) -> None:
        """Write a part of a continuing text."""
        if not text:
            return
        self._console.print(Text(printable(text), style="dim" if reasoning else ""), end="", soft_wrap=True)
        self._midline = not text.endswith("\n")

    def end_answer(self) -> None:
        """End the current line, if it is not empty."""
        if self._midline:
            self._console.print()
        self._midline = False

    def line(self, text: str, *, style: str = "") -> None:
        """Write a separate line."""
        self.end_answer()
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    def message(self, text: str) -> None:
        """Write a message of the user."""
        self.line(f"> {text}", style="bold")

    def tool(self, name: str, arguments: str, output: str, *, failed: bool, duration: timedelta | None = None) -> None:
        """Write a tool call as one line."""
        outcome = "" if duration is None else f"{'failed' if failed else 'ok'} in {format_duration(duration)}: "
        text = f"[{name}] {short(arguments, _INPUT_WIDTH)} → {short(outcome + output, _OUTPUT_WIDTH)}"
        self.line(short(text, self._console.width), style="red" if failed else "cyan")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table; on a pipe its width is not limited."""
        self.end_answer()
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._console.print(table)

    def error(self, text: str) -> None:
        """Write an error as one line to standard error."""
        self.end_answer()
        self._errors.print(Text(f"Error: {printable(text)}", style="bold red"), soft_wrap=True)

    def turn(self, record: TurnRecord) -> None:
        """Write what the turn has cost."""
        end = record.finished
        if end is not None:
            turn, session = format_totals(end.turn_totals, turns=False), format_totals(end.session_totals)
            models = [", ".join(record.models)] if record.models else []
            self.line(" | ".join([f"turn: {turn}", f"session: {session}", *models]), style="green")


class JsonScreen(_Silent):
    """Writes one JSON object for each turn, with the names of the contract."""

    def error(self, text: str) -> None:
        """Write an error that is none of a call."""
        self._write({"error": {"message": text}})

    def failure(self, error: GodotyError, advice: str) -> None:
        """Write the error of a call."""
        named = {"reason": error.reason or error.code.name, "message": error.message, "metadata": error.metadata}
        self._write({"error": named | {"advice": advice}})

    def turn(self, record: TurnRecord) -> None:
        """Write what the turn has answered, and what it has cost."""
        end = record.finished
        if end is None:
            return
        self._write(
            {
                "session_id": record.session_id,
                "turn_id": record.turn_id,
                "text": "".join(record.text),
                "stop_reason": end.stop_reason,
                "output_json": end.output_json,
                "turn_totals": end.turn_totals,
                "session_totals": end.session_totals,
                "model_calls": record.calls,
                "tool_calls": [
                    {"name": each.started.name, "input_json": each.started.input_json}
                    | ({"status": each.finished.status, "output": each.finished.output} if each.finished else {})
                    for each in record.tools.values()
                ],
                "citations": list(record.sources.values()),
                "actions": record.actions,
            }
        )

    def _write(self, value: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(value, default=as_json) + "\n")
        sys.stdout.flush()


def as_json(value: object) -> object:
    """Return a value of the client for `json.dumps`: amounts as texts, durations in seconds, no fields that are unset.

    Raises:
        TypeError: It has no JSON.
    """
    if is_dataclass(value) and not isinstance(value, type):
        own = {each.name: getattr(value, each.name) for each in fields(value)}
        return {name: each for name, each in own.items() if each is not None}
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.name
    raise TypeError(f"{type(value).__name__} has no JSON")
