"""Estimates what a regular expression of a schema takes: the number of its states, by its text. Pure.

The engine matches in time linear in the text, with a factor that is at most the number of states: some 40 ns each.
"""

import re
from typing import Final

MAX_STATES: Final = 2_000  # of one pattern
MAX_ALL_STATES: Final = 10_000  # of a schema's patterns: some 10 ms to compile
_ANY, _NEGATED, _CLASS, _PROPERTY = 24, 24, 4, 400  # states, for the bytes of UTF-8
_CLASS_ESCAPES = {"d": _CLASS, "w": _CLASS, "s": 12, "D": _NEGATED, "W": _NEGATED, "S": _NEGATED}
_REPEAT = re.compile(r"\{(\d{1,6})(?:(,)(\d{0,6}))?\}")
_GROUP_START = re.compile(r"\(\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|[a-zA-Z-]*:|<?[=!])")
_PROPERTY_NAME = re.compile(r"\{[^}]*\}")
_MOST: Final = 10**9


def states(pattern: str) -> int:
    """Return about how many states an engine has for a pattern; at most 10^9."""
    return _Scanner(pattern).scan()


class _Scanner:
    """Sums the states of a pattern from left to right.

    Args:
        pattern: The pattern; one that is not valid is scanned as well.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._outer: list[int] = []  # the sums outside of the open groups
        self._sum = 0
        self._last = 0  # the states of the last atom, which a repetition repeats

    def scan(self) -> int:
        """Return the sum."""
        while self._at < len(self._pattern):
            self._step()
        return min(_MOST, self._sum + sum(self._outer))

    def _step(self) -> None:
        character = self._pattern[self._at]
        match character:
            case "(":
                start = _GROUP_START.match(self._pattern, self._at)
                self._at = start.end() if start else self._at + 1
                self._outer.append(self._sum)
                self._sum = self._last = 0
            case ")":
                self._at += 1
                group = self._sum + 2
                self._sum = self._outer.pop() if self._outer else 0
                self._add(group)
            case "[":
                self._add(self._class())
            case "\\":
                self._add(self._escape())
            case "{" if (repeat := _REPEAT.match(self._pattern, self._at)) is not None:
                self._at = repeat.end()
                times = max(int(repeat[1]), int(repeat[3] or 0)) + (repeat[2] is not None and not repeat[3])
                self._sum = min(_MOST, self._sum + self._last * max(0, times - 1))
            case _:
                self._at += 1
                if character in "*+?|^$":
                    self._sum += 1
                else:
                    self._add(_ANY if character == "." else 1 + (not character.isascii()) * 3)

    def _add(self, count: int) -> None:
        self._sum = min(_MOST, self._sum + count)
        self._last = count

    def _escape(self) -> int:
        name = self._pattern[self._at + 1 : self._at + 2]
        self._at += 2
        if name in ("p", "P"):
            found = _PROPERTY_NAME.match(self._pattern, self._at)
            self._at = found.end() if found else self._at + 1
            return _PROPERTY
        return _CLASS_ESCAPES.get(name, 1)

    def _class(self) -> int:
        """Read a class in brackets; return its states."""
        self._at += 1
        total = _NEGATED if self._pattern.startswith("^", self._at) else _CLASS
        while self._at < len(self._pattern) and self._pattern[self._at] != "]":
            if self._pattern[self._at] == "\\":
                total += self._escape()
            else:
                total += not self._pattern[self._at].isascii()
                self._at += 1
        self._at += 1
        return total
