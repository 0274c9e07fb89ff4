"""The last line of defence: what looks like a key never leaves in a log line or a span."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "[key]"
MAX_DEPTH = 12

_KEYS = re.compile(
    r"""
    \bgdt_[A-Za-z0-9]+_[A-Za-z0-9_-]+      # our own API keys, secret and all
  | \bsk-[A-Za-z0-9][A-Za-z0-9_-]{7,}      # OpenRouter's sk-or-..., OpenAI's and others' sk-...
  | (?i:\bbearer\s+)[^\s"',;]+             # an authorization header
  | (?<=://)[^\s/@:]+:[^\s/@]+(?=@)        # user and password of a database URI
    """,
    re.VERBOSE,
)


def mask_text(text: str) -> str:
    """Replace each key in a text."""
    return _KEYS.sub(MASK, text)


def mask(value: Any, depth: int = 0) -> Any:
    """Replace each key in a value, nested too.

    Numbers, booleans and None stay what they are; what a renderer would print by `repr` becomes text here, so
    that nothing is printed unseen.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return mask_text(value)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {mask_text(str(key)): mask(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [mask(item, depth + 1) for item in value]
    return mask_text(str(value))
