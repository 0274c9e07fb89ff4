"""Pages of a list method: size, position and the token of the next page.

A token holds the position where a page ended, and a hash of its query: a token of another query is refused.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from godoty_service.errors import InvalidRequest

Entry = TypeVar("Entry")
EntryMessage = TypeVar("EntryMessage", bound=Message)
Query = tuple[str, ...]
Position = list[Any]  # JSON values

MAX_TOKEN_LENGTH = 8192  # characters; a position holds at most two names of 128 characters
PAGE_TOKEN, CURSOR = "page_token", "cursor"  # the fields that have tokens
_SOURCES = {PAGE_TOKEN: "next_page_token", CURSOR: "cursor of a response"}
_INTEGER_BOUND = 2**63
_TAG = 8  # maximum bytes of a repeated field's tag and length


class PagedRequest(Protocol):
    """The request message of a list method."""

    page_size: int
    page_token: str


class PageRequest:
    """The page that a request asks for.

    Attributes:
        size: Maximum number of entries of the page.
        limit: Number of entries to read: one more than `size`, to find out whether another page follows.
        position: Where the previous page ended; None: this is the first page.
    """

    def __init__(self, request: PagedRequest, query: Query, *kinds: type, default_size: int = 100) -> None:
        """Decode the page of a request.

        Args:
            request: The request.
            query: All that determines the list, tenant included.
            kinds: The types of a position's values: str or int.
            default_size: Size of the page if the request does not set it.

        Raises:
            InvalidRequest: The size is negative, or the token is invalid or of another query.
        """
        self.size = page_size(request.page_size, default=default_size)
        self.limit = self.size + 1
        self.position = decode_token(request.page_token, query, *kinds)
        self._query = query

    def cut(
        self,
        entries: Sequence[Entry],
        messages: Sequence[EntryMessage],
        *,
        position: Callable[[Entry], Position],
        max_bytes: int,
    ) -> tuple[Sequence[EntryMessage], str]:
        """Return the messages that fit the page, and the token of the next page; empty: there is none.

        Args:
            entries: The entries that were read, at most `limit`.
            messages: The first `size` of them, converted.
            position: Returns the position of an entry.
            max_bytes: Size at which the page ends.
        """
        shown = fitting(messages, max_bytes=max_bytes)
        more = len(entries) > len(shown)
        return shown, self.next_token(position(entries[len(shown) - 1])) if more else ""

    def next_token(self, position: Position) -> str:
        """Return the token of the page after a position."""
        return encode_token(self._query, position)


def page_size(requested: int, *, default: int, most: int = 500) -> int:
    """Return the number of entries of a page.

    Raises:
        InvalidRequest: The requested size is negative.
    """
    if requested < 0:
        raise InvalidRequest.of("page_size", "must not be negative")
    return min(requested or default, most)


def fitting(messages: Sequence[EntryMessage], *, max_bytes: int) -> Sequence[EntryMessage]:
    """Return the first messages, as many as fit a page of `max_bytes`; at least one, if there is one."""
    return next(split_by_size(messages, max_bytes=max_bytes), messages)


def split_by_size(messages: Sequence[EntryMessage], *, max_bytes: int) -> Iterator[Sequence[EntryMessage]]:
    """Split messages into parts of at most `max_bytes`, or of one message that alone is larger."""
    first, size = 0, 0
    for index, message in enumerate(messages):
        length = encoded_size(message)
        if size + length > max_bytes and index > first:
            yield messages[first:index]
            first, size = index, 0
        size += length
    if first < len(messages):
        yield messages[first:]


def encoded_size(message: Message) -> int:
    """Return the bytes that a message takes in its page."""
    return message.ByteSize() + _TAG


def encode_token(query: Query, position: Position) -> str:
    """Return the token of the page after a position."""
    body = json.dumps([_digest(query, position), *position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def decode_token(token: str, query: Query, *kinds: type) -> Position | None:
    """Return the position in a token, or None for the first page; its values are of these types, str or int.

    The types are checked because the position reaches the database, and a reader of this code can forge a token.

    Raises:
        InvalidRequest: The token is invalid, or of another query.
    """
    position = decode_any_token(token, query)
    if position is not None and not (len(position) == len(kinds) and all(map(_is_of, position, kinds))):
        raise invalid_token()
    return position


def decode_any_token(token: str, query: Query, *, field: str = PAGE_TOKEN) -> Position | None:
    """Return the position in a token, of values of any type, or None for the first page.

    Args:
        token: The token.
        query: All that determines the list.
        field: The field of the request that has the token.

    Raises:
        InvalidRequest: The token is invalid, or of another query.
    """
    if not token:
        return None
    if len(token) > MAX_TOKEN_LENGTH:
        raise invalid_token(field)
    try:
        digest: str
        position: Position
        digest, *position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if digest == _digest(query, position):
            return position
    except (ValueError, TypeError, RecursionError):
        pass
    raise invalid_token(field)


def decode_time(text: str, *, field: str = PAGE_TOKEN) -> datetime:
    """Return a time of a position, whose token is in a field of the request.

    Raises:
        InvalidRequest: It is not an ISO 8601 time.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid_token(field) from None


def _is_of(value: Any, kind: type) -> bool:
    """Return whether a value is of a type, and one that the database can store."""
    if kind is str:
        return isinstance(value, str) and value.isascii()
    return type(value) is int and abs(value) < _INTEGER_BOUND


def invalid_token(field: str = PAGE_TOKEN) -> InvalidRequest:
    """Return the error for a token that is invalid, or of another query."""
    return InvalidRequest.of(field, f"must be the {_SOURCES[field]} of the same query")


def _digest(query: Query, position: Position) -> str:
    return hashlib.sha256(json.dumps([*query, position]).encode()).hexdigest()[:16]
