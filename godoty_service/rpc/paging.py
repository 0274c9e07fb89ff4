"""Page tokens: where a page ended, and of which query. One from elsewhere is refused."""

import base64
import hashlib
import json
from typing import Any

from godoty_service.errors import InvalidRequest


def page_size(asked: int, *, default: int, most: int = 500) -> int:
    """Tell how many entries a page has.

    Raises:
        InvalidRequest: It is negative.
    """
    if asked < 0:
        raise InvalidRequest.of("page_size", "must not be negative")
    return min(asked or default, most)


def write_token(query: tuple[str, ...], place: list[Any]) -> str:
    """Write a token for the page after a place."""
    body = json.dumps([_mark(query, place), *place], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def read_token(token: str, query: tuple[str, ...]) -> list[Any] | None:
    """Read the place out of a token; None: the first page.

    Raises:
        InvalidRequest: The token is not ours, or of another query.
    """
    if not token:
        return None
    try:
        mark: str
        place: list[Any]
        mark, *place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if mark == _mark(query, place):
            return place
    except (ValueError, TypeError, RecursionError):
        pass
    raise InvalidRequest.of("page_token", "must be the next_page_token of the same query")


def _mark(query: tuple[str, ...], place: list[Any]) -> str:
    return hashlib.sha256(json.dumps([*query, place]).encode()).hexdigest()[:16]
