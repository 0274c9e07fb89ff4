"""JSON with fractions exactly as they are written: they are floats that have their text. Pure."""

import json
from collections.abc import Callable
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, NoReturn, Self


class LiteralFloat(float):
    """A fraction as JSON text has it; in arithmetic it is the nearest float.

    Attributes:
        text: The text.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """Parse the text of a number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def loads(text: str) -> Any:
    """Parse JSON with fractions as `LiteralFloat`. Strings may have control characters, as models write line ends.

    Raises:
        ValueError: It is not JSON, or has a number that is none.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, strict=False, parse_float=LiteralFloat, parse_constant=_refuse)


def dumps(value: Any) -> str:
    """Return compact JSON, with each `LiteralFloat` as its text. Its depth must be bounded."""
    pieces: list[str] = []
    _write(value, pieces.append)
    return "".join(pieces)


def exact(value: Any) -> Any:
    """Return a parsed value with a Decimal in place of each `LiteralFloat`. Its depth must be bounded."""
    if isinstance(value, LiteralFloat):
        return Decimal(value.text)
    if isinstance(value, dict):
        return {name: exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    return value


def _write(value: Any, write: Callable[[str], None]) -> None:
    if isinstance(value, str):
        write(encode_basestring(value))
    elif isinstance(value, LiteralFloat):
        write(value.text)
    elif isinstance(value, dict):
        separator = "{"
        for name, inner in value.items():
            write(f"{separator}{encode_basestring(name)}:")
            _write(inner, write)
            separator = ","
        write("}" if value else "{}")
    elif isinstance(value, list):
        separator = "["
        for inner in value:
            write(separator)
            _write(inner, write)
            separator = ","
        write("]" if value else "[]")
    else:
        write(json.dumps(value))


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
