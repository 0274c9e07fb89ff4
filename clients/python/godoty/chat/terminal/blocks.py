"""Splits streamed Markdown into blocks: one that has ended is not changed by any later text.

A block is a paragraph, a list, a table, a code block and the like. One that grows large is split, so that showing an
answer takes time in proportion to its length, however it is formatted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LIMIT = 4096  # characters of a block
_LINES = 60  # of a block
_ITEM_LIMIT = 1024  # characters of a list after which an item begins another block

_FENCE = re.compile(r"\s{0,64}(`{3,}|~{3,})")
_HEADING = re.compile(r"\s{0,3}#{1,6}(?:\s|$)")
_INDENTED = re.compile(r"\s{2,64}\S")
_ITEM = re.compile(r"\s{0,3}(?:[-*+]|\d{1,9}[.)])(?:\s|$)")
_TABLE_RULE = frozenset("|:- \t")


@dataclass(frozen=True)
class Block:
    """A part of an answer that is formatted by itself.

    Attributes:
        text: The Markdown text.
        continues: It follows the block before without an empty line.
    """

    text: str
    continues: bool = False


class BlockSplitter:
    """Splits one answer."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0  # characters of the lines
        self._partial: list[str] = []  # the line that has not ended
        self._partial_size = 0
        self._fence, self._fence_line = "", ""  # the marks of the code block that is open, and their line
        self._continues = False
        self._ended: list[Block] = []

    @property
    def rest(self) -> Block:
        """The block that has not ended."""
        return Block("\n".join([*self._lines, "".join(self._partial)]), self._continues)

    def feed(self, text: str) -> list[Block]:
        """Add a part of the text; return the blocks that have ended."""
        first, *others = text.split("\n")
        self._extend(first)
        for each in others:
            self._end_line()
            self._extend(each)
        return self._take()

    def end(self) -> list[Block]:
        """Return what is left as the last blocks; the next text begins another answer."""
        self._end_line()
        self._finish()
        self._fence, self._continues = "", False
        return self._take()

    def _take(self) -> list[Block]:
        ended, self._ended = self._ended, []
        return ended

    def _extend(self, text: str) -> None:
        """Add to the line that has not ended; a long one is split, after a space if there is one."""
        while self._partial_size + len(text) > LIMIT:
            whole = "".join(self._partial) + text
            cut = whole.rfind(" ", LIMIT // 2, LIMIT) + 1 or LIMIT
            self._partial, self._partial_size = [whole[:cut]], cut
            self._end_line()
            self._split()
            text = whole[cut:]
        if text:
            self._partial.append(text)
            self._partial_size += len(text)

    def _end_line(self) -> None:
        line = "".join(self._partial)
        self._partial, self._partial_size = [], 0
        if self._fence:
            self._add_code(line)
        elif line.strip():
            self._add_text(line)
        elif self._is_list():  # the next line decides whether it goes on
            self._add("")
        else:
            self._finish()
        if self._size > LIMIT or len(self._lines) > _LINES:
            self._split()

    def _add_code(self, line: str) -> None:
        self._add(line)
        marks = line.strip()
        if marks.startswith(self._fence) and not marks.strip(self._fence[0]):
            self._fence = ""
            if not self._is_list():
                self._finish()

    def _add_text(self, line: str) -> None:
        if self._is_list():
            self._add_to_list(line)
        elif _HEADING.match(line):
            self._finish()
            self._add(line)
            self._finish()
        else:
            self._open_fence(line)
            if self._fence:
                self._finish()
            self._add(line)

    def _add_to_list(self, line: str) -> None:
        inner = _INDENTED.match(line) is not None
        begins_item = _ITEM.match(line) is not None and not inner
        if (not self._lines[-1] and not inner and not begins_item) or _HEADING.match(line):
            self._finish()
            self._add_text(line)
            return
        if begins_item and self._size > _ITEM_LIMIT:
            self._finish()
            self._continues = True
        self._open_fence(line)
        self._add(line)

    def _open_fence(self, line: str) -> None:
        self._fence, self._fence_line = _fence_of(line), line.strip()

    def _is_list(self) -> bool:
        return bool(self._lines) and _ITEM.match(self._lines[0]) is not None

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line) + 1

    def _finish(self) -> None:
        """End the block, if there is one."""
        text = "\n".join(self._lines).rstrip()
        if text:
            self._ended.append(Block(text, self._continues))
            self._continues = False
        self._lines, self._size = [], 0

    def _split(self) -> None:
        """End the block, and begin another one of the same kind."""
        again = self._opening()
        if self._lines == again:
            return
        self._finish()
        self._continues = True
        for line in again:
            self._add(line)

    def _opening(self) -> list[str]:
        """Return the lines that make another block of the same kind: the mark of code, the head of a table."""
        if self._fence:
            return [self._fence_line[: LIMIT // 4]]
        head = self._lines[:2]
        if len(head) > 1 and "|" in head[0] and "-" in head[1] and _TABLE_RULE.issuperset(head[1]):
            return head if len("".join(head)) < LIMIT // 4 else []
        return []


def _fence_of(line: str) -> str:
    """Return the marks by which a line begins a code block; empty if it does not."""
    found = _FENCE.match(line)
    if found is None or (found[1][0] == "`" and "`" in line[found.end() :]):
        return ""
    return found[1]
