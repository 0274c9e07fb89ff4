"""What an error body says beyond its code: a context overflow, a moderation, when to come again. Pure.

Providers' own errors stand in `metadata.raw`, as text or as JSON in a text, of any shape: only bounded parts are read.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from godoty_service.openrouter.error_message import error_message
from godoty_service.openrouter.text import clean

_LARGEST_RAW = 64 * 1024  # characters of a provider's own error that are read
_DEEPEST = 4  # levels of nested error objects
_LONGEST_ADVICE = 86_400.0  # seconds; more is no advice
_EPOCH_MILLISECONDS = 10**11  # a time since 1970 above this is in milliseconds

CONTEXT_CODES = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "model_context_window_exceeded",
        "max_tokens_exceeded",
        "token_limit_exceeded",
        "payload_too_large",
        "request_too_large",
        "string_above_max_length",
        "string_too_long",
    }
)
_CONTEXT_WORDS = re.compile(
    r"context.{0,20}(length|window|limit|size)"  # OpenAI, vLLM, llama.cpp, Anthropic's "exceed context limit"
    r"|maximum.{0,40}tokens|tokens?.{0,60}exceeds?.{0,40}(maximum|limit)"  # Google
    r"|too many.{0,20}tokens"  # Bedrock, Cohere
    r"|(prompt|input|request|conversation|history).{0,20}is too (long|large)"  # Anthropic, Bedrock
    r"|reduce the length of",  # OpenAI, OpenRouter
    re.IGNORECASE,
)
_MODERATION_CODES = frozenset(
    {"content_policy_violation", "moderation", "content_filter", "refusal", "responsibleaipolicyviolation"}
)
_MODERATION_WORDS = re.compile(
    r"\b(input|prompt|content|request|message).{0,40}\b(was |is |has been )?(flagged|moderat)|requires moderation",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """An error body's own words.

    Attributes:
        codes: Its codes and types that are words, in lower case.
        words: Its messages.
        moderated: It names what a moderation flagged.
        message: Its messages, cleaned so that they can be stored and shown; None: there are none.
    """

    codes: frozenset[str]
    words: str
    moderated: bool
    message: str | None = None

    @classmethod
    def of(cls, body: Any, *, secrets: Iterable[str] = ()) -> "ErrorFacts":
        """Read an error body's `error` object, and the provider's own inside it.

        Args:
            body: The parsed body, of any shape.
            secrets: Keys that are masked in the message.
        """
        parts = list(_parts(error_of(body), _DEEPEST))
        codes = [part.get(name) for part in parts for name in ("code", "type", "error_type", "status", "reason")]
        words = [part.get("message") for part in parts] + [part.get("raw") for part in parts]
        return cls(
            codes=frozenset(code.lower() for code in codes if isinstance(code, str)),
            words="\n".join(word[:_LARGEST_RAW] for word in words if isinstance(word, str)),
            moderated=any(part.get("flagged_input") or isinstance(part.get("reasons"), list) for part in parts),
            message=error_message(parts, body, secrets=secrets),
        )

    @property
    def context_overflow(self) -> bool:
        """Whether the conversation does not fit the model."""
        return bool(self.codes & CONTEXT_CODES or _CONTEXT_WORDS.search(self.words))

    @property
    def moderation(self) -> bool:
        """Whether a moderation refused what the request says."""
        return bool(self.moderated or self.codes & _MODERATION_CODES or _MODERATION_WORDS.search(self.words))


def error_of(body: Any) -> Mapping[str, Any]:
    """Return the `error` object of a body; an empty one where there is none."""
    return _mapping(_mapping(body).get("error"))


def retry_after_body(error: Mapping[str, Any], now: datetime) -> float | None:
    """Return the seconds after which a body says that a retry helps, by a wait or by the time of a limit's reset."""
    metadata, availability = _mapping(error.get("metadata")), _mapping(error.get("availability"))
    headers = {str(name).lower(): value for name, value in _mapping(metadata.get("headers")).items()}
    waits = (
        availability.get("retry_after"),
        metadata.get("retry_after"),
        metadata.get("retry_after_seconds"),
        headers.get("retry-after"),
    )
    for wait in waits:
        if (seconds := _seconds(wait)) is not None and seconds <= _LONGEST_ADVICE:
            return seconds
    reset = _seconds(headers.get("x-ratelimit-reset"))
    if reset is None:
        return None
    left = (reset / 1000 if reset > _EPOCH_MILLISECONDS else reset) - now.timestamp()
    return left if 0 <= left <= _LONGEST_ADVICE else None


def _parts(error: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
    """Give an error object, its metadata, and the objects that these hold, as text or not."""
    yield error
    if depth == 0:
        return
    for name in ("metadata", "raw", "error", "innererror"):
        inner = error.get(name)
        if isinstance(inner, str) and name == "raw":
            inner = _parsed(inner)
        if isinstance(inner, dict):
            yield from _parts(inner, depth - 1)


def _parsed(text: str) -> Any:
    if len(text) > _LARGEST_RAW or not text.lstrip().startswith("{"):
        return None
    try:
        return from_json(clean(text))
    except ValueError:
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float | None:
    """Read seconds, or a time since 1970; what is negative or no number is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None
