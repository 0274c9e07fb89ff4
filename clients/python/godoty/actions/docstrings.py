"""What docstrings say: a summary, and a text for each parameter or attribute, in Google's style or Sphinx's."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"(Args|Arguments|Parameters|Attributes|Returns?|Yields?|Raises|Examples?|Notes?|See Also):")
_NAMING = ("Args", "Arguments", "Parameters", "Attributes")
_ENTRY = re.compile(r"\*{0,2}(\w+)(?: ?\([^)]*\))?: *(.*)")
_SPHINX = re.compile(r":(\w+)(?: [^:]*?)?(\w*): *(.*)")


def parsed(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Return the text before the first section, in one line, and the texts of the entries by name."""
    summary: list[str] = []
    entries: dict[str, list[str]] = {}
    current: list[str] | None = summary
    section, depth = "", 0
    for line in inspect.cleandoc(docstring or "").splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        if not indent and (found := _SECTION.fullmatch(text)):
            section, depth, current = found[1], 0, None
        elif not indent and (found := _SPHINX.match(text)):
            current = entries.setdefault(found[2], [found[3]]) if found[1] == "param" else None
            section = "Sphinx"
        elif section in _NAMING and text and (not depth or indent <= depth) and indent:
            depth = indent
            found = _ENTRY.match(text)
            current = entries.setdefault(found[1], [found[2]]) if found else None
        elif section and not indent:
            current = None  # a text after the sections
        elif current is not None:
            current.append(text)
    return _joined(summary), {name: _joined(lines) for name, lines in entries.items()}


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
