"""How much is drawn, and what commands are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from godoty.chat.commands import COMMANDS, hints, is_command
from godoty.chat.status import Status
from godoty.chat.terminal import view
from godoty.chat.terminal.blocks import LIMIT, Block
from godoty.chat.terminal.screen import TerminalScreen
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

MEGABYTE = 1024 * 1024


class LowerPart:
    """Records what is written above it, and what it shows."""

    size = (80, 24)

    def __init__(self) -> None:
        self.written: list[str] = []
        self.live = ""

    def write(self, text: str) -> None:
        """Record lines."""
        self.written.append(text)

    def show(self, live: str) -> None:
        """Record what changes."""
        self.live = live

    def refresh(self) -> None:
        """Do nothing."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The characters of each block that is formatted."""
    sizes: list[int] = []

    def plain(block: Block) -> RenderableType:
        sizes.append(len(block.text))
        return Text(block.text)

    monkeypatch.setattr(view, "answer", plain)
    return sizes


@pytest.mark.parametrize(
    "line", ["word " * 12, "x" * 60, "a line of a paragraph\n", "- an item\n", "| a | b |\n|---|---|\n", "```\ncode\n"]
)
def test_large_answer_is_formatted_once(drawn: list[int], line: str) -> None:
    """A megabyte, however it is formatted: each block is formatted once, and what is drawn anew is small."""
    lower = LowerPart()
    screen = TerminalScreen(cast("Any", lower), Status())
    pieces = MEGABYTE // len(line)
    for number in range(pieces):
        screen.stream(line)
        if number % (pieces // 10) == 0:
            finished = len(drawn)
            screen._draw()
            assert sum(drawn[finished:]) <= 3 * LIMIT
            assert lower.live.count("\n") < lower.size[1]
            del drawn[finished:]
    screen.end_answer()

    assert sum(drawn) < 1.5 * MEGABYTE
    assert max(drawn) <= 3 * LIMIT


def test_text_is_written_in_order() -> None:
    """What was streamed comes before the line that follows it, with an empty line between different things."""
    lower = LowerPart()
    screen = TerminalScreen(cast("Any", lower), Status())
    screen.message("hi")
    screen.stream("one\n\ntw")
    screen.stream("o")
    screen.tool("calculator", "{}", "42", failed=False)
    screen.line("a line")
    screen.line("another")
    screen.flush()

    shown = re.sub("\x1b\\[[0-9;]*m", "", "\n".join(lower.written))
    assert shown == "> hi\n\none\n\ntwo\n\n✓ calculator {} → 42\n\na line\nanother"


def test_commands_are_known_by_their_beginning() -> None:
    """A message is none; the usage of a complete command is shown with what it takes."""
    assert [name for name, _ in hints("/mod")] == ["/models", "/model"]
    assert [name for name, _ in hints("/attach photo.png")] == ["/attach FILE"]
    assert hints("hello") == hints("//mod") == hints("/x\ny") == hints("/nothing here") == ()
    assert len(hints("/")) == len(COMMANDS)
    assert is_command("/x")
    assert not is_command("//x")
