"""Page tokens: where a page ended, and of which query. One from elsewhere is refused."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.message import Message

from godoty_service.errors import InvalidRequest

Each = TypeVar("Each", bound=Message)

_LARGEST = 2**63
_TAG = 8  # bytes that an entry takes in its page beside its own, at most
LONGEST_TOKEN = 8192  # characters; a place holds two names of 128 characters at most


def page_size(asked: int, *, default: int, most: int = 500) -> int:
    """Tell how many entries a page has.

    Raises:
        InvalidRequest: It is negative.
    """
    if asked < 0:
        raise InvalidRequest.of("page_size", "must not be negative")
    return min(asked or default, most)


def fitting(entries: Sequence[Each], *, most_bytes: int) -> Sequence[Each]:
    """Return the first of the entries, as many as a page of so many bytes holds; always one, if there is one."""
    return next(parts(entries, most_bytes=most_bytes), entries)


def parts(entries: Sequence[Each], *, most_bytes: int) -> Iterator[Sequence[Each]]:
    """Cut entries into parts of at most so many bytes, or of one entry that is larger alone."""
    first, size = 0, 0
    for place, entry in enumerate(entries):
        length = encoded_size(entry)
        if size + length > most_bytes and place > first:
            yield entries[first:place]
            first, size = place, 0
        size += length
    if first < len(entries):
        yield entries[first:]


def encoded_size(entry: Message) -> int:
    """Return the bytes that an entry takes in its page."""
    return entry.ByteSize() + _TAG


def write_token(query: tuple[str, ...], place: list[Any]) -> str:
    """Write a token for the page after a place."""
    body = json.dumps([_mark(query, place), *place], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def read_place(token: str, query: tuple[str, ...], *kinds: type) -> list[Any] | None:
    """Read a place of these kinds, str or int, out of a token; None: the first page.

    Whoever reads this code can write a token, and what is in it reaches the database: so its kind is checked.

    Raises:
        InvalidRequest: The token is not ours, or of another query.
    """
    place = read_token(token, query)
    if place is not None and not (len(place) == len(kinds) and all(map(_is, place, kinds))):
        raise _not_ours()
    return place


def read_token(token: str, query: tuple[str, ...]) -> list[Any] | None:
    """Read the place out of a token, whatever it is; None: the first page.

    Raises:
        InvalidRequest: The token is not ours, or of another query.
    """
    if not token:
        return None
    if len(token) > LONGEST_TOKEN:
        raise _not_ours()
    try:
        mark: str
        place: list[Any]
        mark, *place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if mark == _mark(query, place):
            return place
    except (ValueError, TypeError, RecursionError):
        pass
    raise _not_ours()


def read_time(text: str) -> datetime:
    """Read a time that stands in a token.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _not_ours() from None


def _is(value: Any, kind: type) -> bool:
    """Tell whether a value is of a kind, and one that the database can hold."""
    if kind is str:
        return isinstance(value, str) and value.isascii()
    return type(value) is int and abs(value) < _LARGEST


def _not_ours() -> InvalidRequest:
    return InvalidRequest.of("page_token", "must be the next_page_token of the same query")


def _mark(query: tuple[str, ...], place: list[Any]) -> str:
    return hashlib.sha256(json.dumps([*query, place]).encode()).hexdigest()[:16]
