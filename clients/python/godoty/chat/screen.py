"""Where the output of the chat goes, and where answers to its questions come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from godoty.chat.turn import TurnRecord
    from godoty.types import Action, ActionResult


class Screen(Protocol):
    """A terminal, a pipe, or lines of JSON."""

    @property
    def interactive(self) -> bool:
        """Whether questions can be asked."""

    def stream(self, text: str, *, reasoning: bool = False) -> None:
        """Show a part of an answer, or of the model's reasoning."""

    def end_answer(self) -> None:
        """End the answer or the reasoning: what follows is shown apart from it."""

    def activity(self, text: str) -> None:
        """Show what a turn does, until it does something else."""

    def line(self, text: str, *, style: str = "") -> None:
        """Show a line."""

    def message(self, text: str) -> None:
        """Show a message of the user."""

    def tool(self, name: str, arguments: str, output: str, *, failed: bool, duration: timedelta | None = None) -> None:
        """Show a tool call as one line."""

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Show a table."""

    def error(self, text: str) -> None:
        """Show an error as one line."""

    def turn(self, record: TurnRecord) -> None:
        """Show the end of a turn."""

    async def pick(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
        """Return the index of the row that the user picks; where nothing can be asked, show them and return None."""

    async def edit(self, label: str, text: str) -> str | None:
        """Return a text as the user has edited it. None: they do not want to, or cannot be asked."""

    async def decide(self, action: Action) -> ActionResult | None:
        """Return the user's answer to an action. None: there is none."""
