"""Counts the JSON values of an answer before it is decoded, which takes some microseconds for each."""

import re
from typing import Final

# A string to its end: its closing quote, the end of the line, where JSON has none, or the end of what has been read.
_STRING: Final = re.compile(rb'"(?:[^"\\\r\n]++|\\[^\r\n])*+(?:"|\\?(?=[\r\n])|(\\?)\Z)')


class ValueCount:
    """Counts values in the pieces of an answer: JSON, or events with JSON in their lines.

    What is in strings does not count: texts may have as many commas as they like.

    Attributes:
        values: The number of commas, objects and lists so far, which is about that of the values.
    """

    def __init__(self) -> None:
        self.values = 0
        self._open = b""  # the beginning of the string that goes on in the next piece

    def add(self, piece: bytes) -> None:
        """Count the values of the next piece."""
        self._open, text = b"", self._open + piece
        rest = _STRING.sub(self._left_out, text)
        self.values += rest.count(b",") + rest.count(b"{") + rest.count(b"[")

    def restart(self) -> None:
        """Begin another answer; the values of both are counted together."""
        self._open = b""

    def _left_out(self, string: re.Match[bytes]) -> bytes:
        if string[1] is not None:  # it has no end yet
            self._open = b'"' + string[1]
        return b""
