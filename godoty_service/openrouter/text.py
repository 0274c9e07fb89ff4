"""Cleans the strings that a provider sends, so that each can be stored and sent again."""

from collections.abc import Iterator
from typing import Any

_LARGEST_PART = 64 * 1024  # bytes of UTF-8
SHORT = _LARGEST_PART // 4  # characters that fit a part, whatever they are
_LONGEST_NAME = 256  # characters of an id, a model, a provider or a finish reason


def clean(text: str) -> str:
    """Return a text whose halves of surrogate pairs are joined; a half without its other one becomes U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def parts(text: str) -> Iterator[str]:
    """Cut a text into parts of at most 64 KiB of UTF-8, between characters."""
    if text.isascii():
        yield from (text[start : start + _LARGEST_PART] for start in range(0, len(text), _LARGEST_PART))
        return
    encoded = text.encode()
    start = 0
    while start < len(encoded):
        end = min(start + _LARGEST_PART, len(encoded))
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:  # noqa: PLR2004 - the second byte of a character, or a later one
            end -= 1
        yield encoded[start:end].decode()
        start = end


def name_of(value: Any) -> str | None:
    """Return a name, cleaned and cut to 256 characters, or None if it is no string or is empty."""
    return clean(value[:_LONGEST_NAME]) if isinstance(value, str) and value else None


def id_of(value: Any) -> str | None:
    """Return an id, or None if it is no string, is empty or is longer than 256 characters: a cut id names nothing."""
    return clean(value) if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME else None
