"""What of an answer reaches the terminal."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from godoty.chat.terminal import view
from godoty.chat.terminal.blocks import Block
from godoty.chat.terminal.picker import Picker
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

STYLE = re.compile("\x1b\\[[0-9;]*m")
ATTACK = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\x00e\rf\u202eg"


def painter(*, color: bool = True) -> view.Painter:
    """Return a painter for a terminal, or for one without colours."""
    return view.Painter(Console(force_terminal=True, color_system="truecolor" if color else None, no_color=not color))


def lines_of(renderable: object, width: int) -> list[str]:
    """Return what is painted, without styles."""
    return STYLE.sub("", painter().paint(renderable, width)).split("\n")  # type: ignore[arg-type] # a renderable


def test_answer_is_formatted() -> None:
    """Marks of Markdown become styles; links say where they lead; line ends remain."""
    text = "**bold** `code` [site](https://a.example) <https://b.example>\nnext <b>html</b>"

    painted = painter().paint(view.answer(Block(text)), 80)

    assert STYLE.sub("", painted).split("\n") == [
        "bold code site (https://a.example) https://b.example",
        "next <b>html</b>",
    ]
    assert "\x1b[1mbold" in painted


def test_parts_of_an_answer_are_laid_out() -> None:
    """Headings, lists with their numbers, code and tables."""
    assert lines_of(view.answer(Block("# Title")), 40) == ["Title"]
    assert lines_of(view.answer(Block("7. a\n8. b")), 40) == [" 7 a", " 8 b"]
    assert lines_of(view.answer(Block("```python\nx = 1\n```")), 40) == ["  x = 1"]
    assert [line.split() for line in lines_of(view.answer(Block("|a|b|\n|-|-|\n|1|2|")), 40)][::2] == [
        ["a", "b"],
        ["1", "2"],
    ]


def test_no_control_character_reaches_the_terminal() -> None:
    """Neither as such nor as an entity, in any part of what is shown."""
    entities = "&#27;[2J &#x9b;31m &#7; &#x202e;"
    for renderable in (
        view.answer(Block(f"{ATTACK} `{ATTACK}` {entities} [{ATTACK}](https://x/{entities})\n")),
        view.answer(Block(f"```{ATTACK}\n{ATTACK}\n```")),
        view.reasoning(Block(ATTACK)),
        view.message(ATTACK),
        view.line(ATTACK, "dim"),
        view.ToolLine(ATTACK, ATTACK, ATTACK, failed=False),
        view.Rows(ATTACK, ("column",), [(ATTACK,)]),
    ):
        painted = STYLE.sub("", painter().paint(renderable, 80))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", painted)


@given(st.text(max_size=300), st.integers(1, 60))
def test_any_text_is_painted_within_the_width(text: str, width: int) -> None:
    """No text of a model ends the chat, or leaves its lines; a character may be wider than the terminal."""
    for line in lines_of(view.answer(Block(text)), width):
        assert cell_len(line) <= max(width, 2)


@given(st.text(alphabet="*_`[]()<>#-1.|>~! a\n", max_size=200), st.integers(1, 60))
def test_any_markdown_is_painted(text: str, width: int) -> None:
    """However its marks are nested."""
    lines_of(view.answer(Block(text)), width)


def test_terminal_without_colours_gets_none() -> None:
    """NO_COLOR holds for answers, too."""
    assert "\x1b" not in painter(color=False).paint(view.answer(Block("**b**\n\n```python\nx = 1\n```")), 40)


def test_long_message_is_cut() -> None:
    """The rest is named."""
    lines = lines_of(view.message("\n".join(f"line {number}" for number in range(50))), 40)

    assert lines[0] == "> line 0"
    assert lines[-1] == "  … 20 more lines"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tool_call_is_one_line(width: int) -> None:
    """Its name, its input and its outcome, each as far as it fits."""
    arguments = '{"expression": "' + "1 + " * 80 + '1"}'
    line = view.ToolLine("calculator", arguments, "81 " * 80, failed=False, duration=timedelta(milliseconds=2))

    (shown,) = lines_of(line, width)

    assert cell_len(shown) <= width
    assert shown.startswith('✓ calculator {"')
    assert "→ 81 81" in shown
    assert shown.endswith(", 2 ms")


def test_table_that_does_not_fit_is_a_list() -> None:
    """Nothing of it is missing."""
    rows = [("session-1", "$0.0000105", "openai/gpt-4o-mini"), ("session-2", "$1", "")]
    columns = ("session", "cost", "model")

    assert len(lines_of(view.Rows("Sessions", columns, rows), 80)) == 4
    narrow = lines_of(view.Rows("Sessions", columns, rows), 30)
    assert narrow[1:3] == ["session-1", "  cost: $0.0000105, model:"]
    assert narrow[-1] == "  cost: $1"


def test_picker_shows_what_matches() -> None:
    """The selected row stays in view; every line fits."""
    rows = [(f"model-{number}", f"${number}") for number in range(100)]
    picker = Picker("Models", ("model", "price"), rows)
    picker.move(-1)
    assert picker.selected == 0
    picker.move(50)

    lines = picker.lines(30, 10)

    assert len(lines) == 10
    assert [text for selected, text in lines if selected] == ["> model-50  $50"]
    assert all(cell_len(text) <= 30 for _, text in lines)
    picker.filter("MODEL-9 $97")
    assert picker.selected == 97
    picker.filter("nothing")
    assert picker.selected is None
    assert len(picker.lines(30, 10)) == 2
