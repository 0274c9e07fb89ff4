"""How an answer is split into blocks."""

from __future__ import annotations

import pytest
from godoty.chat.terminal.blocks import LIMIT, Block, BlockSplitter
from hypothesis import given
from hypothesis import strategies as st

ANSWER = """# Title
Text of
two lines

- one

  more of one
- two

After

```python
x = 1

y = 2
```
| a | b |
|---|---|
| 1 | 2 |

1. first
2. second
~~~
fence
~~~
"""


def blocks_of(text: str, *, step: int = 1) -> list[Block]:
    """Return the blocks of a text that arrives in pieces."""
    splitter = BlockSplitter()
    found: list[Block] = []
    for start in range(0, len(text), step):
        found += splitter.feed(text[start : start + step])
    return found + splitter.end()


def test_each_element_is_a_block() -> None:
    """Empty lines within lists and code do not end them."""
    assert [block.text for block in blocks_of(ANSWER)] == [
        "# Title",
        "Text of\ntwo lines",
        "- one\n\n  more of one\n- two",
        "After",
        "```python\nx = 1\n\ny = 2\n```",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "1. first\n2. second\n~~~\nfence\n~~~",
    ]


@pytest.mark.parametrize("step", [2, 7, 1000])
def test_pieces_do_not_matter(step: int) -> None:
    """The blocks are the same, however the text arrives."""
    assert blocks_of(ANSWER, step=step) == blocks_of(ANSWER)


def test_long_code_goes_on_as_code() -> None:
    """Each of its parts is code of the same language, without an empty line between them."""
    parts = blocks_of("```python\n" + "x = 1\n" * 500 + "```\nafter\n", step=50)

    *code, after = parts
    assert len(code) > 5
    assert all(part.text.startswith("```python\n") for part in code)
    assert [part.continues for part in code] == [False] + [True] * (len(code) - 1)
    assert sum(part.text.count("x = 1") for part in code) == 500
    assert after.text == "after"


def test_long_table_repeats_its_head() -> None:
    """Each of its parts is a table."""
    head = "| a | b |\n|---|---|"
    parts = blocks_of(head + "\n" + "| 1 | 2 |\n" * 200)

    assert len(parts) > 2
    assert all(part.text.startswith(head) for part in parts)
    assert sum(part.text.count("| 1 | 2 |") for part in parts) == 200


def test_long_line_is_split_after_a_space() -> None:
    """No word is cut."""
    words = "word " * 5000
    parts = blocks_of(words, step=999)

    assert max(len(part.text) for part in parts) <= LIMIT
    assert " ".join(part.text.strip() for part in parts).split() == words.split()


@given(st.text(alphabet="a -*#`~|>1.\n\t", max_size=400), st.integers(1, 40))
def test_no_text_is_lost(text: str, step: int) -> None:
    """All that is not space arrives, in order; and no block is larger than the limit."""
    parts = blocks_of(text, step=step)

    assert "".join("".join(part.text.split()) for part in parts) == "".join(text.split())


@given(st.lists(st.sampled_from(["```", "- a\n", "x" * 3000, "\n", " ", "| a |\n|-|\n", "~~~\n", "1. "]), max_size=60))
def test_blocks_are_bounded(pieces: list[str]) -> None:
    """What is drawn anew is small for any text."""
    splitter = BlockSplitter()
    for piece in pieces:
        for block in splitter.feed(piece):
            assert len(block.text) <= 3 * LIMIT
        assert len(splitter.rest.text) <= 3 * LIMIT


def test_long_code_of_a_list_remains_code() -> None:
    """Each of the blocks that it is split into begins as code does."""
    line = "x" * 100
    blocks = blocks_of("- a\n  ```python\n" + f"  {line}\n" * (2 * LIMIT // len(line)) + "  ```\nafter")

    assert len(blocks) > 2
    assert all(block.text.startswith("```python\n") and block.continues for block in blocks[1:-1])
    assert blocks[-1] == Block("after")
