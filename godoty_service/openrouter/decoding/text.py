"""Sanitizes strings from a provider, so that each can be stored, sent again and shown. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from godoty_service.telemetry.log_redaction import MASK, mask_text

MAX_MESSAGE_CHARACTERS = 500
_MAX_PART = 64 * 1024  # bytes of UTF-8
MAX_UNSPLIT = _MAX_PART // 4  # characters that fit one part in any script
_MAX_NAME = 256  # characters of an id, a model, a provider or a finish reason
_REPLACEMENT = "\ufffd"

_MAX_CLEANED = 8_000  # characters of a message that are cleaned before it is cut
_MIN_SECRET = 6  # characters; local gateways take keys such as "EMPTY", which are words of a message as well
_INVISIBLE = frozenset({"Cf", "Cs", "Co", "Cn"})  # Unicode categories: formats, surrogates, private use, unassigned
_SPACES = frozenset({"Cc", "Zl", "Zp"})  # control characters and line breaks
_KEYS = re.compile(
    r"""
    (?i:\b(?:authorization|proxy-authorization)["']?\s*[:=]\s*["']?(?:basic|bearer|token)?\s*)[^\s"',;]+
  | (?i:\b(?:x-)?(?:api|access|secret|auth)[-_ ]?(?:key|token)["']?\s*[:=]\s*["']?)[^\s"',;]{6,}
  | (?i:\b(?:sk|pk|rk|xai|gsk|hf|ghp)[-_])[A-Za-z0-9*._-]{8,}  # the prefixes that vendors give their keys
  | \b(?:AKIA|ASIA)[A-Z0-9]{12,} | \bAIza[A-Za-z0-9_-]{20,} | \beyJ[A-Za-z0-9_.-]{20,}  # AWS, Google, a JWT
  | \bdata:[^\s,]{0,100};base64,[A-Za-z0-9+/=]*  # a quoted attachment
    """,
    re.VERBOSE,
)
_TOKEN = re.compile(r"[A-Za-z0-9]{24,}")
_MIN_TOKEN_DIGITS = 2  # a long token with fewer digits is a word, not a key


def replace_lone_surrogates(text: str) -> str:
    """Join surrogate pairs; replace a lone surrogate, which UTF-8 cannot encode, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def split_utf8(text: str) -> Iterator[str]:
    """Split a text between characters into parts of at most 64 KiB of UTF-8."""
    if text.isascii():
        yield from (text[start : start + _MAX_PART] for start in range(0, len(text), _MAX_PART))
        return
    encoded = text.encode()
    start = 0
    while start < len(encoded):
        end = min(start + _MAX_PART, len(encoded))
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:  # noqa: PLR2004 - a continuation byte
            end -= 1
        yield encoded[start:end].decode()
        start = end


def name_of(value: Any) -> str | None:
    """Return a name, sanitized and cut to 256 characters; None if it is not a string or is empty."""
    return replace_lone_surrogates(value[:_MAX_NAME]) if isinstance(value, str) and value else None


def id_of(value: Any) -> str | None:
    """Return an id; None if it is not a string, is empty, or exceeds 256 characters: a cut id identifies nothing."""
    return replace_lone_surrogates(value) if isinstance(value, str) and 0 < len(value) <= _MAX_NAME else None


class SurrogateJoiner:
    """Buffers a high surrogate at the end of a piece until the next piece brings the low one."""

    def __init__(self) -> None:
        self._pending: dict[str, str] = {}  # by block

    def __bool__(self) -> bool:
        return bool(self._pending)

    def join(self, block: str, piece: str) -> str:
        """Return a piece of a block, sanitized, after the surrogate that was buffered for the block."""
        piece = self._pending.pop(block, "") + piece
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._pending[block] = piece[-1]
            piece = piece[:-1]
        return replace_lone_surrogates(piece)

    def flush(self) -> list[tuple[str, str]]:
        """Return U+FFFD for each block whose buffered surrogate was never completed."""
        replacements = [(block, _REPLACEMENT) for block in self._pending]
        self._pending.clear()
        return replacements


def clean_message(text: str, *, secrets: Iterable[str] = ()) -> str:
    """Return a foreign message in one line of at most 500 characters, with keys and tokens masked."""
    visible = "".join(_visible(text[:_MAX_CLEANED]))
    if len(text) > _MAX_CLEANED:
        visible = visible.rpartition(" ")[0]  # a key cut in half would not be recognized
    for secret in secrets:
        if len(secret) >= _MIN_SECRET:
            visible = visible.replace(secret, MASK)
    masked = _TOKEN.sub(_mask_token, _KEYS.sub(MASK, mask_text(visible)))
    return " ".join(masked.split())[:MAX_MESSAGE_CHARACTERS]


def _visible(text: str) -> Iterator[str]:
    for character in replace_lone_surrogates(text):
        if character.isascii() and character.isprintable():
            yield character
            continue
        category = unicodedata.category(character)
        if category in _SPACES:
            yield " "
        elif category not in _INVISIBLE:
            yield character


def _mask_token(found: re.Match[str]) -> str:
    token = found.group()
    digits = sum(each.isdigit() for each in token)
    return MASK if _MIN_TOKEN_DIGITS <= digits < len(token) else token
