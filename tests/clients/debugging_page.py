"""The commands of docs/debugging.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("grpcurl", "buf")
RPC = re.compile(r"\bgodoty\.v1\.(\w+/\w+)")

_BLOCK = re.compile(r"^## (?P<chapter>[^\n]*)$|^```sh\n(?P<block>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r"# (.*) → (.*)")


@dataclass(frozen=True)
class Step:
    """A command of the page, for either tool.

    Attributes:
        chapter: The heading that it stands under.
        title: What it does.
        expected: What its output has; empty: it says nothing.
        commands: The command by tool.
    """

    chapter: str
    title: str
    expected: str
    commands: dict[str, str]


@cache
def steps() -> tuple[Step, ...]:
    """Return the steps of the page, in their order."""
    found: list[Step] = []
    chapter = ""
    for match in _BLOCK.finditer((ROOT / "docs/debugging.md").read_text(encoding="utf-8")):
        chapter = match["chapter"] or chapter
        found.extend(_step(chapter, each) for each in (match["block"] or "").split("\n\n") if each.strip())
    return tuple(found)


def _step(chapter: str, text: str) -> Step:
    """Return a step: two commands below a title, or lines that are the same for both tools."""
    title = _TITLE.match(text)
    if title is None:
        return Step(chapter, text.splitlines()[0], "", dict.fromkeys(TOOLS, text))
    _, *commands = text.strip().splitlines()
    return Step(chapter, title[1], title[2], dict(zip(TOOLS, commands, strict=True)))
