"""The provider's own message in an error answer, cleaned so that it can be stored and shown. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from godoty_service.openrouter.text import clean
from godoty_service.telemetry.masking import MASK, mask_text

MAX_CHARACTERS = 500
_MOST_READ = 8_000  # characters of a message that are cleaned before it is cut
_MOST_PARTS = 8  # messages of one body
_SHORTEST_SECRET = 6  # characters; local gateways take keys such as "EMPTY", which are words of a message as well
_INVISIBLE = frozenset({"Cf", "Cs", "Co", "Cn"})  # Unicode categories: formats, halves of pairs, unassigned
_SPACES = frozenset({"Cc", "Zl", "Zp"})  # control characters and line breaks

_KEYS = re.compile(
    r"""
    (?i:\b(?:authorization|proxy-authorization)["']?\s*[:=]\s*["']?(?:basic|bearer|token)?\s*)[^\s"',;]+
  | (?i:\b(?:x-)?(?:api|access|secret|auth)[-_ ]?(?:key|token)["']?\s*[:=]\s*["']?)[^\s"',;]{6,}
  | (?i:\b(?:sk|pk|rk|xai|gsk|hf|ghp)[-_])[A-Za-z0-9*._-]{8,}  # the prefixes that vendors give their keys
  | \b(?:AKIA|ASIA)[A-Z0-9]{12,} | \bAIza[A-Za-z0-9_-]{20,} | \beyJ[A-Za-z0-9_.-]{20,}  # AWS, Google, a JWT
  | \bdata:[^\s,]{0,100};base64,[A-Za-z0-9+/=]*  # an attachment that is quoted
    """,
    re.VERBOSE,
)
_TOKEN = re.compile(r"[A-Za-z0-9]{24,}")
_LEAST_DIGITS = 2  # of a long token that is a key, not a word


def error_message(parts: Iterable[Mapping[str, Any]], body: Any, *, secrets: Iterable[str]) -> str | None:
    """Return what an error body says in words, at most 500 characters; None: it says nothing.

    Keys and tokens are masked, control characters are removed.

    Args:
        parts: The `error` object and those inside it, the outermost first.
        body: The whole body, of any shape: gateways without an `error` object have their message elsewhere.
        secrets: Keys that are masked wherever they stand: the one that the request was sent with.
    """
    said: list[str] = []
    for text in [*_messages(parts), *_other_messages(body)]:
        if text.strip() and not any(text in each for each in said):
            said.append(text)
    cleaned = (clean_message(text, secrets=secrets) for text in said[:_MOST_PARTS])
    return ": ".join(filter(None, cleaned))[:MAX_CHARACTERS] or None


def clean_message(text: str, *, secrets: Iterable[str] = ()) -> str:
    """Return a foreign text in one line, without keys, at most 500 characters long."""
    visible = "".join(_visible(text[:_MOST_READ]))
    if len(text) > _MOST_READ:
        visible = visible.rpartition(" ")[0]  # half a key could not be recognised
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            visible = visible.replace(secret, MASK)
    masked = _TOKEN.sub(_masked_token, _KEYS.sub(MASK, mask_text(visible)))
    return " ".join(masked.split())[:MAX_CHARACTERS]


def _messages(parts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the messages of error objects, and a provider's own error where it is a plain text."""
    for part in parts:
        for name in ("message", "raw", "detail"):
            text = part.get(name)
            if isinstance(text, str) and not (name == "raw" and text.lstrip().startswith("{")):
                yield text


def _other_messages(body: Any) -> Iterator[str]:
    """Yield the messages of a body without an `error` object."""
    if isinstance(body, str):
        yield body
    if not isinstance(body, Mapping) or isinstance(body.get("error"), Mapping):
        return
    for name in ("error", "message", "detail"):
        value = body.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):  # FastAPI's list of refused fields
            for each in value[:_MOST_PARTS]:
                if isinstance(each, Mapping) and isinstance(text := each.get("msg"), str):
                    yield _with_place(each.get("loc"), text)


def _with_place(place: Any, text: str) -> str:
    names = [name for name in place[:_MOST_PARTS] if isinstance(name, str)] if isinstance(place, list) else []
    return f"{'.'.join(names)} {text}" if names else text


def _visible(text: str) -> Iterator[str]:
    for character in clean(text):
        if character.isascii() and character.isprintable():
            yield character
            continue
        category = unicodedata.category(character)
        if category in _SPACES:
            yield " "
        elif category not in _INVISIBLE:
            yield character


def _masked_token(found: re.Match[str]) -> str:
    token = found.group()
    digits = sum(each.isdigit() for each in token)
    return MASK if _LEAST_DIGITS <= digits < len(token) else token
