"""Parses one chunk of an answer."""

from typing import Any

from pydantic_core import from_json

from godoty_service.errors import ProviderUnavailable
from godoty_service.openrouter import exact

DONE = (b"[DONE]", b"DONE")


def parse_chunk(data: bytes) -> dict[str, Any]:
    """Parse a chunk; the amounts of one that has any are Decimal.

    Raises:
        ProviderUnavailable: It is not a JSON object.
    """
    try:
        if b'"usage"' in data or b'"cost"' in data:
            chunk = exact.loads(data)
        else:
            try:
                chunk = from_json(data)
            except ValueError:  # lone surrogates, which the fast parser refuses
                chunk = exact.loads(data)
    except (ValueError, RecursionError) as error:
        raise unreadable() from error
    if not isinstance(chunk, dict):
        raise unreadable()
    return chunk


def unreadable() -> ProviderUnavailable:
    """Return the error of an answer that cannot be decoded."""
    return ProviderUnavailable("The provider sent what cannot be read.", metadata={"provider_code": "malformed"})


def incomplete() -> ProviderUnavailable:
    """Return the error of an answer that broke off."""
    return ProviderUnavailable("The provider's answer broke off.", metadata={"provider_code": "incomplete"})
